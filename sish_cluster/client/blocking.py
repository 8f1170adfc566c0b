"""The client for programs without asyncio: `AsyncClient` on a thread of its own.

One daemon thread runs one event loop; every call is handed over and waited for, so that a `Client` may be
shared by threads. Control-C during a call cancels it.
"""

from __future__ import annotations

import collections
import concurrent.futures
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Sequence,
)
from typing import Self, TypeVar

from sish_cluster.client.asynchronous import AsyncClient
from sish_cluster.client.filters import Exclusion
from sish_cluster.client.loop_thread import LoopThread
from sish_cluster.client.outcome import SlideOutcome
from sish_cluster.client.settings import ClientSettings
from sish_cluster.core.cluster import DEFAULT_K, DEFAULT_MAX_MATCHES, ClusterStatus
from sish_cluster.core.collection import Collection, CollectionState
from sish_cluster.core.posting import EncodedSlide, PatchColumns
from sish_cluster.core.query import Filter, Mode, Query, Ranking
from sish_cluster.core.result import PatchesResult, SearchResult
from sish_cluster.core.seams import ForgetOutcome, IngestOutcome, StoredSlide

Answer = TypeVar("Answer")


class Client:
    """A cluster, for programs without asyncio; every method is `AsyncClient`'s, waited for.

    Parameters
    ----------
    address
        The router's ``host:port``.
    settings
        Time-outs, retries, back-pressure.

    Examples
    --------
    ::

        with Client("127.0.0.1:7500") as client:
            for result in client.search("demo", encoded_slide, k=5).results:
                print(result.rank, result.slide.slide_id, result.distance)
    """

    def __init__(self, address: str, *, settings: ClientSettings | None = None) -> None:
        self._begin(lambda: _connected(address, settings))

    @classmethod
    def over(cls, opened: Callable[[], Awaitable[AsyncClient]]) -> Client:
        """Return a client whose `AsyncClient` is opened on the client's own loop."""
        client = cls.__new__(cls)
        client._begin(opened)
        return client

    def _begin(self, opened: Callable[[], Awaitable[AsyncClient]]) -> None:
        self._thread = LoopThread()
        self._is_closed = False
        try:
            self._client = self._thread.result_of(_awaited(opened))
        except BaseException:
            self._thread.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Release connections and the thread; closing twice is closing once."""
        if self._is_closed:
            return
        self._is_closed = True
        try:
            self._thread.result_of(self._client.close())
        finally:
            self._thread.close()

    @property
    def settings(self) -> ClientSettings:
        """Time-outs, retries, back-pressure."""
        return self._client.settings

    def search(
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
        min_cosine: float | None = None,
        label_field: str | None = None,
        max_matches: int = DEFAULT_MAX_MATCHES,
        allow_partial: bool = False,
        timeout_s: float | None = None,
    ) -> SearchResult:
        """Return the slides that look like ``what``; see `AsyncClient.search`."""
        return self._thread.result_of(
            self._client.search(
                collection,
                what,
                k=k,
                where=where,
                exclude=exclude,
                mode=mode,
                ranking=ranking,
                max_distance=max_distance,
                min_cosine=min_cosine,
                label_field=label_field,
                max_matches=max_matches,
                allow_partial=allow_partial,
                timeout_s=timeout_s,
            )
        )

    def search_case(
        self,
        collection: str,
        parts: Sequence[EncodedSlide],
        *,
        k: int = DEFAULT_K,
        where: Filter | Sequence[str] = (),
        exclude: Exclusion | None = None,
        mode: Mode | None = None,
        ranking: Ranking = Ranking.UNCERTAINTY,
        max_distance: int | None = None,
        min_cosine: float | None = None,
        label_field: str | None = None,
        max_matches: int = DEFAULT_MAX_MATCHES,
        allow_partial: bool = False,
        timeout_s: float | None = None,
    ) -> SearchResult:
        """Return the slides that look like a case of several; see `AsyncClient.search_case`."""
        return self._thread.result_of(
            self._client.search_case(
                collection,
                parts,
                k=k,
                where=where,
                exclude=exclude,
                mode=mode,
                ranking=ranking,
                max_distance=max_distance,
                min_cosine=min_cosine,
                label_field=label_field,
                max_matches=max_matches,
                allow_partial=allow_partial,
                timeout_s=timeout_s,
            )
        )

    def search_patches(
        self,
        collection: str,
        what: EncodedSlide | Query | PatchColumns,
        *,
        fingerprint: str = "",
        max_candidates: int | None = None,
        where: Filter | Sequence[str] = (),
        exclude: Exclusion | None = None,
        mode: Mode | None = None,
        max_distance: int | None = None,
        min_cosine: float | None = None,
        allow_partial: bool = False,
        timeout_s: float | None = None,
    ) -> PatchesResult:
        """Return the patches that look like each of ``what``; see `AsyncClient.search_patches`."""
        return self._thread.result_of(
            self._client.search_patches(
                collection,
                what,
                fingerprint=fingerprint,
                max_candidates=max_candidates,
                where=where,
                exclude=exclude,
                mode=mode,
                max_distance=max_distance,
                min_cosine=min_cosine,
                allow_partial=allow_partial,
                timeout_s=timeout_s,
            )
        )

    def encoded_slide(
        self, collection: str, slide_id: str, *, timeout_s: float | None = None
    ) -> EncodedSlide:
        """Return a committed slide as it was ingested; see `AsyncClient.encoded_slide`."""
        return self._thread.result_of(
            self._client.encoded_slide(collection, slide_id, timeout_s=timeout_s)
        )

    def ingest_slide(
        self, collection: str, slide: EncodedSlide, *, timeout_s: float | None = None
    ) -> IngestOutcome:
        """Store one slide durably; see `AsyncClient.ingest_slide`."""
        return self._thread.result_of(
            self._client.ingest_slide(collection, slide, timeout_s=timeout_s)
        )

    def ingest(
        self,
        collection: str,
        slides: Iterable[EncodedSlide],
        *,
        timeout_s: float | None = None,
    ) -> Iterator[SlideOutcome]:
        """Yield each slide's outcome, in the order of the slides; see `AsyncClient.ingest`.

        ``slides`` is drawn on the caller's thread as outcomes are drawn: at most
        ``settings.window`` slides are on their way.
        """
        on_their_way: collections.deque[concurrent.futures.Future[SlideOutcome]]
        on_their_way = collections.deque()
        try:
            for slide in slides:
                call = self._client.outcome_of(collection, slide, timeout_s=timeout_s)
                on_their_way.append(self._thread.submitted(call))
                while len(on_their_way) >= self.settings.window or _is_done(on_their_way):
                    yield on_their_way.popleft().result()
            while on_their_way:
                yield on_their_way.popleft().result()
        finally:
            for future in on_their_way:
                future.cancel()

    def forget(
        self, collection: str, slide_id: str, *, timeout_s: float | None = None
    ) -> ForgetOutcome:
        """Remove a slide from every shard; see `AsyncClient.forget`."""
        return self._thread.result_of(
            self._client.forget(collection, slide_id, timeout_s=timeout_s)
        )

    def list_slides(
        self, collection: str, *, slide_id: str = "", timeout_s: float | None = None
    ) -> list[StoredSlide]:
        """Return the committed slides."""
        slides = self._client.list_slides(collection, slide_id=slide_id, timeout_s=timeout_s)
        return self._thread.result_of(_listed(slides))

    def definition_of(self, collection: str) -> Collection:
        """Return a collection's definition, asked for once."""
        return self._thread.result_of(self._client.definition_of(collection))

    def create_collection(self, collection: Collection, *, timeout_s: float | None = None) -> bool:
        """Create a collection; return whether this call did."""
        return self._thread.result_of(
            self._client.create_collection(collection, timeout_s=timeout_s)
        )

    def list_collections(self, *, timeout_s: float | None = None) -> Sequence[Collection]:
        """Return the collections in name order."""
        return self._thread.result_of(self._client.list_collections(timeout_s=timeout_s))

    def describe_collection(self, name: str, *, timeout_s: float | None = None) -> CollectionState:
        """Return what the cluster holds of a collection."""
        return self._thread.result_of(self._client.describe_collection(name, timeout_s=timeout_s))

    def status(self, *, timeout_s: float | None = None) -> ClusterStatus:
        """Return how the cluster is."""
        return self._thread.result_of(self._client.status(timeout_s=timeout_s))


def _is_done(on_their_way: collections.deque[concurrent.futures.Future[SlideOutcome]]) -> bool:
    return bool(on_their_way) and on_their_way[0].done()


async def _connected(address: str, settings: ClientSettings | None) -> AsyncClient:
    return AsyncClient(address, settings=settings)


async def _awaited(opened: Callable[[], Awaitable[Answer]]) -> Answer:
    return await opened()


async def _listed(slides: AsyncIterator[Answer]) -> list[Answer]:
    return [slide async for slide in slides]
