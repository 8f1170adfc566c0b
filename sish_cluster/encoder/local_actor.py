"""Encoder actors inside this process: readers and networks on threads, the same lanes as under Ray.

torch, OpenSlide and OpenCV let go of Python's lock while they work, so a few threads use a few cores; all
networks share one set of weights, and each of their patches runs on one thread.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import Future

from sish_cluster.core.seams import Pixels
from sish_cluster.encoder.batching import Batcher
from sish_cluster.encoder.encoders import Encoders
from sish_cluster.encoder.lane import Lane
from sish_cluster.encoder.networks.inputs import device_of
from sish_cluster.encoder.pipeline import Encoder
from sish_cluster.encoder.reader_actor import SlideReaderActor
from sish_cluster.encoder.reading import EncodedPatches
from sish_cluster.encoder.settings import ActorSettings, EncoderSettings


class LocalEncoder:
    """One network's place in this process; implements `encoders.EncoderMember`.

    Parameters
    ----------
    encoder
        The networks, shared with others.
    batch_patches
        Most patches of a batch.
    """

    is_ready = True
    """There as soon as it is made."""

    def __init__(self, encoder: Encoder, *, batch_patches: int = 1) -> None:
        self._batcher = Batcher(encoder.encode_patches, max_patches=batch_patches)

    def begin(self, pixels: Pixels) -> Future[EncodedPatches]:
        """Begin patches."""
        return self._batcher.submit(pixels)

    def restart(self) -> None:
        """Give up the batch that runs."""
        self._batcher.restart()

    def close(self) -> None:
        """Finish the batch that runs, and take no more."""
        self._batcher.close()


@contextlib.contextmanager
def local_actors(
    settings: EncoderSettings, actors: ActorSettings, *, encoder: Encoder | None = None
) -> Iterator[list[Lane]]:
    """Read the weights once (or take those of ``encoder``) and yield the lanes."""
    shared = encoder or Encoder(settings, at_once=actors.wanted_actors)
    batch = actors.batch_of(has_gpu=device_of(settings.device).type != "cpu")

    def start() -> LocalEncoder:
        return LocalEncoder(shared, batch_patches=batch)

    with Encoders(start, actors.scaling) as encoders:
        readers = [
            SlideReaderActor(settings, shared.embedder, batch_patches=batch)
            for _ in range(actors.wanted_readers)
        ]
        lanes = [Lane(reader, encoders, shared.description) for reader in readers]
        try:
            yield lanes
        finally:
            for lane in lanes:
                lane.close()
