"""The asyncio client: typed calls, each with a time-out, over any `ClusterCalls`.

The same class serves a router elsewhere (`AsyncClient("host:port")`) and an embedded cluster
(`AsyncClient.over(calls)`): only the seam below differs.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Self, TypeVar

from sish_cluster.client.outcome import SlideOutcome
from sish_cluster.client.retry import UNLIMITED
from sish_cluster.client.router_calls import RouterCalls
from sish_cluster.client.searching import AsyncSearches
from sish_cluster.client.settings import ClientSettings
from sish_cluster.core.clock import Deadline
from sish_cluster.core.cluster import (
    ClusterCalls,
    ClusterStatus,
)
from sish_cluster.core.collection import Collection, CollectionState
from sish_cluster.core.errors import SishError, UnknownSlide
from sish_cluster.core.posting import EncodedSlide
from sish_cluster.core.seams import ForgetOutcome, IngestOutcome, StoredSlide

Answer = TypeVar("Answer")


class AsyncClient(AsyncSearches):
    """A cluster, for asyncio programs.

    Parameters
    ----------
    address
        The router's ``host:port``.
    settings
        Time-outs, retries, back-pressure.

    Examples
    --------
    ::

        async with AsyncClient("127.0.0.1:7500") as client:
            found = await client.search("demo", encoded_slide, k=5)
    """

    def __init__(self, address: str, *, settings: ClientSettings | None = None) -> None:
        super().__init__(RouterCalls(address), settings)

    @classmethod
    def over(cls, calls: ClusterCalls, *, settings: ClientSettings | None = None) -> AsyncClient:
        """Return a client over a cluster that is not behind an address."""
        client = cls.__new__(cls)
        AsyncSearches.__init__(client, calls, settings)
        return client

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Release connections."""
        await self._calls.close()

    async def ingest_slide(
        self, collection: str, slide: EncodedSlide, *, timeout_s: float | None = None
    ) -> IngestOutcome:
        """Store one slide durably; repeated until its time is up while the cluster is unavailable."""
        return await self._called(
            lambda deadline: self._calls.ingest(collection, slide, deadline=deadline),
            timeout_s or self.settings.ingest_timeout_s,
            attempts=UNLIMITED,
        )

    async def ingest(
        self,
        collection: str,
        slides: Iterable[EncodedSlide] | AsyncIterator[EncodedSlide],
        *,
        timeout_s: float | None = None,
    ) -> AsyncIterator[SlideOutcome]:
        """Yield each slide's outcome as it is known; a refused slide never stops the others.

        Parameters
        ----------
        collection
            Where to.
        slides
            Drawn as slides are acknowledged: at most ``settings.window`` are on their way.
        timeout_s
            Seconds per slide.
        """
        on_their_way: set[asyncio.Task[SlideOutcome]] = set()
        try:
            async for slide in _each(slides):
                call = self.outcome_of(collection, slide, timeout_s=timeout_s)
                on_their_way.add(asyncio.ensure_future(call))
                while len(on_their_way) >= self.settings.window:
                    done, on_their_way = await _first(on_their_way)
                    for task in done:
                        yield task.result()
            for finished in asyncio.as_completed(on_their_way):
                yield await finished
        finally:
            for task in on_their_way:
                task.cancel()

    async def outcome_of(
        self, collection: str, slide: EncodedSlide, *, timeout_s: float | None = None
    ) -> SlideOutcome:
        """Store one slide and return its outcome, its error included."""
        try:
            stored = await self.ingest_slide(collection, slide, timeout_s=timeout_s)
        except SishError as error:
            return SlideOutcome(slide.slide.slide_id, slide.version, error=error)
        return SlideOutcome(stored.slide_id, stored.version, was_stored=stored.was_stored)

    async def forget(
        self, collection: str, slide_id: str, *, timeout_s: float | None = None
    ) -> ForgetOutcome:
        """Remove a slide from every shard; repeated like an ingest.

        Raises
        ------
        UnknownSlide
            If no shard had it.
        """
        outcome = await self._called(
            lambda deadline: self._calls.forget(collection, slide_id, deadline=deadline),
            timeout_s or self.settings.ingest_timeout_s,
            attempts=UNLIMITED,
        )
        if not outcome.was_stored:
            raise UnknownSlide(
                f"collection {collection!r} has no slide {slide_id!r}: nothing was removed; list what"
                " it has with `sish collection describe --slides`",
                metadata={"collection": collection, "slide": slide_id},
            )
        return outcome

    async def list_slides(
        self, collection: str, *, slide_id: str = "", timeout_s: float | None = None
    ) -> AsyncIterator[StoredSlide]:
        """Yield the committed slides."""
        deadline = Deadline.after(timeout_s or self.settings.timeout_s)
        slides = self._calls.list_slides(collection, slide_id=slide_id, deadline=deadline)
        async for stored in slides:
            yield stored

    async def create_collection(
        self, collection: Collection, *, timeout_s: float | None = None
    ) -> bool:
        """Create a collection; return whether this call did (False: it is there, and equal)."""
        return await self._read(
            lambda deadline: self._calls.create_collection(collection, deadline=deadline), timeout_s
        )

    async def describe_collection(
        self, name: str, *, timeout_s: float | None = None
    ) -> CollectionState:
        """Return what the cluster holds of a collection."""
        return await self._read(
            lambda deadline: self._calls.describe_collection(name, deadline=deadline), timeout_s
        )

    async def status(self, *, timeout_s: float | None = None) -> ClusterStatus:
        """Return how the cluster is."""
        return await self._read(lambda deadline: self._calls.status(deadline=deadline), timeout_s)


async def _each(
    slides: Iterable[EncodedSlide] | AsyncIterator[EncodedSlide],
) -> AsyncIterator[EncodedSlide]:
    if isinstance(slides, AsyncIterator):
        async for slide in slides:
            yield slide
        return
    for slide in slides:
        yield slide


async def _first(
    tasks: set[asyncio.Task[SlideOutcome]],
) -> tuple[set[asyncio.Task[SlideOutcome]], set[asyncio.Task[SlideOutcome]]]:
    return await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
