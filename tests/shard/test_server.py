"""The shard over real gRPC between real processes: every rpc, and every way a caller can be wrong."""

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from sish_cluster.core.errors import (
    BadKey,
    BadMessage,
    BadRequest,
    FingerprintMismatch,
    Moved,
    NoDeadline,
    UnknownCollection,
    UnknownSlide,
)
from sish_cluster.core.key import UNIVERSE
from sish_cluster.wire.answers import AnswerAssembler
from sish_cluster.wire.sish.v1 import common_pb2, shard_pb2
from sish_cluster.wire.status import error_from_bytes, error_from_rpc
from sish_cluster.wire.values import pack_patches, pack_query, unpack_collection_state


@pytest.fixture
def server(serve):
    started = serve("--range", "0:8e14")
    started.create()
    return started


def answer_of(server, query, **fields):
    request = shard_pb2.SearchRequest(collection="demo", query=pack_query(query), **fields)
    assembler = AnswerAssembler()
    for part in server.stub.Search(request, timeout=30):
        assembler.add(part)
    return assembler.answer(len(query.patches))


def refusal_of(call):
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return error_from_rpc(caught.value)


def slide_of(make, name, rng_seed=1, n=5):
    return make.slide(name, patches=make.patches(rng_seed, n, high=8 * 10**14), site="lung")


def test_a_slide_goes_in_and_comes_back_with_its_patches(server, make, requests_of):
    encoded = slide_of(make, "s1", n=20_000)
    (stored,) = server.stub.Ingest(requests_of(encoded), timeout=30)
    assert (stored.slide_id, stored.was_stored, stored.error) == ("s1", False, b"")
    query = make.query(encoded.patches.taken(np.arange(0, 20_000, 500)))
    answer = answer_of(server, query, wants_examined=True)
    assert [slide.site for slide in answer.slides] == ["lung"]
    assert answer.candidates.numbers.tolist() == list(range(0, 20_000, 500))
    assert answer.eligible == 20_000
    assert answer.examined is not None


def test_one_bad_slide_of_a_stream_is_refused_and_the_others_are_stored(server, make, requests_of):
    good = [slide_of(make, f"good{i}", i) for i in range(3)]
    foreign = make.slide("foreign", 9, fingerprint="other")
    torn = next(requests_of(slide_of(make, "torn")))
    torn.part.patches.codes = torn.part.patches.codes[:-1]
    flipped = next(requests_of(slide_of(make, "flipped")))
    flipped.part.patches.keys = b"\x01" + flipped.part.patches.keys[1:]
    outside = next(requests_of(slide_of(make, "outside")))
    outside.part.patches.CopyFrom(_patches_of_keys([UNIVERSE]))
    moved = next(requests_of(slide_of(make, "moved")))
    moved.part.patches.CopyFrom(_patches_of_keys([UNIVERSE - 1]))
    stream = [
        *requests_of(good[0]), torn, *requests_of(foreign), flipped,
        *requests_of(good[1]), outside, moved, *requests_of(good[2]),
    ]  # fmt: skip
    fates = {r.slide_id: r.error for r in server.stub.Ingest(iter(stream), timeout=30)}
    refused = {name: type(error_from_bytes(error)) for name, error in fates.items() if error}
    assert refused == {
        "torn": BadMessage, "foreign": FingerprintMismatch, "flipped": BadMessage,
        "outside": BadKey, "moved": Moved,
    }  # fmt: skip
    assert sorted(server.slides()) == ["good0", "good1", "good2"]


def _patches_of_keys(keys):
    columns = (np.array(keys, "<u8").tobytes(), bytes(16), bytes(8), bytes(4))
    from sish_cluster.wire.columns import checksum_of

    return common_pb2.PackedPatches(
        layout_version=1,
        count=1,
        code_bytes=16,
        keys=columns[0],
        codes=columns[1],
        corners=columns[2],
        numbers=columns[3],
        crc32c=checksum_of(columns),
    )


def test_a_call_without_deadline_is_refused(server):
    error = refusal_of(lambda: server.stub.Status(shard_pb2.StatusRequest()))
    assert isinstance(error, NoDeadline)
    assert "pass timeout=" in error.message


def test_each_refusal_arrives_as_its_own_error(server, make):
    stub, query = server.stub, make.query(make.patches(1))
    wrong = shard_pb2.SearchRequest(collection="none", query=pack_query(query))
    assert isinstance(refusal_of(lambda: list(stub.Search(wrong, timeout=9))), UnknownCollection)
    bad = shard_pb2.SearchRequest(collection="demo", query=pack_query(query))
    bad.query.patches.count += 1
    assert isinstance(refusal_of(lambda: list(stub.Search(bad, timeout=9))), BadMessage)
    commit = shard_pb2.CommitSlideRequest(collection="demo", slide_id="s", version="v")
    assert isinstance(refusal_of(lambda: stub.CommitSlide(commit, timeout=9)), UnknownSlide)
    pages = shard_pb2.RangeLookupRequest(collection="demo", start=5, end=5)
    assert isinstance(refusal_of(lambda: list(stub.RangeLookup(pages, timeout=9))), BadRequest)


def test_a_slide_without_a_state_is_refused(server, make, requests_of):
    stream = requests_of(slide_of(make, "s1"), state=0)
    (response,) = server.stub.Ingest(stream, timeout=30)
    assert isinstance(error_from_bytes(response.error), BadMessage)


def test_pending_slides_are_listed_committed_and_forgotten(server, make, requests_of):
    stub = server.stub
    kept, dropped = slide_of(make, "kept", 1), slide_of(make, "dropped", 2)
    for encoded in (kept, dropped):
        list(stub.Ingest(requests_of(encoded, state=1), timeout=30))
    request = shard_pb2.ListPendingRequest(collection="demo")
    pending = stub.ListPending(request, timeout=30).pending
    assert [(p.slide_id, p.home) for p in pending] == [("dropped", "shard"), ("kept", "shard")]
    assert all(0 <= p.age_s < 60 for p in pending)
    commit = shard_pb2.CommitSlideRequest(collection="demo", slide_id="kept", version=kept.version)
    stub.CommitSlide(commit, timeout=30)
    forget = shard_pb2.ForgetRequest(
        collection="demo", slide_id="dropped", pending_version=dropped.version
    )
    assert stub.Forget(forget, timeout=30).postings == 5
    assert server.slides() == {"kept": (kept.version, 5)}


def test_a_range_streams_in_pages_and_chunks_with_every_row_once(server, make, requests_of):
    encoded = [slide_of(make, name, seed, 30_000) for seed, name in enumerate("ab")]
    for one in encoded:
        list(server.stub.Ingest(requests_of(one), timeout=30))
    seen, token = [], ""
    while True:
        request = shard_pb2.RangeLookupRequest(
            collection="demo", start=0, end=UNIVERSE, page_size=45_000, page_token=token
        )
        for chunk in server.stub.RangeLookup(request, timeout=30):
            keys = np.frombuffer(chunk.patches.keys, "<u8").tolist()
            rows = np.frombuffer(chunk.slide_rows, "<u4").tolist()
            seen += [(k, chunk.slides[r].slide_id) for k, r in zip(keys, rows, strict=True)]
            token = chunk.next_page_token
        if not token:
            break
    expected = [(k, s.slide.slide_id) for s in encoded for k in s.patches.keys.tolist()]
    assert seen == sorted(expected)


def test_neighbours_and_descriptions_travel(server, make, requests_of):
    encoded = slide_of(make, "s1")
    list(server.stub.Ingest(requests_of(encoded), timeout=30))
    keys = sorted(encoded.patches.keys.tolist())
    request = shard_pb2.NeighboursRequest(
        collection="demo", key=keys[2], predecessors=2, successors=1
    )
    found = server.stub.Neighbours(request, timeout=30)
    assert np.frombuffer(found.predecessors, "<u8").tolist() == [keys[1], keys[0]]
    assert np.frombuffer(found.successors, "<u8").tolist() == [keys[3]]
    assert found.is_occupied
    describe = shard_pb2.DescribeCollectionRequest(collection="demo")
    state = unpack_collection_state(server.stub.DescribeCollection(describe, timeout=9).state)
    assert (state.collection, state.slides, state.postings) == (make.collection, 1, 5)
    status = server.stub.Status(shard_pb2.StatusRequest(), timeout=9)
    assert (status.range_start, status.range_end) == (0, 8 * 10**14)


def test_health_answers_while_searches_run(server, make, requests_of):
    encoded = slide_of(make, "s1", n=100_000)
    list(server.stub.Ingest(requests_of(encoded), timeout=60))
    query = make.query(encoded.patches.taken(np.arange(2000)), max_distance=40)
    request = shard_pb2.SearchRequest(collection="demo", query=pack_query(query))
    searches = [server.stub.Search(request, timeout=120) for _ in range(4)]
    health = health_pb2_grpc.HealthStub(server.channel)
    asked = health_pb2.HealthCheckRequest(service="sish.v1.ShardService")
    assert health.Check(asked, timeout=5).status == health_pb2.HealthCheckResponse.SERVING
    for search in searches:
        search.cancel()
    assert server.stub.Status(shard_pb2.StatusRequest(), timeout=30).uptime_s > 0


def test_a_query_packed_with_wrong_lengths_names_the_field(server, make):
    query = pack_query(make.query(make.patches(1)))
    query.patches.CopyFrom(pack_patches(make.patches(1)))
    query.patches.corners = query.patches.corners[:-4]
    request = shard_pb2.SearchRequest(collection="demo", query=query)
    error = refusal_of(lambda: list(server.stub.Search(request, timeout=9)))
    assert (type(error), error.field) == (BadMessage, "patches.corners")


def test_a_terminated_server_drains_and_a_second_one_cannot_share_its_folder(serve, make):
    server = serve()
    server.create()
    with pytest.raises(RuntimeError, match="in use by process"):
        serve()
    assert server.stop() == 0
    again = serve()
    assert [c.name for c in _collections(again)] == ["demo"]


def _collections(server):
    return server.stub.ListCollections(shard_pb2.ListCollectionsRequest(), timeout=30).collections
