"""A real server on loopback: deadlines, errors, health, reflection, drain."""

import asyncio
import contextlib

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from sish_cluster.core import errors
from sish_cluster.core.errors import error_classes
from sish_cluster.wire.channel import open_channel
from sish_cluster.wire.serving import Server, ServingSettings
from sish_cluster.wire.sish.v1 import shard_pb2, shard_pb2_grpc
from sish_cluster.wire.status import error_from_bytes, error_from_rpc, status_bytes_of

SERVICE = "sish.v1.ShardService"


class Raising(shard_pb2_grpc.ShardServiceServicer):
    """A servicer whose Status raises what it is given, and whose Search streams once, then raises."""

    def __init__(self, error=None):
        self.error = error

    async def Status(self, request, context):
        if self.error:
            raise self.error
        return shard_pb2.StatusResponse(version="1")

    async def Search(self, request, context):
        yield shard_pb2.SearchResponse()
        raise self.error


@contextlib.asynccontextmanager
async def serving(error=None, **settings):
    server = Server(
        ServingSettings("127.0.0.1:0", drain_s=0.0, grace_s=1.0, **settings),
        [SERVICE],
        lambda s: shard_pb2_grpc.add_ShardServiceServicer_to_server(Raising(error), s),
    )
    address = await server.start()
    try:
        async with open_channel(address) as channel:
            yield server, channel
    finally:
        await server.stop()


async def test_a_call_without_deadline_is_refused_and_told_what_to_do():
    async with serving() as (_, channel):
        stub = shard_pb2_grpc.ShardServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Status(shard_pb2.StatusRequest())
        error = error_from_rpc(caught.value)
        assert isinstance(error, errors.NoDeadline)
        assert "pass timeout=" in error.message
        assert (await stub.Status(shard_pb2.StatusRequest(), timeout=5)).version == "1"


@pytest.mark.parametrize("cls", sorted(error_classes(), key=lambda c: c.__name__))
async def test_every_error_keeps_its_class_and_facts_over_the_wire(cls):
    sent = cls("found this; do that", metadata={"shard": "a"}, field="query.keys")
    async with serving(sent) as (_, channel):
        stub = shard_pb2_grpc.ShardServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            # UNAVAILABLE is retried by the channel within the deadline; the last answer counts.
            await stub.Status(shard_pb2.StatusRequest(), timeout=10)
    error = error_from_rpc(caught.value)
    assert type(error) is cls
    assert (error.message, error.metadata, error.field) == (
        sent.message,
        {"shard": "a"},
        "query.keys",
    )


async def test_an_error_in_mid_stream_arrives_after_what_was_streamed():
    async with serving(errors.StoreFull("full", retry_after_s=7.5)) as (_, channel):
        stub = shard_pb2_grpc.ShardServiceStub(channel)
        call, seen = stub.Search(shard_pb2.SearchRequest(), timeout=5), 0
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async for _ in call:
                seen += 1
        assert seen == 1
        assert error_from_rpc(caught.value).retry_after_s == 7.5


async def test_an_unexpected_exception_becomes_internal_without_a_traceback(caplog):
    async with serving(ValueError("secret detail")) as (_, channel):
        stub = shard_pb2_grpc.ShardServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Status(shard_pb2.StatusRequest(), timeout=5)
    error = error_from_rpc(caught.value)
    assert isinstance(error, errors.Internal)
    assert "secret detail" not in error.message
    assert "secret detail" in caplog.text


async def test_health_and_reflection_answer_without_our_guard():
    async with serving() as (_, channel):
        health = health_pb2_grpc.HealthStub(channel)
        for name in ("", SERVICE):
            answer = await health.Check(health_pb2.HealthCheckRequest(service=name))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        reflection = reflection_pb2_grpc.ServerReflectionStub(channel)
        ask = reflection_pb2.ServerReflectionRequest(list_services="")
        async for answer in reflection.ServerReflectionInfo(iter([ask])):
            assert SERVICE in {s.name for s in answer.list_services_response.service}


async def test_the_port_file_names_the_bound_address(tmp_path):
    async with serving(port_file=tmp_path / "port") as (server, _):
        assert (tmp_path / "port").read_text() == server.address
        assert not server.address.endswith(":0")


@pytest.mark.parametrize("listen", ["nonsense", "127.0.0.1:x", ":7"])
async def test_an_address_that_cannot_be_parsed_is_refused(listen):
    server = Server(ServingSettings(listen), [], lambda s: None)
    with pytest.raises(errors.BadRequest, match="HOST:PORT"):
        await server.start()


async def test_a_port_in_use_is_refused_by_name():
    async with serving() as (server, _):
        second = Server(ServingSettings(server.address), [], lambda s: None)
        with pytest.raises(errors.BadRequest, match="cannot listen"):
            await second.start()


def test_a_status_of_strangers_maps_by_its_code():
    status = errors.Unavailable("later")
    back = error_from_bytes(status_bytes_of(status))
    assert type(back) is errors.Unavailable


async def test_a_dead_address_is_unavailable_not_a_hang():
    async with open_channel("127.0.0.1:1") as channel:
        stub = shard_pb2_grpc.ShardServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await asyncio.wait_for(stub.Status(shard_pb2.StatusRequest(), timeout=5), 10)
    assert isinstance(error_from_rpc(caught.value), errors.Unavailable)
