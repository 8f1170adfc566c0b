"""Embeddings over gRPC: slides in and back out, searches between them, nothing for a slide that is not here."""

import contextlib

import numpy as np

from sish_cluster.core.clock import Deadline
from sish_cluster.core.query import Mode
from sish_cluster.core.seams import SlideState
from sish_cluster.core.topology import ShardSpec
from sish_cluster.router.shard_client import GrpcShard
from sish_cluster.shard.server import shard_server
from sish_cluster.shard.shard import Shard
from sish_cluster.wire.serving import ServingSettings
from sish_cluster.wire.sish.v1 import shard_pb2


def soon():
    return Deadline.after(60)


@contextlib.asynccontextmanager
async def client_of(settings, make):
    """Serve a shard with both kinds of collections; yield a client of it."""
    with Shard(settings) as shard:
        shard.create_collection(make.both)
        shard.create_collection(make.collection)
        server, direct = shard_server(shard, ServingSettings(listen="127.0.0.1:0"))
        client = GrpcShard(ShardSpec("all", await server.start()))
        try:
            yield client
        finally:
            await client.close()
            await server.stop()
            await direct.close()


async def test_a_slide_of_many_parts_comes_back_as_it_went_in(settings, make):
    encoded = make.embedded_slide("s", 1, 40_000, site="lung")
    stored = {"state": SlideState.COMMITTED, "is_home": True, "home": "all"}
    async with client_of(settings, make) as client:
        await client.ingest("both", encoded, **stored, deadline=soon())
        found = await client.encoded_slide("both", "s", deadline=soon())
        assert (found.slide, found.version) == (encoded.slide, encoded.version)
        assert found.fingerprint == encoded.fingerprint
        for name in ("keys", "codes", "corners", "numbers", "embeddings"):
            assert np.array_equal(getattr(found.patches, name), getattr(encoded.patches, name))
        assert await client.encoded_slide("both", "other", deadline=soon()) is None
        assert await client.encoded_slide("demo", "s", deadline=soon()) is None


async def test_a_direct_search_finds_the_nearest_embeddings(settings, make):
    stored = {"state": SlideState.COMMITTED, "is_home": True, "home": "all"}
    async with client_of(settings, make) as client:
        for i in range(3):
            slide = make.embedded_slide(f"s{i}", i, 20)
            await client.ingest("both", slide, **stored, deadline=soon())
        patches = make.embedded_patches(1, 20, code_bytes=0)
        query = make.query(patches, mode=Mode.DIRECT, min_cosine=-1.0, max_candidates=1)
        answer = await client.search("both", query, wants_examined=True, deadline=soon())
        assert (answer.mode, answer.eligible) == (Mode.DIRECT, 60)
        assert answer.candidates.distances.tolist() == [0] * 20
        assert [slide.slide_id for slide in answer.slides] == ["s1"]
        assert answer.candidates.numbers.tolist() == list(range(20))


def test_a_real_server_gives_a_slide_back_and_nothing_for_an_unknown_one(serve, make, requests_of):
    server = serve()
    server.create(make.both)
    encoded = make.embedded_slide("s", 1, 10)
    list(server.stub.Ingest(requests_of(encoded, collection="both"), timeout=30))
    ask = server.stub.EncodedSlide
    request = shard_pb2.EncodedSlideRequest(collection="both", slide_id="s")
    (response,) = ask(request, timeout=30)
    assert (response.part.version, response.part.is_last) == (encoded.version, True)
    request = shard_pb2.EncodedSlideRequest(collection="both", slide_id="unknown")
    assert list(ask(request, timeout=30)) == []
