"""Encoder actors under Ray: readers on CPUs, networks on shares of GPUs, in processes Ray keeps alive.

Pixels go from a reader to a network through Ray's object store and never through the driver. Ray starts
dead processes again and repeats what they were at, and the result has equal bytes. Ray is imported
only when it is asked for.

Notes
-----
Ray runs a task again when its actor died under it (at least once); an encoding has no effect outside its
answer, so that is safe.
"""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from sish_cluster.core.errors import EncoderUnavailable, SishError
from sish_cluster.core.seams import Pixels
from sish_cluster.encoder.batching import Batcher
from sish_cluster.encoder.catalogue import CatalogueEntry
from sish_cluster.encoder.encoders import AHEAD, Encoders
from sish_cluster.encoder.lane import Lane, Stage
from sish_cluster.encoder.outcome import EncoderDescription
from sish_cluster.encoder.ray_cluster import connected
from sish_cluster.encoder.ray_head import PATIENCE_S, RayHead
from sish_cluster.encoder.ray_lanes import ENCODE, WATCH, RayEncoder, RayReader
from sish_cluster.encoder.reader_actor import SlideReaderActor
from sish_cluster.encoder.reading import Cut, EncodedPatches
from sish_cluster.encoder.settings import ActorSettings, EncoderSettings

MALLOC = {
    "MALLOC_MMAP_THRESHOLD_": "4294967296",
    "MALLOC_TRIM_THRESHOLD_": "8589934592",
    "MALLOC_TOP_PAD_": "268435456",
    "MALLOC_ARENA_MAX": "1",
}
"""Keeps freed activations in the process instead of asking the kernel for zeroed pages at every layer; one
arena, because only the first can keep large blocks, and batches are encoded on a thread."""

EMBED_TIMEOUT_S = 600.0
"""Seconds a reader waits for the embeddings of a block of candidates."""


class EncoderActor:
    """The networks, in a process of their own; joins the patches of many callers into batches.

    Parameters
    ----------
    settings
        Everything that decides what an encoded patch is.
    actors
        Says how large a batch may be.
    """

    def __init__(self, settings: EncoderSettings, actors: ActorSettings) -> None:
        # Imported here: readers come from this module too, and do without torch.
        from sish_cluster.encoder.networks.inputs import device_of
        from sish_cluster.encoder.pipeline import Encoder

        self._encoder = Encoder(settings)
        batch = actors.batch_of(has_gpu=device_of(settings.device).type != "cpu")
        self._batcher = Batcher(self._encoder.encode_patches, max_patches=batch)

    def encode_patches(self, pixels: Pixels) -> EncodedPatches:
        """Return keys, codes and embeddings of patches."""
        return self._batcher.submit(pixels).result()

    def embeddings_of(self, pixels: Pixels) -> npt.NDArray[np.float32]:
        """Return embeddings of candidates: for readers whose selector goes by them."""
        return self._encoder.embedder.embeddings_of(pixels)

    def describe(self) -> tuple[int, EncoderDescription]:
        """Return the process id and what the encoder is."""
        return os.getpid(), self._encoder.description


class RemoteEmbedder:
    """An `Embedder` in a reader's process that asks an `EncoderActor`."""

    def __init__(self, dimensions: int) -> None:
        self.dimensions = dimensions
        self.handle: Any = None

    def embeddings_of(self, patches: Pixels) -> npt.NDArray[np.float32]:
        """Return the embeddings (n, dimensions) of patches."""
        import ray

        asked = self.handle.embeddings_of.options(concurrency_group=ENCODE).remote(patches)
        found: npt.NDArray[np.float32] = ray.get(asked, timeout=EMBED_TIMEOUT_S)
        return found


class ReaderActor:
    """A `SlideReaderActor` in a process of its own."""

    def __init__(self, settings: EncoderSettings, batch_patches: int, dimensions: int) -> None:
        self._embedder = RemoteEmbedder(dimensions)
        self._reader = SlideReaderActor(settings, self._embedder, batch_patches=batch_patches)

    def items(self, entry: CatalogueEntry, ticket: str, handle: Any) -> Iterator[Cut | Pixels]:
        """Yield a slide's `Cut`, then its batches; ``handle`` embeds candidates where that is needed."""
        # Not an argument of the class: Ray cannot start such an actor again once the handle is gone.
        self._embedder.handle = handle
        yield from self._reader.items(entry, ticket)

    def stage(self) -> Stage:
        """Return how far the last slide is read."""
        return self._reader.stage()

    def cancel(self, ticket: str) -> None:
        """Stop the job ``ticket`` before its next patch."""
        self._reader.cancel(ticket)


@contextlib.contextmanager
def ray_actors(
    settings: EncoderSettings, actors: ActorSettings, *, address: str | None
) -> Iterator[list[Lane]]:
    """Start Ray (or join it at ``address``), place readers and networks, and undo all at the end.

    Raises
    ------
    EncoderUnavailable
        If Ray is missing or does not start, or an actor cannot be placed; the CPUs and GPUs asked for
        and there are named.
    """
    with contextlib.ExitStack() as stack:
        ray = stack.enter_context(
            connected(
                address,
                object_store_bytes=actors.object_store_bytes,
                own=MALLOC,
                instead="--no-ray",
            )
        )
        # A cluster of our own ends with its head; another's may start its head again.
        head = RayHead(
            ray.get_runtime_context().gcs_address, patience_s=PATIENCE_S if address else 0.0
        )
        asked = _resources(ray, actors)
        _check_fits(ray, asked, actors)
        environment = {"env_vars": MALLOC} if address else None
        network = _network_class(ray, asked, actors, environment).remote
        encoders = stack.enter_context(
            Encoders(lambda: RayEncoder(network(settings, actors), ray, head), actors.scaling)
        )
        description = _await_placed(ray, encoders, asked, actors)
        first: Any = encoders.members[0]
        begin = _reader(ray, description, environment, settings=settings, actors=actors)
        lanes = []
        for _ in range(actors.wanted_readers):
            source = RayReader(begin, ray, head, first.handle)
            lanes.append(Lane(source, encoders, description))
            stack.callback(lanes[-1].close)
        yield lanes


def _reader(
    ray: Any,
    description: EncoderDescription,
    environment: Any,
    *,
    settings: EncoderSettings,
    actors: ActorSettings,
) -> Callable[[], Any]:
    """Return what starts a reader and returns its handle."""
    batch = actors.batch_of(has_gpu=ray.cluster_resources().get("GPU", 0.0) > 0)
    reader = _reader_class(ray, actors, environment).remote
    return functools.partial(reader, settings, batch, description.dimensions)


def _network_class(
    ray: Any, asked: Mapping[str, float], actors: ActorSettings, environment: Any
) -> Any:
    return ray.remote(
        num_cpus=asked["CPU"],
        num_gpus=asked.get("GPU", 0.0),
        max_restarts=-1,
        max_task_retries=actors.task_retries,
        concurrency_groups={WATCH: 1, ENCODE: actors.wanted_readers * (AHEAD + 1)},
        runtime_env=environment,
    )(EncoderActor)


def _reader_class(ray: Any, actors: ActorSettings, environment: Any) -> Any:
    return ray.remote(
        num_cpus=actors.cpus_per_reader,
        max_restarts=-1,
        max_task_retries=actors.task_retries,
        max_concurrency=1,
        concurrency_groups={WATCH: 1},
        runtime_env=environment,
    )(ReaderActor)


def _resources(ray: Any, actors: ActorSettings) -> dict[str, float]:
    asked = {"CPU": actors.cpus_per_actor}
    if ray.cluster_resources().get("GPU", 0.0) > 0:
        asked["GPU"] = actors.gpus_per_actor
    return asked


def _check_fits(ray: Any, asked: Mapping[str, float], actors: ActorSettings) -> None:
    there = ray.cluster_resources()
    total = {name: each * actors.scaling.min_actors for name, each in asked.items()}
    total["CPU"] += actors.cpus_per_reader * actors.wanted_readers
    if any(there.get(name, 0.0) < wanted for name, wanted in total.items()):
        raise _not_placed(there, asked, actors, placed=0)


def _await_placed(
    ray: Any, encoders: Encoders, asked: Mapping[str, float], actors: ActorSettings
) -> EncoderDescription:
    """Wait until every network answers; return what they are."""
    until_s = time.monotonic() + actors.place_timeout_s
    description: EncoderDescription | None = None
    for number, member in enumerate(encoders.members):
        try:
            network: Any = member
            _, description = network.describe(max(0.1, until_s - time.monotonic()))
        except ray.exceptions.GetTimeoutError as error:
            raise _not_placed(ray.available_resources(), asked, actors, placed=number) from error
        except ray.exceptions.RayError as error:
            cause = getattr(error, "cause", None) or getattr(error, "__cause__", None)
            if isinstance(cause, SishError):
                raise cause from error
            raise EncoderUnavailable(f"an encoder actor did not start: {error}") from error
    assert description is not None
    return description


def _not_placed(
    there: Mapping[str, float], asked: Mapping[str, float], actors: ActorSettings, *, placed: int
) -> EncoderUnavailable:
    each = ", ".join(f"{value:g} {name}" for name, value in asked.items())
    found = ", ".join(f"{there.get(name, 0.0):g} {name}" for name in asked)
    return EncoderUnavailable(
        f"{actors.scaling.min_actors} encoder actors of {each} each and {actors.wanted_readers} readers"
        f" of {actors.cpus_per_reader:g} CPU each were asked for and {placed} actors could be placed;"
        f" there is {found}. Ask for fewer actors or smaller shares, or free the machine"
    )
