"""The driver's side of Ray's actors: one that reads and one that encodes, as lanes use them.

Futures that come from here fail with a `SishError` only, whatever Ray raises.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any, TypeVar

from sish_cluster.core.errors import SishError
from sish_cluster.encoder.catalogue import CatalogueEntry
from sish_cluster.encoder.encoders import AHEAD
from sish_cluster.encoder.lane import Stage
from sish_cluster.encoder.outcome import EncoderDescription
from sish_cluster.encoder.ray_head import RayHead
from sish_cluster.encoder.reading import EncodedPatches

Answer = TypeVar("Answer")

WATCH = "watch"
"""Concurrency group that answers while an actor works."""

ENCODE = "encode"
"""Concurrency group of batches: as many at once as lanes may have under way."""

WATCH_TIMEOUT_S = 2.0
"""Seconds an actor has to tell its progress; a restarting actor takes longer and is asked again."""


class RayEncoder:
    """One `actor.EncoderActor` in a process that Ray keeps alive; implements `encoders.EncoderMember`."""

    def __init__(self, handle: Any, ray: Any, head: RayHead) -> None:
        self.handle = handle
        self._ray = ray
        self._head = head
        self._asked = handle.describe.options(concurrency_group=WATCH).remote()

    @property
    def is_ready(self) -> bool:
        """Whether it has answered once."""
        ready, _ = self._ray.wait([self._asked], timeout=0)
        return bool(ready)

    def begin(self, pixels: Any) -> Future[EncodedPatches]:
        """Begin a batch of patches, or of a reference to them."""
        encode = self.handle.encode_patches.options(concurrency_group=ENCODE)
        return _settled(lambda: encode.remote(pixels), self._head)

    def describe(self, timeout_s: float) -> tuple[int, EncoderDescription]:
        """Return the actor's process id and what its encoder is."""
        answer: tuple[int, EncoderDescription] = self._ray.get(self._asked, timeout=timeout_s)
        return answer

    def restart(self) -> None:
        """Kill the actor's process; Ray starts another and repeats what it was at."""
        self._ray.kill(self.handle, no_restart=False)

    def close(self) -> None:
        """End the actor for good; without a head it has ended."""
        if self._head.is_lost:
            return
        with contextlib.suppress(self._ray.exceptions.RayError):
            self._ray.kill(self.handle)


class RayReader:
    """One `actor.ReaderActor` in a process that Ray keeps alive; implements `lane.SlideSource`.

    Parameters
    ----------
    start
        Starts a reader and returns its handle.
    ray
        The module.
    head
        The cluster's.
    embedder
        Handle of an `actor.EncoderActor`, for selectors that go by embeddings.
    """

    def __init__(self, start: Callable[[], Any], ray: Any, head: RayHead, embedder: Any) -> None:
        self._start = start
        self._ray = ray
        self._head = head
        self._embedder = embedder
        self._handle = start()

    def items(self, entry: CatalogueEntry, ticket: str) -> Iterator[Any]:
        """Yield a slide's `Cut`, then references to its batches: pixels never come here."""
        self._head.check(str(entry.path))
        # The reader rests while this many of its batches lie in the object store.
        stream = self._handle.items.options(
            num_returns="streaming", _generator_backpressure_num_objects=AHEAD + 1
        ).remote(entry, ticket, self._embedder)
        try:
            yield self._ray.get(next(stream))
            yield from stream
        except SishError:
            raise
        except Exception as error:  # Ray raises what it likes, also when it is gone.
            raise self._head.error_of(str(entry.path), error) from error

    def stage(self) -> Stage | None:
        """Return how far the reading is, or None while the reader does not answer."""
        with contextlib.suppress(self._ray.exceptions.RayError):
            asked = self._handle.stage.options(concurrency_group=WATCH).remote()
            stage: Stage = self._ray.get(asked, timeout=WATCH_TIMEOUT_S)
            return stage
        return None

    def cancel(self, ticket: str) -> None:
        """Ask the reader to stop a job before its next patch."""
        if self._head.is_lost:
            return
        self._handle.cancel.options(concurrency_group=WATCH).remote(ticket)

    def restart(self) -> None:
        """End the reader's process and start another, which knows nothing of the slide."""
        self.close()
        self._handle = self._start()

    def close(self) -> None:
        """End the reader for good; without a head it has ended."""
        if self._head.is_lost:
            return
        with contextlib.suppress(self._ray.exceptions.RayError):
            self._ray.kill(self._handle)


def _settled(ask: Callable[[], Any], head: RayHead) -> Future[Answer]:
    """Return the future of what Ray is asked for; it fails with a `SishError` only."""
    outcome: Future[Answer] = Future()

    def settle(future: Future[Any]) -> None:
        if not outcome.set_running_or_notify_cancel():
            return  # Nobody wants it any more.
        error = future.exception()
        if error is None:
            outcome.set_result(future.result())
        else:
            outcome.set_exception(head.error_of("a batch of patches", error))

    try:
        ask().future().add_done_callback(settle)
    except Exception as error:  # Ray itself is gone.
        outcome.set_exception(head.error_of("a batch of patches", error))
    return outcome
