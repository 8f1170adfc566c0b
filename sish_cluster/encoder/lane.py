"""A lane: one reader of slides that hands its patches to the encoder actors all lanes share.

A lane has one slide at a time. It keeps a few batches ahead of the actors, never more, so that memory does
not grow with the slide; and it knows how far its slide is, whoever reads and whoever encodes.
"""

from __future__ import annotations

import collections
import dataclasses
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any, Protocol

from sish_cluster.core.errors import Cancelled, SishError
from sish_cluster.core.posting import EncodedSlide
from sish_cluster.core.seams import Pixels
from sish_cluster.encoder.catalogue import CatalogueEntry
from sish_cluster.encoder.encoders import AHEAD, Encoders
from sish_cluster.encoder.outcome import EncodeFailure, EncoderDescription, Outcome, unexpected
from sish_cluster.encoder.reading import ENCODING, READING, Cut, EncodedPatches, assembled


@dataclasses.dataclass(frozen=True, slots=True)
class Stage:
    """How far the job ``ticket`` is."""

    ticket: str
    name: str = READING
    done: int = 0
    total: int = 0


class SlideSource(Protocol):
    """Reads slides, one at a time, in this process or under Ray."""

    def items(self, entry: CatalogueEntry, ticket: str) -> Iterator[Any]:
        """Yield a slide's `Cut`, then its batches: pixels, or what the encoders take for them."""

    def stage(self) -> Stage | None:
        """Return how far the reading is, or None while nobody answers."""

    def cancel(self, ticket: str) -> None:
        """Stop reading the job ``ticket`` before its next patch."""

    def restart(self) -> None:
        """Give up what is being read and be ready for another slide."""

    def close(self) -> None:
        """End for good."""


class Lane:
    """One slide at a time through one reader and the shared encoders; implements `pool.Actor`.

    Parameters
    ----------
    source
        The reader.
    encoders
        Shared with the other lanes.
    description
        What the encoders are.
    """

    def __init__(
        self, source: SlideSource, encoders: Encoders, description: EncoderDescription
    ) -> None:
        self._source = source
        self._encoders = encoders
        self._description = description
        self._stage = Stage("")
        self._wanted = ""

    def encode(self, entry: CatalogueEntry, ticket: str) -> Future[Outcome]:
        """Begin a slide; the future never fails: whatever goes wrong is a failure of the slide."""
        self._stage, self._wanted = Stage(ticket), ticket
        future: Future[Outcome] = Future()

        def run() -> None:
            future.set_result(self._outcome_of(entry, ticket))

        # A thread of its own that ends with the job: one that hangs can be abandoned.
        threading.Thread(target=run, name="sish-lane", daemon=True).start()
        return future

    def encode_patches(self, pixels: Pixels) -> Future[EncodedPatches]:
        """Begin a batch of patches."""
        return self._encoders.submit(pixels)

    def stage(self) -> Stage | None:
        """Return how far the slide is; while its mosaic is cut, only the reader knows."""
        stage = self._stage
        if stage.name == ENCODING:
            return stage
        reading = self._source.stage()
        return reading if reading is None or reading.ticket == stage.ticket else stage

    def cancel(self, ticket: str) -> None:
        """Stop the job ``ticket`` before its next patch."""
        if self._wanted == ticket:
            self._wanted = ""
        self._source.cancel(ticket)

    def restart(self) -> None:
        """Give up the slide that is stuck, wherever it is, and be ready for another."""
        ticket, self._wanted = self._stage.ticket, ""
        self._source.restart()
        self._encoders.restart_stuck(ticket)

    def close(self) -> None:
        """Stop the slide before its next patch and end the reader."""
        self.cancel(self._stage.ticket)
        self._source.close()

    def _outcome_of(self, entry: CatalogueEntry, ticket: str) -> Outcome:
        slide_id = entry.slide.slide_id
        try:
            return self._encoded(entry, ticket)
        except SishError as error:
            return EncodeFailure(slide_id, entry.path, error)
        except Exception as error:
            return EncodeFailure(slide_id, entry.path, unexpected(str(entry.path), error))

    def _encoded(self, entry: CatalogueEntry, ticket: str) -> EncodedSlide:
        items = self._source.items(entry, ticket)
        cut = next(items)
        assert isinstance(cut, Cut)
        n = len(cut.corners)
        parts: list[EncodedPatches] = []
        ahead: collections.deque[Future[EncodedPatches]] = collections.deque()

        def take() -> None:
            parts.append(ahead.popleft().result())
            self._note(entry, Stage(ticket, ENCODING, sum(len(p.keys) for p in parts), n))

        self._note(entry, Stage(ticket, ENCODING, 0, n))
        for batch in items:
            ahead.append(self._encoders.submit(batch, ticket=ticket))
            if len(ahead) > AHEAD:
                take()
        while ahead:
            take()
        found = self._description
        return assembled(cut, parts, fingerprint=found.fingerprint, has_keys=found.has_keys)

    def _note(self, entry: CatalogueEntry, stage: Stage) -> None:
        # A job that was given up may still run: it must not tell its progress as another's.
        if self._wanted != stage.ticket:
            raise Cancelled(
                f"{entry.path}: encoding was cancelled at patch {stage.done} of {stage.total}"
            )
        self._stage = stage
