"""The one writer: gathers changes into durable commits, then shows them, then acknowledges them.

A sync costs about a millisecond whatever it carries, so changes that arrive within 2 ms of each other
(at most 64) share one. A batch never holds two changes of one slide: a change decides by a ledger that
the others of its batch cannot have moved. When the store is full the batch is split, so that what
frees room, or still fits, goes through.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import queue
import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from typing import Any

from sish_cluster.core.errors import Internal, SishError, StoreFull, Unavailable
from sish_cluster.shard.changes import Change
from sish_cluster.shard.checkpointer import Checkpointer
from sish_cluster.shard.compactor import Compactor
from sish_cluster.shard.held import HeldCollection
from sish_cluster.shard.settings import ShardSettings
from sish_cluster.shard.store import Batch, Store

_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(slots=True, eq=False)
class _Job:
    change: Change
    future: Future[Any]
    refusal: SishError | None = None


class Writer:
    """Runs changes on a thread of its own.

    Parameters
    ----------
    store
        Where batches go; nobody else writes to it.
    settings
        Sizes of batches and of the queue.
    checkpointer
        Told of every collection that changed.
    """

    def __init__(self, store: Store, settings: ShardSettings, checkpointer: Checkpointer) -> None:
        self._store = store
        self._settings = settings
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._room = threading.BoundedSemaphore(settings.queue_slides)
        self._next: _Job | None = None
        self._compactor = Compactor(settings.name)
        self._checkpointer = checkpointer
        self.fault: SishError | None = None
        self._closing = threading.Lock()
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name=f"writer-{settings.name}")
        self._thread.start()

    def tend(self, held: HeldCollection) -> None:
        """Have a collection compacted and its checkpoint written where that is due.

        For the writer's thread, or for whoever opened the collection before its first change.
        """
        self._compactor.note(held)
        self._checkpointer.note(held)

    def submit(self, change: Change, *, timeout_s: float) -> Future[Any]:
        """Queue a change; the future ends after its commit is durable and visible.

        Cancelling the future before its batch begins takes the change out.

        Raises
        ------
        Unavailable
            If the queue stayed full for ``timeout_s``, or the shard is closing.
        """
        if self.fault is not None:
            raise self.fault
        if not self._room.acquire(timeout=max(0.0, timeout_s)):
            raise Unavailable(
                f"{self._settings.queue_slides} changes are waiting for shard"
                f" {self._settings.name!r} already: slow down and send this one again",
                retry_after_s=0.1,
            )
        job = _Job(change, Future())
        with self._closing:
            if not self._is_closed:
                self._jobs.put(job)
                return job.future
        self._room.release()
        raise Unavailable(f"shard {self._settings.name!r} is closing: try again in a moment")

    def close(self) -> None:
        """Finish what is queued and end the thread."""
        with self._closing:
            if not self._is_closed:
                self._is_closed = True
                self._jobs.put(None)
        self._thread.join()
        self._compactor.close()

    def _run(self) -> None:
        while True:
            group, is_last = self._gathered()
            running = [job for job in group if job.future.set_running_or_notify_cancel()]
            try:
                if self.fault is not None:
                    raise self.fault
                self._commit(running)
            except Exception as error:
                self._break(running, error)
            if is_last:
                return

    def _gathered(self) -> tuple[list[_Job], bool]:
        """Return the next batch's jobs, and whether the writer shall end after it."""
        group: list[_Job] = []
        targets: set[tuple[str, str]] = set()
        closing_s = float("inf")
        job = self._next or self._taken(None)
        self._next = None
        while job is not None:
            if job.change.target in targets:
                self._next = job
                return group, False
            targets.add(job.change.target)
            group.append(job)
            if len(group) >= self._settings.group_slides:
                return group, False
            closing_s = min(closing_s, time.monotonic() + self._settings.group_wait_s)
            try:
                job = self._taken(closing_s - time.monotonic())
            except queue.Empty:
                return group, False
        return group, True

    def _taken(self, timeout_s: float | None) -> _Job | None:
        try:
            job = self._jobs.get_nowait()
        except queue.Empty:
            if timeout_s is not None and timeout_s <= 0:
                raise
            job = self._jobs.get(timeout=timeout_s)
        if job is not None:
            self._room.release()
        return job

    def _commit(self, group: Sequence[_Job]) -> None:
        """Make a group durable and visible; a full store is tried again one change at a time."""
        if not group:
            return
        may_overdraw = all(job.change.may_overdraw for job in group)
        try:
            self._store.write(lambda batch: _fill(batch, group), may_overdraw=may_overdraw)
        except StoreFull as error:
            if len(group) == 1:
                group[0].future.set_exception(error)
                return
            for job in group:
                self._commit([job])
            return
        except SishError as error:
            for job in group:
                job.future.set_exception(error)
            return
        self._show(group)

    def _show(self, group: Sequence[_Job]) -> None:
        done = [job for job in group if job.refusal is None]
        touched = {job.change.held for job in done if job.change.held is not None}
        with contextlib.ExitStack() as changing:
            for held in touched:
                changing.enter_context(held.changing)
            outcomes = [job.change.apply() for job in done]
            for held in touched:
                held.publish()
        for job, outcome in zip(done, outcomes, strict=True):
            job.future.set_result(outcome)
        for job in group:
            if job.refusal is not None:
                job.future.set_exception(job.refusal)
        for held in touched:
            self.tend(held)

    def _break(self, group: Iterable[_Job], error: Exception) -> None:
        """Stop serving: memory may no longer agree with what is durable."""
        if self.fault is None:
            _LOG.critical("the writer of shard %r failed", self._settings.name, exc_info=error)
            self.fault = Internal(
                f"the writer of shard {self._settings.name!r} failed ({type(error).__name__}:"
                f" {error}); nothing acknowledged is lost: restart the shard, and report the log"
            )
        for job in group:
            if not job.future.done():
                job.future.set_exception(self.fault)


def _fill(batch: Batch, group: Sequence[_Job]) -> None:
    for job in group:
        job.refusal = None
        try:
            job.change.write(batch)
        except StoreFull:
            raise
        except SishError as error:
            job.refusal = error
