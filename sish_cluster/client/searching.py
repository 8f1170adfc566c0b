"""Calls with a time-out and tries, and the searches made of them.

`AsyncClient` adds the rest: ingest, collections, status.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from sish_cluster.client.asking import Bounds, bounded, case_query, lean, slide_query
from sish_cluster.client.filters import Exclusion, filter_of
from sish_cluster.client.retry import Retry
from sish_cluster.client.settings import ClientSettings
from sish_cluster.core.clock import Deadline
from sish_cluster.core.cluster import DEFAULT_K, DEFAULT_MAX_MATCHES, ClusterCalls
from sish_cluster.core.collection import Collection
from sish_cluster.core.errors import UnknownCollection
from sish_cluster.core.posting import EncodedSlide, PatchColumns
from sish_cluster.core.query import Filter, Mode, Query, Ranking, SearchSettings
from sish_cluster.core.result import PatchesResult, SearchResult

Answer = TypeVar("Answer")


DEFAULT_CANDIDATES = 5
"""Candidates of each query patch when nothing is said: published patch retrieval looks at five."""


class AsyncSearches:
    """Searches over any `ClusterCalls`.

    Parameters
    ----------
    calls
        The cluster.
    settings
        Time-outs, retries, back-pressure.
    """

    def __init__(self, calls: ClusterCalls, settings: ClientSettings | None) -> None:
        self.settings = settings or ClientSettings()
        self._calls = calls
        self._definitions: dict[str, Collection] = {}

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
        min_cosine: float | None = None,
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
        min_cosine
            Bound of a DIRECT search; None for the query's, or RetCCL's 0.7.
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
        bounds = Bounds(mode, max_distance, min_cosine)
        query = await self._query_of(collection, what, where=where, exclude=exclude, bounds=bounds)
        query = dataclasses.replace(query, label_field=label_field or query.label_field)
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

    async def search_case(
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
        """Return the slides that look like several slides of one case, asked as one query.

        The parts' patches are one query, numbered through; `case_sources` tells which patch of which
        part a match's ``query_number`` is. Leave the case's own slides, patients or institutions out
        with `Exclusion.of_case`. Parameters as in `search`.

        Raises
        ------
        BadRequest
            If there is no part.
        FingerprintMismatch
            If parts were encoded otherwise than the collection.
        """
        return await self.search(
            collection,
            case_query(await self.definition_of(collection), parts),
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

    async def search_patches(
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
        """Return the patches that look like each patch of ``what``.

        Parameters
        ----------
        collection
            Where to look.
        what
            Patches with the fingerprint of their encoder, an encoded slide, or a whole query whose
            settings are kept where nothing is given here.
        fingerprint
            Of plain patches: what encoded them.
        max_candidates
            Most candidates per query patch, nearest first; 0 for all; None for the query's, or
            five.
        where, exclude, mode, max_distance, min_cosine, allow_partial, timeout_s
            As in `search`.

        Raises
        ------
        SishError
            Any of the tree; `Unavailable` only after the retries.
        """
        if isinstance(what, PatchColumns):
            definition = await self.definition_of(collection)
            settings = SearchSettings(
                max_distance=definition.max_distance, max_candidates=DEFAULT_CANDIDATES
            )
            what = Query(what, fingerprint, settings)
        elif isinstance(what, EncodedSlide) and max_candidates is None:
            max_candidates = DEFAULT_CANDIDATES
        bounds = Bounds(mode, max_distance, min_cosine, max_candidates)
        query = await self._query_of(collection, what, where=where, exclude=exclude, bounds=bounds)
        return await self._read(
            lambda deadline: self._calls.search_patches(
                collection, query, allow_partial=allow_partial, deadline=deadline
            ),
            timeout_s,
        )

    async def encoded_slide(
        self, collection: str, slide_id: str, *, timeout_s: float | None = None
    ) -> EncodedSlide:
        """Return a committed slide as it was ingested.

        Raises
        ------
        UnknownSlide
            If the collection has none of that id.
        """
        return await self._read(
            lambda deadline: self._calls.encoded_slide(collection, slide_id, deadline=deadline),
            timeout_s,
        )

    async def _query_of(
        self,
        collection: str,
        what: EncodedSlide | Query,
        *,
        where: Filter | Sequence[str],
        exclude: Exclusion | None,
        bounds: Bounds,
    ) -> Query:
        """Return what is sent: with what was given in place of what it had, and no column too many."""
        if isinstance(what, EncodedSlide):
            what = slide_query(await self.definition_of(collection), what)
        query = bounded(what, bounds)
        kept = filter_of(where or query.where, exclude or Exclusion())
        query = dataclasses.replace(query, where=kept)
        if query.patches.dimensions:
            query = lean(await self.definition_of(collection), query)
        return query

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

    async def list_collections(self, *, timeout_s: float | None = None) -> Sequence[Collection]:
        """Return the collections in name order."""
        return await self._read(
            lambda deadline: self._calls.list_collections(deadline=deadline), timeout_s
        )

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
