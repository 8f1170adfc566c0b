"""The encoder actors that share the work of many readers, as many as the work needs.

Readers hand in patches; each batch goes to the actor with the least before it. What a reader hands in may be
pixels or, under Ray, a reference to pixels that lie in its object store: they never pass through
here. The number of actors follows the work (`scaling`).
"""

from __future__ import annotations

import dataclasses
import functools
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Protocol

from sish_cluster.core.clock import SYSTEM_CLOCK, Clock
from sish_cluster.core.errors import EncoderUnavailable
from sish_cluster.encoder.reading import EncodedPatches
from sish_cluster.encoder.scaling import Scaler, ScalingSettings

AHEAD = 2
"""Batches an actor has before it at a time: one that runs, and one so that it never waits for the next."""


TEND_S = 1.0
"""Seconds between two looks at whether the number of actors is right."""


class EncoderMember(Protocol):
    """One encoder actor, in this process or under Ray."""

    @property
    def is_ready(self) -> bool:
        """Whether it is there; one that is being started is not yet."""

    def begin(self, pixels: Any) -> Future[EncodedPatches]:
        """Begin patches (or a reference to them); the future fails with a `SishError` only."""

    def restart(self) -> None:
        """Give up the batch that runs and be ready for the next."""

    def close(self) -> None:
        """End the actor for good."""


@dataclasses.dataclass(slots=True, eq=False)
class _Seat:
    member: EncoderMember
    jobs: list[str] = dataclasses.field(default_factory=list)
    """Tickets of the batches before it."""

    @property
    def load(self) -> int:
        return len(self.jobs)


class Encoders:
    """A changing number of encoder actors; `close` them, or use it as a context manager.

    Parameters
    ----------
    start
        Starts one more actor; returns at once.
    settings
        How many there may be.
    clock
        For the scaling.
    """

    def __init__(
        self,
        start: Callable[[], EncoderMember],
        settings: ScalingSettings,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._start = start
        self._scaler = Scaler(settings, clock)
        self._lock = threading.Lock()
        self._seats = [_Seat(start()) for _ in range(settings.min_actors)]
        self._closed = threading.Event()
        if settings.min_actors < settings.max_actors:
            threading.Thread(target=self._watch, name="sish-scale", daemon=True).start()

    def __enter__(self) -> Encoders:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def n_actors(self) -> int:
        """Actors there are, those that are being started included."""
        return len(self._seats)

    @property
    def members(self) -> list[EncoderMember]:
        """The actors there are."""
        return [seat.member for seat in self._seats]

    def submit(self, pixels: Any, *, ticket: str = "") -> Future[EncodedPatches]:
        """Give a batch of the job ``ticket`` to the actor with the least before it.

        Raises
        ------
        EncoderUnavailable
            If the actors were closed.
        """
        with self._lock:
            if not self._seats:
                raise EncoderUnavailable("the encoder actors were closed: start them again")
            seat = min(self._seats, key=lambda seat: (not seat.member.is_ready, seat.load))
            seat.jobs.append(ticket)
        try:
            answer = seat.member.begin(pixels)
        except BaseException:
            self._left(seat, ticket)
            raise
        answer.add_done_callback(functools.partial(self._left, seat, ticket))
        return answer

    def restart_stuck(self, ticket: str) -> None:
        """Restart the actors that have batches of the job ``ticket``, which made no progress."""
        with self._lock:
            stuck = [seat.member for seat in self._seats if ticket in seat.jobs]
        for member in stuck:
            member.restart()

    def tend(self) -> None:
        """Add or end one actor where the work asks for it."""
        with self._lock:
            if self._closed.is_set():
                return  # Or the closed pool would look too small, and get an actor more.
            loads = [seat.load for seat in self._seats]
            wanted = self._scaler.wanted(
                n_actors=len(loads),
                n_busy=sum(load > 0 for load in loads),
                n_waiting=sum(max(0, load - AHEAD) for load in loads),
            )
            idle = [seat for seat in self._seats[1:] if not seat.load]
            ended = idle[-1] if wanted < len(loads) and idle else None
            if ended is not None:
                self._seats.remove(ended)
        if wanted > len(loads):
            self._add()
        if ended is not None:
            ended.member.close()

    def _add(self) -> None:
        started = _Seat(self._start())
        with self._lock:
            if not self._closed.is_set():
                self._seats.append(started)
                return
        started.member.close()

    def close(self) -> None:
        """End every actor; repeating it changes nothing."""
        self._closed.set()
        with self._lock:
            seats, self._seats = self._seats, []
        for seat in seats:
            seat.member.close()

    def _watch(self) -> None:
        while not self._closed.wait(TEND_S):
            self.tend()

    def _left(self, seat: _Seat, ticket: str, _: Future[EncodedPatches] | None = None) -> None:
        with self._lock:
            seat.jobs.remove(ticket)
