import threading

import grpc
import pytest

from sish_cluster import Client, ClientSettings
from sish_cluster.core.errors import (
    FingerprintMismatch,
    NoDeadline,
    ShardUnavailable,
    Unavailable,
    UnknownCollection,
    UnknownSlide,
)
from sish_cluster.core.posting import EncodedSlide
from sish_cluster.core.query import Query
from sish_cluster.testing.clusters import cut_by_label, cut_by_range, cut_nowhere
from sish_cluster.wire.sish.v1 import router_pb2, router_pb2_grpc
from sish_cluster.wire.status import error_from_rpc


def test_a_slide_is_found_first_at_distance_0_until_it_is_forgotten(started, slides):
    _, client = started(cut_by_range(2), count=12)
    found = client.search("synthetic", slides.slide(5))
    assert found.results[0].slide == slides.slide(5).slide
    assert found.results[0].distance == 0
    assert client.forget("synthetic", "slide-0005").postings == slides.patches
    again = client.search("synthetic", slides.slide(5))
    assert "slide-0005" not in [result.slide.slide_id for result in again.results]
    assert client.describe_collection("synthetic").slides == 11
    with pytest.raises(UnknownSlide, match="slide-0005"):
        client.forget("synthetic", "slide-0005")


def test_a_filter_holds_in_every_shard(started, slides):
    _, client = started(cut_by_label("site", ["lung"]), count=12)
    found = client.search("synthetic", slides.slide(0), k=20, where=["site!=lung", "stain=HE"])
    labels = {(result.slide.site, result.slide.label("stain")) for result in found.results}
    assert "lung" not in {site for site, _ in labels}
    assert {stain for _, stain in labels} <= {"HE"}


def test_a_shard_killed_in_mid_ingest_loses_nothing_and_doubles_nothing(started, slides):
    cluster, client = started(cut_by_range(2))
    restarting = threading.Thread(target=cluster.restart, args=["keys-0"])

    def source():
        for number, slide in enumerate(slides.slides(40)):
            if number == 15:
                cluster.kill("keys-0")
                restarting.start()
            yield slide

    outcomes = list(client.ingest("synthetic", source()))
    restarting.join()
    assert [repr(o.error) for o in outcomes if not o.is_durable] == [], cluster.logs()
    state = client.describe_collection("synthetic")
    assert (state.slides, state.postings, state.pending) == (40, 40 * slides.patches, 0)
    held = [stored.slide.slide_id for stored in client.list_slides("synthetic")]
    assert held == sorted(slide.slide.slide_id for slide in slides.slides(40))


def test_everything_acknowledged_is_there_after_every_shard_was_killed(started, slides):
    cluster, client = started(cut_by_range(2), count=10)
    for name in cluster.shards:
        cluster.kill(name)
    for name in cluster.shards:
        cluster.restart(name)
    assert len(client.list_slides("synthetic")) == 10
    assert client.search("synthetic", slides.slide(9)).results[0].distance == 0


def test_an_answer_without_a_dead_shard_names_it_and_only_comes_when_allowed(started, slides):
    cluster, client = started(cut_by_label("site", ["lung"]), count=12)
    cluster.kill("rest")
    partial = client.search("synthetic", slides.slide(0), k=20, allow_partial=True)
    assert partial.missing_shards == ("rest",)
    assert {result.slide.site for result in partial.results} == {"lung"}
    hasty = Client(cluster.address, settings=ClientSettings(attempts=1))
    with hasty, pytest.raises(ShardUnavailable, match="rest"):
        hasty.search("synthetic", slides.slide(0))
    health = {shard.name: shard.is_serving for shard in client.status().shards}
    assert health == {"site-0": True, "rest": False}


def test_slides_of_another_encoder_are_refused_by_name(started, slides):
    _, client = started(cut_nowhere())
    good = slides.slide(0)
    foreign = EncodedSlide.whole(good.slide, good.patches, "another-encoder")
    with pytest.raises(FingerprintMismatch, match="another-encoder"):
        client.ingest_slide("synthetic", foreign)
    with pytest.raises(FingerprintMismatch, match="another-encoder"):
        client.search("synthetic", Query(good.patches, "another-encoder"))
    with pytest.raises(UnknownCollection, match="nowhere"):
        client.search("nowhere", good)
    assert client.describe_collection("synthetic").slides == 0


def test_a_call_without_a_deadline_is_refused(started):
    cluster, _ = started(cut_nowhere())
    with grpc.insecure_channel(cluster.address) as channel:
        stub = router_pb2_grpc.RouterServiceStub(channel)
        with pytest.raises(grpc.RpcError) as failed:
            stub.Status(router_pb2.RouterServiceStatusRequest())
    error = error_from_rpc(failed.value)
    assert isinstance(error, NoDeadline)
    assert "timeout" in str(error)


def test_a_router_that_is_not_there_is_named_with_what_to_do():
    client = Client("127.0.0.1:1", settings=ClientSettings(attempts=1))
    with client, pytest.raises(Unavailable, match=r"router at 127\.0\.0\.1:1 .* start it"):
        client.status()
