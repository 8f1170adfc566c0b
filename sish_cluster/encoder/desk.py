"""Lends the encoder's actors to the calls of many clients, first come, first served.

A call that gives up (deadline, client gone) does not free its actor at once: the actor stops before its
next patch, and only then is lent again. One that does not stop is restarted.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Generic, TypeVar

from sish_cluster.core.errors import EncoderBusy
from sish_cluster.encoder.pool import Actor

Answer = TypeVar("Answer")


class Desk:
    """The actors, and who waits for one; belongs to one event loop.

    Parameters
    ----------
    actors
        Started actors.
    max_waiting
        Calls that may wait; more are refused.
    retry_after_s
        What a refused caller is told to wait.
    stall_timeout_s
        Seconds a given-up job may go on before its actor is restarted.
    """

    def __init__(
        self,
        actors: Sequence[Actor],
        *,
        max_waiting: int,
        retry_after_s: float,
        stall_timeout_s: float,
    ) -> None:
        self.n_actors = len(actors)
        self._idle = collections.deque(actors)
        self._waiters: collections.deque[asyncio.Future[Actor]] = collections.deque()
        self._max_waiting = max_waiting
        self._retry_after_s = retry_after_s
        self._stall_timeout_s = stall_timeout_s

    @property
    def n_waiting(self) -> int:
        """Calls that wait for an actor."""
        return len(self._waiters)

    async def taken(self) -> Actor:
        """Return a free actor, waiting for one; give it back with `given_back` or `lent`.

        Raises
        ------
        EncoderBusy
            If too many wait already.
        """
        if self._idle:
            return self._idle.popleft()
        if len(self._waiters) >= self._max_waiting:
            raise EncoderBusy(
                f"all {self.n_actors} encoder actors are busy and {len(self._waiters)} calls wait, the"
                f" most that may: try again in {self._retry_after_s:g} s, or add actors",
                retry_after_s=self._retry_after_s,
            )
        waiter: asyncio.Future[Actor] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self.given_back(waiter.result())
            raise
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)

    def given_back(self, actor: Actor) -> None:
        """Lend a free actor to whoever waits longest."""
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(actor)
                return
        self._idle.append(actor)

    def lent(self, actor: Actor, job: Future[Answer]) -> Loan[Answer]:
        """Return the loan of an actor for a job that has begun; it ends with the job."""
        return Loan(self, actor, job)

    @property
    def stall_timeout_s(self) -> float:
        """Seconds a job that nobody wants may go on."""
        return self._stall_timeout_s


class Loan(Generic[Answer]):
    """One actor's one job; the actor is lent again when the job ends."""

    def __init__(self, desk: Desk, actor: Actor, job: Future[Answer]) -> None:
        self._desk = desk
        self._actor = actor
        self._job = job
        self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        job.add_done_callback(self._settled)

    @property
    def has_ended(self) -> bool:
        """Whether the answer is there."""
        return self._ended.is_set()

    async def awaited(self, timeout_s: float | None = None) -> bool:
        """Wait for the job, at most ``timeout_s``; return whether it ended."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._ended.wait(), timeout_s)
        return self.has_ended

    def answer(self) -> Answer:
        """Return the job's answer, or raise its error."""
        return self._job.result(timeout=0)

    def abandon(self, ticket: str) -> None:
        """Say that nobody wants the answer: the job ``ticket`` stops soon, or its actor is restarted."""
        if not self.has_ended:
            self._actor.cancel(ticket)
            self._loop.call_later(self._desk.stall_timeout_s, self._restart)

    def _settled(self, _: Future[Answer]) -> None:
        # The loop may be gone when the last job ends during shutdown.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._end)

    def _restart(self) -> None:
        if not self.has_ended:
            self._actor.restart()
            self._end()

    def _end(self) -> None:
        if not self.has_ended:
            self._ended.set()
            self._desk.given_back(self._actor)
