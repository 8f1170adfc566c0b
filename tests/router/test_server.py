"""The router and its shard client over loopback sockets."""

from __future__ import annotations

import contextlib

import grpc.aio
import pytest
from click.testing import CliRunner
from grpc_health.v1 import health_pb2, health_pb2_grpc

from sish_cluster.cli.router import router as router_command
from sish_cluster.client.router_calls import RouterCalls
from sish_cluster.core.clock import Deadline
from sish_cluster.core.collection import Collection
from sish_cluster.core.errors import (
    BadMessage,
    BadRequest,
    BadTopology,
    DeadlineExceeded,
    FingerprintMismatch,
    ShardUnavailable,
    UnknownCollection,
    UnknownSlide,
)
from sish_cluster.core.query import Ranking
from sish_cluster.core.seams import SlideState
from sish_cluster.core.topology import KeyRange, Selector, ShardSpec
from sish_cluster.router.router import Router
from sish_cluster.router.server import SERVICE, router_server
from sish_cluster.router.shard_client import GrpcShard
from sish_cluster.shard.server import shard_server
from sish_cluster.shard.settings import ShardSettings
from sish_cluster.shard.shard import Shard
from sish_cluster.wire.serving import ServingSettings
from sish_cluster.wire.sish.v1 import router_pb2 as pb
from sish_cluster.wire.sish.v1.router_pb2_grpc import RouterServiceStub
from sish_cluster.wire.status import error_from_bytes, error_from_rpc
from sish_cluster.wire.values import slide_parts

ANYWHERE = ServingSettings(listen="127.0.0.1:0", drain_s=0.0, grace_s=5.0)
LOW = ShardSpec("low", "", Selector(), KeyRange(0, 100))
HIGH = ShardSpec("high", "", Selector(), KeyRange(100))
ASKED = {"ranking": Ranking.RRF, "k": 5, "allow_partial": False, "max_matches": 8}


def soon():
    return Deadline.after(60)


@contextlib.asynccontextmanager
async def served(router):
    """Serve a router; yield its address."""
    server, close = router_server(router, ANYWHERE)
    address = await server.start()
    try:
        yield address
    finally:
        await server.stop()
        await close()


@contextlib.asynccontextmanager
async def called(router):
    """Serve a router; yield a client's calls."""
    async with served(router) as address:
        calls = RouterCalls(address)
        try:
            yield calls
        finally:
            await calls.close()


@contextlib.asynccontextmanager
async def stub_of(address):
    async with grpc.aio.insecure_channel(address) as channel:
        yield RouterServiceStub(channel)


@pytest.fixture
def router(model):
    return Router(*model.memory_cluster(LOW, HIGH))


async def test_the_life_of_a_slide_over_the_wire(model, router):
    slide = model.slide_of("s1", [(5, 1), (105, 2)], site="lung", diagnosis="d")
    async with called(router) as calls:
        outcome = await calls.ingest("demo", slide, deadline=soon())
        assert (outcome.slide_id, outcome.version) == ("s1", slide.version)
        query = model.query_of([(5, 1), (105, 2)])
        result = await calls.search("demo", query, **ASKED, deadline=soon())
        assert (result.results[0].slide, result.results[0].distance) == (slide.slide, 0)
        listed = [stored async for stored in calls.list_slides("demo", deadline=soon())]
        assert [(stored.slide, stored.version) for stored in listed] == [
            (slide.slide, slide.version)
        ]
        assert (await calls.forget("demo", "s1", deadline=soon())).postings == 2
        assert (await calls.describe_collection("demo", deadline=soon())).slides == 0


async def test_collections_and_status_over_the_wire(model, router):
    async with called(router) as calls:
        assert await calls.create_collection(Collection("other", "g", 128), deadline=soon())
        names = [held.name for held in await calls.list_collections(deadline=soon())]
        assert names == ["demo", "other"]
        status = await calls.status(deadline=soon())
        assert [(s.name, s.range, s.is_serving) for s in status.shards] == [
            ("low", LOW.range, True),
            ("high", HIGH.range, True),
        ]


async def test_errors_keep_their_class_and_message_over_the_wire(model, router):
    async with called(router) as calls:
        query = model.query_of([(5, 1)])
        with pytest.raises(UnknownCollection):
            await calls.search("none", query, **ASKED, deadline=soon())
        stranger = model.slide_of("s1", [(5, 1)])
        object.__setattr__(stranger, "fingerprint", "g")
        with pytest.raises(FingerprintMismatch, match="found g"):
            await calls.ingest("demo", stranger, deadline=soon())


async def test_a_call_without_deadline_is_refused(router):
    async with served(router) as address, stub_of(address) as stub:
        with pytest.raises(grpc.aio.AioRpcError, match="without a deadline"):
            await stub.Status(pb.RouterServiceStatusRequest())


async def test_a_damaged_slide_in_a_stream_fails_alone(model, router):
    slides = [model.slide_of(f"s{n}", [(n, n)]) for n in range(3)]
    parts = [part for slide in slides for part in slide_parts(slide)]
    parts[1].patches.crc32c ^= 1
    requests = [pb.RouterServiceIngestRequest(collection="demo", part=part) for part in parts]
    async with served(router) as address, stub_of(address) as stub:
        fates = {fate.slide_id: fate.error async for fate in stub.Ingest(requests, timeout=60)}
    assert sorted(fates) == ["s0", "s1", "s2"]
    assert [slide_id for slide_id, error in fates.items() if error] == ["s1"]
    assert isinstance(error_from_bytes(fates["s1"]), BadMessage)


async def test_an_ingest_stream_keeps_to_one_collection(model, router):
    parts = [
        *slide_parts(model.slide_of("a", [(1, 1)])),
        *slide_parts(model.slide_of("b", [(1, 1)])),
    ]
    requests = [
        pb.RouterServiceIngestRequest(collection=name, part=part)
        for name, part in zip(["demo", "other"], parts, strict=True)
    ]
    async with served(router) as address, stub_of(address) as stub:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            [fate async for fate in stub.Ingest(requests, timeout=60)]
    error = error_from_rpc(raised.value)
    assert isinstance(error, BadRequest)
    assert "began with 'demo', found 'other'" in error.message


async def test_health_speaks_for_the_router_alone(model, router):
    async with served(router) as address, grpc.aio.insecure_channel(address) as channel:
        request = health_pb2.HealthCheckRequest(service=SERVICE)
        answer = await health_pb2_grpc.HealthStub(channel).Check(request, timeout=60)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


@contextlib.asynccontextmanager
async def real_shard(folder):
    """Serve a real shard; yield a client of it."""
    settings = ShardSettings(data_dir=folder, name="all", map_bytes=1 << 26)
    with Shard(settings) as shard:
        server, direct = shard_server(shard, ANYWHERE)
        client = GrpcShard(ShardSpec("all", await server.start()))
        try:
            yield client
        finally:
            await client.close()
            await server.stop()
            await direct.close()


async def test_the_shard_client_speaks_every_call_of_a_real_shard(model, tmp_path):
    slide = model.slide_of("s1", [(5, 1), (105, 2)], site="lung", diagnosis="d")
    async with real_shard(tmp_path / "shard") as client:
        collection = Collection("demo", "f", 64)
        assert await client.create_collection(collection, deadline=soon())
        assert list(await client.list_collections(deadline=soon())) == [collection]
        stored = {"state": SlideState.PENDING, "is_home": True, "home": "all", "deadline": soon()}
        assert not (await client.ingest("demo", slide, **stored)).was_stored
        (pending,) = await client.list_pending("demo", deadline=soon())
        assert (pending.slide_id, pending.version, pending.home) == ("s1", slide.version, "all")
        await client.commit_slide("demo", "s1", slide.version, deadline=soon())
        listed = [s async for s in client.list_slides("demo", deadline=soon())]
        assert [(s.slide, s.version, s.postings) for s in listed] == [
            (slide.slide, slide.version, 2)
        ]
        query = model.query_of([(5, 1)])
        answer = await client.search("demo", query, wants_examined=True, deadline=soon())
        assert answer.candidates.distances.tolist() == [0, 2]
        assert answer.label_counts == {"d": 1}
        assert (await client.describe_collection("demo", deadline=soon())).postings == 2
        assert (await client.status(deadline=soon())).range == KeyRange()
        assert (await client.forget("demo", "s1", deadline=soon())).postings == 2


async def test_what_a_shard_refuses_comes_out_as_its_own_error_naming_the_shard(model, tmp_path):
    async with real_shard(tmp_path / "shard") as client:
        with pytest.raises(UnknownCollection) as raised:
            await client.describe_collection("none", deadline=soon())
        assert raised.value.metadata["shard"] == "all"
        await client.create_collection(Collection("demo", "f", 64), deadline=soon())
        with pytest.raises(UnknownSlide):
            await client.commit_slide("demo", "none", "v", deadline=soon())


async def test_a_shard_that_is_not_there_is_named_with_its_address(model):
    client = GrpcShard(ShardSpec("gone", "127.0.0.1:1"))
    with pytest.raises(ShardUnavailable, match=r"shard 'gone' at 127\.0\.0\.1:1 cannot be reached"):
        await client.status(deadline=soon())
    with pytest.raises(DeadlineExceeded, match="no time was left to ask shard 'gone'"):
        await client.status(deadline=Deadline.after(0.0))
    await client.close()


def test_check_topology_prints_who_owns_what(tmp_path):
    file = tmp_path / "cluster.toml"
    file.write_text('[[shards]]\nname = "a"\naddress = "h:1"\nselect = { site = "lung" }\n')
    result = CliRunner().invoke(router_command, ["check-topology", str(file)])
    assert result.exit_code == 0
    assert "site=lung:\n  a at h:1, keys 0:1125899906842624" in result.output


def test_check_topology_refuses_a_wrong_file(tmp_path):
    file = tmp_path / "cluster.toml"
    file.write_text("shards = 3")
    with pytest.raises(BadTopology, match=r"'shards' must be a list; found 3"):
        CliRunner().invoke(router_command, ["check-topology", str(file)], catch_exceptions=False)


async def test_patch_searches_and_slides_come_back_over_the_wire(model, router):
    slide = model.slide_of("s1", [(5, 1), (105, 2)], site="lung", diagnosis="d")
    async with called(router) as calls:
        await calls.ingest("demo", slide, deadline=soon())
        found = await calls.encoded_slide("demo", "s1", deadline=soon())
        assert (found.slide, found.version) == (slide.slide, slide.version)
        assert found.patches.keys.tolist() == [5, 105]
        query = model.query_of([(5, 1), (105, 2)], max_distance=0)
        result = await calls.search_patches("demo", query, allow_partial=False, deadline=soon())
        assert result.candidates.keys.tolist() == [5, 105]
        assert result.candidates.offsets.tolist() == [0, 1, 2]
        assert (result.slides, result.eligible) == ([slide.slide], 2)
        assert result.mode_reason.startswith("exact: 2 eligible postings")
        with pytest.raises(UnknownSlide, match="no slide 'none'"):
            await calls.encoded_slide("demo", "none", deadline=soon())
