"""A search, from the question to the answer: check, ask the shards, merge, rank or hand over rows."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Mapping

from sish_cluster.core.clock import SYSTEM_CLOCK, Clock, Deadline
from sish_cluster.core.collection import Collection
from sish_cluster.core.errors import BadRequest, UnknownCollection
from sish_cluster.core.query import Query
from sish_cluster.core.result import PatchesResult, SearchResult
from sish_cluster.core.seams import ShardCalls
from sish_cluster.router.answering import Wanted, search_result
from sish_cluster.router.catalogue import Catalogue, check_query
from sish_cluster.router.choosing import Choice
from sish_cluster.router.fan_out import Asked, FanOut
from sish_cluster.router.merge import Merged, merged_answer
from sish_cluster.router.patch_results import patches_result
from sish_cluster.router.settings import RouterSettings


@dataclasses.dataclass(frozen=True, slots=True)
class _Found:
    definition: Collection
    merged: Merged
    choice: Choice
    missing_shards: tuple[str, ...]
    began_s: float


class Searcher:
    """Answers searches over all shards.

    Parameters
    ----------
    shards
        By name.
    catalogue
        Definitions of collections.
    settings
        Times, bounds, ranking.
    clock
        For the memory of scan speeds.
    """

    def __init__(
        self,
        shards: Mapping[str, ShardCalls],
        catalogue: Catalogue,
        settings: RouterSettings,
        *,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._catalogue = catalogue
        self._settings = settings
        self._fan_out = FanOut(shards, settings, clock=clock)

    async def slides(
        self,
        collection: str,
        query: Query,
        wanted: Wanted,
        *,
        allow_partial: bool,
        deadline: Deadline,
    ) -> SearchResult:
        """Return the slides that look like the query; see `Router.search`."""
        found = await self._found(collection, query, allow_partial, deadline)
        return await asyncio.to_thread(
            search_result,
            found.merged,
            query,
            found.definition,
            wanted=wanted,
            mode_reason=found.choice.told,
            missing_shards=found.missing_shards,
            settings=self._settings.ranking,
            began_s=found.began_s,
        )

    async def patches(
        self, collection: str, query: Query, *, allow_partial: bool, deadline: Deadline
    ) -> PatchesResult:
        """Return each query patch's candidates; see `Router.search_patches`."""
        found = await self._found(collection, query, allow_partial, deadline)
        return await asyncio.to_thread(
            patches_result,
            found.merged,
            mode_reason=found.choice.told,
            missing_shards=found.missing_shards,
            began_s=found.began_s,
        )

    async def _found(
        self, collection: str, query: Query, allow_partial: bool, deadline: Deadline
    ) -> _Found:
        began_s = time.perf_counter()
        if not len(query.patches):
            raise BadRequest("a query has at least one patch; found none", field="query.patches")
        definition = await self._catalogue.collection(collection, deadline=deadline)
        check_query(definition, query)
        try:
            told, choice = await self._fan_out.answers(
                Asked(definition, query, allow_partial, deadline)
            )
        except UnknownCollection:
            self._catalogue.drop(collection)
            raise
        # Tens of milliseconds of arrays: beside the event loop, which keeps serving.
        merged = await asyncio.to_thread(merged_answer, list(told.answers.values()), query)
        return _Found(definition, merged, choice, tuple(told.missing), began_s)
