"""Encoder actors inside this process: the same class as under Ray, on threads.

torch, OpenSlide and OpenCV let go of Python's lock while they work, so a few threads use a few cores;
they share one set of weights. Each job gets a thread of its own that ends with it: a job that hangs in a
decoder can be abandoned, because nothing waits for its thread.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import TypeVar

from sish_cluster.core.posting import EncodedSlide
from sish_cluster.core.seams import Pixels
from sish_cluster.encoder.actor import EncoderActor, Stage
from sish_cluster.encoder.catalogue import CatalogueEntry
from sish_cluster.encoder.pipeline import EncodedPatches, EncodeFailure, Encoder, EncoderDescription
from sish_cluster.encoder.settings import ActorSettings, EncoderSettings

Answer = TypeVar("Answer")


class LocalActor:
    """One `EncoderActor` in this process."""

    def __init__(self, settings: EncoderSettings, encoder: Encoder) -> None:
        self._settings = settings
        self._encoder = encoder
        self._actor = EncoderActor(settings, encoder)

    def encode(self, entry: CatalogueEntry, ticket: str) -> Future[EncodedSlide | EncodeFailure]:
        """Begin a slide."""
        actor = self._actor
        return _begun(lambda: actor.encode(entry, ticket))

    def encode_patches(self, pixels: Pixels) -> Future[EncodedPatches]:
        """Begin a batch of patches."""
        actor = self._actor
        return _begun(lambda: actor.encode_patches(pixels))

    def stage(self) -> Stage | None:
        """Return how far the actor is."""
        return self._actor.stage()

    def cancel(self, ticket: str) -> None:
        """Ask the actor to stop a job before its next patch."""
        self._actor.cancel(ticket)

    def describe(self, timeout_s: float) -> tuple[int, EncoderDescription]:
        """Return this process's id and what the encoder is."""
        return os.getpid(), self._encoder.description

    def restart(self) -> None:
        """Abandon the job that runs and be ready for another."""
        self._actor.cancel(self._actor.stage().ticket)
        self._actor = EncoderActor(self._settings, self._encoder)

    def close(self) -> None:
        """Stop the job that runs before its next patch."""
        self._actor.cancel(self._actor.stage().ticket)


@contextlib.contextmanager
def local_actors(settings: EncoderSettings, actors: ActorSettings) -> Iterator[list[LocalActor]]:
    """Read the weights once and yield the actors."""
    encoder = Encoder(settings)
    local = [LocalActor(settings, encoder) for _ in range(actors.wanted_actors)]
    try:
        yield local
    finally:
        for actor in local:
            actor.close()


def _begun(work: Callable[[], Answer]) -> Future[Answer]:
    future: Future[Answer] = Future()

    def run() -> None:
        try:
            answer = work()
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(answer)

    threading.Thread(target=run, name="sish-encode", daemon=True).start()
    return future
