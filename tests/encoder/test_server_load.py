"""EncoderService under load: patches of many clients share batches, full queues say when to come, actors are added."""

import asyncio
import contextlib
import io
import threading

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2, status_pb2
from PIL import Image

from sish_cluster.encoder import encoders as encoders_module
from sish_cluster.encoder.local_actor import LocalEncoder, local_actors
from sish_cluster.encoder.reading import EncodedPatches
from sish_cluster.encoder.scaling import ScalingSettings
from sish_cluster.encoder.server import encoder_server
from sish_cluster.encoder.settings import ActorSettings, ServiceSettings
from sish_cluster.wire.channel import open_channel
from sish_cluster.wire.serving import ServingSettings
from sish_cluster.wire.sish.v1 import encoder_pb2 as pb
from sish_cluster.wire.sish.v1 import encoder_pb2_grpc

PATIENT_S = 60


class HeldNetwork:
    """Stands where the networks do: holds every batch until told to go on, and notes its size."""

    def __init__(self, encoder):
        self.settings, self.embedder = encoder.settings, encoder.embedder
        self.description = encoder.description
        self.go_on = threading.Event()
        self.sizes = []

    def encode_patches(self, pixels):
        self.sizes.append(len(pixels))
        assert self.go_on.wait(PATIENT_S)
        keys = pixels[:, 0, 0, 0].astype(np.uint64)
        codes, embeddings = (
            np.zeros((len(pixels), 128), np.uint8),
            np.zeros((len(pixels), 8), "<f2"),
        )
        return EncodedPatches(keys, codes, embeddings)


@pytest.fixture
def network(encoder):
    return HeldNetwork(encoder)


@contextlib.asynccontextmanager
async def served(network, actors, **allowed):
    with local_actors(network.settings, actors, encoder=network) as lanes:
        server = encoder_server(
            lanes,
            network.settings,
            ServiceSettings(**allowed),
            ServingSettings("127.0.0.1:0", drain_s=0.0, grace_s=1.0),
            actor_settings=actors,
        )
        address = await server.start()
        try:
            yield address, server
        finally:
            network.go_on.set()
            await server.stop()


async def asked(address, value):
    """Encode one grey patch as a client with a connection of its own; return its key."""
    buffer = io.BytesIO()
    Image.fromarray(np.full((64, 64, 3), value, np.uint8)).save(buffer, "png")
    async with open_channel(address) as channel:
        call = encoder_pb2_grpc.EncoderServiceStub(channel).EncodePatches(timeout=PATIENT_S)
        await call.write(pb.EncodePatchesRequest(image=buffer.getvalue()))
        await call.done_writing()
        return (await call.read()).key


async def until(condition):
    async with asyncio.timeout(PATIENT_S):
        while not condition():
            await asyncio.sleep(0.01)


async def test_patches_of_many_clients_share_a_batch_on_one_actor(network, monkeypatch):
    actors = ActorSettings(n_actors=1, batch_patches=8)
    submitted = []
    submit = encoders_module.Encoders.submit
    monkeypatch.setattr(
        encoders_module.Encoders,
        "submit",
        lambda self, pixels, **more: submitted.append(pixels) or submit(self, pixels, **more),
    )
    async with served(network, actors) as (address, _):
        first = asyncio.create_task(asked(address, 1))
        await until(lambda: network.sizes)
        rest = [asyncio.create_task(asked(address, value)) for value in (2, 3, 4, 5, 6)]
        await until(lambda: len(submitted) == 6)
        network.go_on.set()
        assert await asyncio.gather(first, *rest) == [1, 2, 3, 4, 5, 6]
    assert network.sizes == [1, 5]


async def test_a_full_queue_answers_resource_exhausted_and_when_to_come_again(network):
    actors = ActorSettings(n_actors=1, batch_patches=1)
    async with served(network, actors, max_waiting=1, retry_after_s=7.0) as (address, _):
        held = [asyncio.create_task(asked(address, value)) for value in range(12)]
        done, _ = await asyncio.wait(held, return_when=asyncio.FIRST_COMPLETED, timeout=PATIENT_S)
        error = done.pop().exception()
        network.go_on.set()
        await asyncio.gather(*held, return_exceptions=True)
    assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    trailing = dict(error.trailing_metadata())
    status = status_pb2.Status.FromString(trailing["grpc-status-details-bin"])
    retry = error_details_pb2.RetryInfo()
    assert any(detail.Unpack(retry) for detail in status.details)
    assert retry.retry_delay.seconds == 7


async def test_actors_are_added_while_patches_of_clients_wait(network, monkeypatch):
    monkeypatch.setattr(encoders_module, "TEND_S", 0.01)
    at_once = ScalingSettings(min_actors=1, max_actors=3, grow_after_s=0.0)
    monkeypatch.setattr(ActorSettings, "scaling", property(lambda self: at_once))
    started, begin = [], LocalEncoder.__init__
    monkeypatch.setattr(
        LocalEncoder, "__init__", lambda self, *a, **k: started.append(self) or begin(self, *a, **k)
    )
    actors = ActorSettings(n_actors=3, min_actors=1, batch_patches=1)
    async with served(network, actors, max_waiting=32) as (address, _):
        calls = [asyncio.create_task(asked(address, value)) for value in range(1, 13)]
        await until(lambda: len(started) == 3)
        assert not any(call.done() for call in calls), "they were added while patches waited"
        network.go_on.set()
        assert await asyncio.gather(*calls) == list(range(1, 13))
    assert len(started) == 3
