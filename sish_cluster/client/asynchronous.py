"""The asyncio client: typed calls, each with a time-out, over any `ClusterCalls`.

The same class serves a router elsewhere (`AsyncClient("host:port")`) and an embedded cluster
(`AsyncClient.over(calls)`): only the seam below differs.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import Self, TypeVar

from sish_cluster.client.filters import Exclusion, filter_of
from sish_cluster.client.outcome import SlideOutcome
from sish_cluster.client.retry import UNLIMITED, Retry
from sish_cluster.client.router_calls import RouterCalls
from sish_cluster.client.settings import ClientSettings
from sish_cluster.core.clock import Deadline
from sish_cluster.core.cluster import (
    DEFAULT_K,
    DEFAULT_MAX_MATCHES,
    ClusterCalls,
    ClusterStatus,
)
from sish_cluster.core.collection import Collection, CollectionState
from sish_cluster.core.errors import SishError, UnknownCollection, UnknownSlide
from sish_cluster.core.posting import EncodedSlide
from sish_cluster.core.query import Filter, Mode, Query, Ranking, SearchSettings
from sish_cluster.core.result import SearchResult
from sish_cluster.core.seams import ForgetOutcome, IngestOutcome, StoredSlide

Answer = TypeVar("Answer")


class AsyncClient:
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
        self._begin(RouterCalls(address), settings)

    @classmethod
    def over(cls, calls: ClusterCalls, *, settings: ClientSettings | None = None) -> AsyncClient:
        """Return a client over a cluster that is not behind an address."""
        client = cls.__new__(cls)
        client._begin(calls, settings)
        return client

    def _begin(self, calls: ClusterCalls, settings: ClientSettings | None) -> None:
        self.settings = settings or ClientSettings()
        self._calls = calls
        self._definitions: dict[str, Collection] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Release connections."""
        await self._calls.close()

    async def search(
        self,
        collection: str,
        what: EncodedSlide | Query,
        *,
        k: int = DEFAULT_K,
        where: Filter | Sequence[str] = (),
        exclude: Exclusion | None = None,
        mode: Mode | None = None,
        ranking: Ranking = Ranking.UNCERTAINTY,
        max_distance: int | None = None,
        label_field: str | None = None,
        max_matches: int = DEFAULT_MAX_MATCHES,
        allow_partial: bool = False,
        timeout_s: float | None = None,
    ) -> SearchResult:
        """Return the slides that look like ``what``.

        Parameters
        ----------
        collection
            Where to look.
        what
            An encoded slide, or a whole query whose settings are kept where nothing is given here.
        k
            Most slides.
        where, exclude
            Which slides are eligible, as a `Filter` or conditions like ``site=lung``; who is left out.
        mode, ranking
            How candidates are found and ranked.
        max_distance
            Hamming bits; None for the query's, or the collection's own bound.
        label_field
            The label ranking votes on; None for the query's, or the diagnosis.
        max_matches
            Most patch pairs per slide.
        allow_partial
            Whether an answer without unreachable shards is wanted rather than an error.
        timeout_s
            Seconds, retries included; None for the settings'.

        Raises
        ------
        SishError
            Any of the tree; `Unavailable` only after the retries.
        """
        query = what if isinstance(what, Query) else await self._query_of(collection, what)
        query = _adjusted(query, mode=mode, max_distance=max_distance, label_field=label_field)
        where_all = filter_of(where or query.where, exclude or Exclusion())
        query = dataclasses.replace(query, where=where_all)
        return await self._read(
            lambda deadline: self._calls.search(
                collection,
                query,
                ranking=ranking,
                k=k,
                allow_partial=allow_partial,
                max_matches=max_matches,
                deadline=deadline,
            ),
            timeout_s,
        )

    async def _query_of(self, collection: str, encoded: EncodedSlide) -> Query:
        definition = await self.definition_of(collection)
        definition.check_fingerprint(encoded.fingerprint)
        settings = SearchSettings(max_distance=definition.max_distance)
        return Query(encoded.patches, encoded.fingerprint, settings, patient=encoded.slide.patient)

    async def definition_of(self, collection: str) -> Collection:
        """Return a collection's definition, asked for once: it never changes.

        Raises
        ------
        UnknownCollection
            If there is none of that name.
        """
        if collection not in self._definitions:
            found = await self.list_collections()
            self._definitions |= {definition.name: definition for definition in found}
        if collection not in self._definitions:
            names = ", ".join(sorted(self._definitions)) or "none"
            raise UnknownCollection(
                f"there is no collection {collection!r}; there are: {names}. Make it with `sish index` or"
                " `sish collection create`",
                metadata={"collection": collection},
            )
        return self._definitions[collection]

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

    async def list_collections(self, *, timeout_s: float | None = None) -> Sequence[Collection]:
        """Return the collections in name order."""
        return await self._read(
            lambda deadline: self._calls.list_collections(deadline=deadline), timeout_s
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

    async def _read(
        self, call: Callable[[Deadline], Awaitable[Answer]], timeout_s: float | None
    ) -> Answer:
        limit_s = timeout_s or self.settings.timeout_s
        return await self._called(call, limit_s, attempts=self.settings.attempts)

    async def _called(
        self, call: Callable[[Deadline], Awaitable[Answer]], timeout_s: float, *, attempts: int
    ) -> Answer:
        deadline = Deadline.after(timeout_s)
        retry = Retry(self.settings, attempts)
        return await retry.answer_of(lambda: call(deadline), deadline=deadline)


def _adjusted(
    query: Query, *, mode: Mode | None, max_distance: int | None, label_field: str | None
) -> Query:
    """Return the query with what was given in place of what it had."""
    settings = query.settings
    if mode is not None:
        settings = dataclasses.replace(settings, mode=mode)
    if max_distance is not None:
        settings = dataclasses.replace(settings, max_distance=max_distance)
    return dataclasses.replace(
        query, settings=settings, label_field=label_field or query.label_field
    )


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
