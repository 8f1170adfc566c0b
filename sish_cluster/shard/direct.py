"""A shard in this process behind the same calls as one across the network.

The work runs in a bounded pool of threads, so that the event loop never waits for a search; a change
waits for its durable commit without a thread.
"""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from sish_cluster.core.candidate import ShardAnswer
from sish_cluster.core.clock import Cancellation, Deadline
from sish_cluster.core.collection import Collection, CollectionState
from sish_cluster.core.errors import DeadlineExceeded, Unavailable
from sish_cluster.core.posting import EncodedSlide
from sish_cluster.core.query import Query
from sish_cluster.core.seams import (
    ForgetOutcome,
    IngestOutcome,
    PendingSlide,
    ShardStatus,
    SlideState,
    StoredSlide,
)
from sish_cluster.shard.shard import Shard

T = TypeVar("T")

Submit = Callable[[float], "Future[T]"]
"""Queues a change, waiting at most the given seconds for room."""


class DirectShard:
    """`core.seams.ShardCalls` over a shard in the process.

    Parameters
    ----------
    shard
        The open shard; `close` closes it.
    """

    def __init__(self, shard: Shard) -> None:
        self.shard = shard
        settings = shard.settings
        self._pool = ThreadPoolExecutor(settings.search_threads, f"search-{settings.name}")
        self._waiting = threading.BoundedSemaphore(settings.search_threads + settings.search_queue)

    async def search(
        self, collection: str, query: Query, *, wants_examined: bool, deadline: Deadline
    ) -> ShardAnswer:
        """Return the candidates of a slide query; cancelling stops the work between two blocks."""
        return await self.read(
            lambda cancellation: self.shard.search(
                collection, query, wants_examined=wants_examined, cancellation=cancellation
            ),
            deadline,
        )

    async def encoded_slide(
        self, collection: str, slide_id: str, *, deadline: Deadline
    ) -> EncodedSlide | None:
        """Return this shard's share of a committed slide as it was ingested; None when it has none."""
        return await self.read(lambda _: self.shard.encoded_slide(collection, slide_id), deadline)

    async def ingest(
        self,
        collection: str,
        slide: EncodedSlide,
        *,
        state: SlideState,
        is_home: bool,
        home: str,
        deadline: Deadline,
    ) -> IngestOutcome:
        """Store a slide (or a share of it) durably."""
        begin = functools.partial(
            self.shard.begin_ingest, collection, slide, state=state, is_home=is_home, home=home
        )
        return await self.change(lambda timeout_s: begin(timeout_s=timeout_s), deadline)

    async def commit_slide(
        self, collection: str, slide_id: str, version: str, *, deadline: Deadline
    ) -> None:
        """Make a pending slide eligible."""
        begin = functools.partial(self.shard.begin_commit, collection, slide_id, version)
        await self.change(lambda timeout_s: begin(timeout_s=timeout_s), deadline)

    async def forget(
        self, collection: str, slide_id: str, *, pending_version: str = "", deadline: Deadline
    ) -> ForgetOutcome:
        """Remove a slide, or only a pending version of it."""
        begin = functools.partial(
            self.shard.begin_forget, collection, slide_id, pending_version=pending_version
        )
        return await self.change(lambda timeout_s: begin(timeout_s=timeout_s), deadline)

    async def list_pending(self, collection: str, *, deadline: Deadline) -> Sequence[PendingSlide]:
        """Return the pending slides in slide id order."""
        return await self.read(lambda _: self.shard.list_pending(collection), deadline)

    async def list_slides(
        self, collection: str, *, slide_id: str = "", deadline: Deadline
    ) -> AsyncIterator[StoredSlide]:
        """Yield the committed slides at home, in slide id order."""
        slides: Iterator[StoredSlide] = iter(
            await self.read(
                lambda _: list(self.shard.list_slides(collection, slide_id=slide_id)), deadline
            )
        )
        for slide in slides:
            yield slide

    async def create_collection(self, collection: Collection, *, deadline: Deadline) -> bool:
        """Create a collection; return whether this call did."""
        return await self.change(
            lambda timeout_s: self.shard.begin_create(collection, timeout_s=timeout_s), deadline
        )

    async def list_collections(self, *, deadline: Deadline) -> Sequence[Collection]:
        """Return the collections in name order."""
        return await self.read(lambda _: self.shard.list_collections(), deadline)

    async def describe_collection(self, name: str, *, deadline: Deadline) -> CollectionState:
        """Return what the shard holds of a collection."""
        return await self.read(lambda _: self.shard.describe_collection(name), deadline)

    async def status(self, *, deadline: Deadline) -> ShardStatus:
        """Return how the shard is."""
        return await self.read(lambda _: self.shard.status(), deadline)

    async def close(self) -> None:
        """Finish queued changes and close the shard."""
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._pool.shutdown(cancel_futures=True)
        self.shard.close()

    async def read(self, work: Callable[[Cancellation], T], deadline: Deadline) -> T:
        """Run ``work`` in the pool; when the caller goes away its cancellation fires.

        Raises
        ------
        Unavailable
            If too many reads are waiting already.
        """
        if not self._waiting.acquire(blocking=False):
            raise Unavailable(
                f"shard {self.shard.settings.name!r} has {self.shard.settings.search_queue} reads"
                " waiting: try again, or ask another replica",
                retry_after_s=0.2,
            )
        gone = threading.Event()
        cancellation = Cancellation(deadline, gone.is_set)
        begun = self._pool.submit(_checked, work, cancellation)
        begun.add_done_callback(lambda _: self._waiting.release())
        try:
            return await asyncio.wrap_future(begun)
        finally:
            gone.set()

    async def change(self, submit: Submit[T], deadline: Deadline) -> T:
        """Queue a change and wait for its commit.

        Raises
        ------
        DeadlineExceeded
            If the deadline passes first. The change may still become durable: repeat it.
        """
        future = await self.queued(submit, deadline)
        try:
            waiting = asyncio.wrap_future(future)
            return await asyncio.wait_for(waiting, max(0.0, deadline.remaining_s()))
        except TimeoutError as error:
            raise DeadlineExceeded(
                "the deadline passed before the change was known to be durable: repeat it with the"
                " same slide and version, which is safe"
            ) from error

    async def queued(self, submit: Submit[T], deadline: Deadline) -> Future[T]:
        """Queue a change: at once where there is room, else waiting for room on a thread."""
        try:
            return submit(0.0)
        except Unavailable:
            return await asyncio.to_thread(submit, max(0.0, deadline.remaining_s()))


def _checked(work: Callable[[Cancellation], T], cancellation: Cancellation) -> T:
    cancellation.check()
    return work(cancellation)
