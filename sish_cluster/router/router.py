"""The router: what a cluster can be asked, over any implementation of its shards.

The service (`server`) runs it over gRPC shards, the embedded cluster over shards of its own process;
the code is the same, so the answers are.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import AsyncIterator, Mapping, Sequence

from sish_cluster.core.clock import SYSTEM_CLOCK, Clock, Deadline
from sish_cluster.core.cluster import ClusterStatus
from sish_cluster.core.collection import Collection, CollectionState
from sish_cluster.core.errors import BadRequest, BadTopology
from sish_cluster.core.posting import EncodedSlide
from sish_cluster.core.query import Query, Ranking
from sish_cluster.core.result import PatchesResult, SearchResult
from sish_cluster.core.seams import ForgetOutcome, IngestOutcome, ShardCalls, StoredSlide
from sish_cluster.core.topology import Topology
from sish_cluster.router.answering import Wanted
from sish_cluster.router.catalogue import Catalogue, check_patches
from sish_cluster.router.cluster_state import cluster_status, summed_state
from sish_cluster.router.gather import gathered
from sish_cluster.router.ingest import Ingester
from sish_cluster.router.janitor import Janitor
from sish_cluster.router.searching import Searcher
from sish_cluster.router.settings import RouterSettings
from sish_cluster.router.shares import joined_slide
from sish_cluster.router.slide_locks import SlideLocks


class Router:
    """One front for all shards; implements `core.cluster.ClusterCalls`.

    Parameters
    ----------
    topology
        Who owns what.
    shards
        One for each shard of the topology, by name.
    settings
        Times, bounds, ranking.
    clock
        For uptime, and for how long measured speeds count.

    Raises
    ------
    BadTopology
        If shards and topology differ.
    """

    def __init__(
        self,
        topology: Topology,
        shards: Mapping[str, ShardCalls],
        settings: RouterSettings = RouterSettings(),  # noqa: B008 (frozen)
        *,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        names = {spec.name for spec in topology.shards}
        if names != set(shards):
            raise BadTopology(
                f"the topology names shards {sorted(names)}; connected are {sorted(shards)}"
            )
        self.topology = topology
        self.settings = settings
        self._shards = {spec.name: shards[spec.name] for spec in topology.shards}
        self._catalogue = Catalogue(self._shards)
        self._searcher = Searcher(self._shards, self._catalogue, settings, clock=clock)
        self._locks = SlideLocks()
        self._ingester = Ingester(topology, self._shards, self._locks)
        self.janitor = Janitor(topology, self._shards, self._ingester, self._locks, settings)
        self._sweeping: asyncio.Task[None] | None = None
        self._clock = clock
        self._began_s = clock.now_s()

    async def search(
        self,
        collection: str,
        query: Query,
        *,
        ranking: Ranking,
        k: int,
        allow_partial: bool,
        max_matches: int,
        deadline: Deadline,
    ) -> SearchResult:
        """Return the slides that look like the query.

        Parameters
        ----------
        collection
            Collection name.
        query
            What is asked; at least one patch.
        ranking
            How candidates become slides.
        k
            Most slides, 1 or more.
        allow_partial
            Whether to answer without shards that are missing, naming them, rather than fail.
        max_matches
            Most patch pairs per slide.
        deadline
            When the answer must be there.

        Raises
        ------
        BadRequest, UnknownCollection, FingerprintMismatch, ShardUnavailable, DeadlineExceeded
            See the message. Nothing is left running.
        """
        wanted = Wanted(ranking, k, max_matches)
        return await self._searcher.slides(
            collection, query, wanted, allow_partial=allow_partial, deadline=self._inner(deadline)
        )

    async def search_patches(
        self, collection: str, query: Query, *, allow_partial: bool, deadline: Deadline
    ) -> PatchesResult:
        """Return each query patch's candidates, at most ``settings.max_candidates`` (0: all) of each.

        Raises
        ------
        BadRequest, UnknownCollection, FingerprintMismatch, ShardUnavailable, DeadlineExceeded
            See the message. Nothing is left running.
        """
        return await self._searcher.patches(
            collection, query, allow_partial=allow_partial, deadline=self._inner(deadline)
        )

    async def encoded_slide(
        self, collection: str, slide_id: str, *, deadline: Deadline
    ) -> EncodedSlide:
        """Return a committed slide as it was ingested.

        Raises
        ------
        UnknownSlide
            If no shard has it.
        Unavailable
            If it is being replaced or forgotten just now.
        """
        calls = {
            name: shard.encoded_slide(collection, slide_id, deadline=deadline)
            for name, shard in self._shards.items()
        }
        told = await gathered(calls, asking=f"reading slide {slide_id!r}", deadline=deadline)
        return joined_slide(collection, slide_id, told.answers.values())

    async def ingest(
        self, collection: str, slide: EncodedSlide, *, deadline: Deadline
    ) -> IngestOutcome:
        """Store a slide durably on every shard concerned; the same version twice is one ingest."""
        definition = await self._catalogue.collection(collection, deadline=deadline)
        check_patches(definition, slide.patches, slide.fingerprint)
        if not len(slide.patches):
            raise BadRequest(f"slide {slide.slide.slide_id!r} has no patch: nothing to store")
        return await self._ingester.ingest(collection, slide, deadline=deadline)

    async def forget(self, collection: str, slide_id: str, *, deadline: Deadline) -> ForgetOutcome:
        """Remove a slide from every shard, durably.

        Homes come last: while anything of the slide is left, its home still lists it, and repeating
        the call completes it.
        """
        groups = self.topology.groups.values()
        homes = {self.topology.home_of(slide_id, group).name for group in groups}
        outcomes: list[ForgetOutcome] = []
        async with self._locks.held(collection, slide_id):
            for names in (self._shards.keys() - homes, homes):
                calls = {
                    name: self._shards[name].forget(collection, slide_id, deadline=deadline)
                    for name in sorted(names)
                }
                asking = f"forgetting slide {slide_id!r}"
                told = await gathered(calls, asking=asking, deadline=deadline)
                outcomes.extend(told.answers.values())
        return ForgetOutcome(
            sum(outcome.postings for outcome in outcomes),
            any(outcome.was_stored for outcome in outcomes),
        )

    async def list_slides(
        self, collection: str, *, slide_id: str = "", deadline: Deadline
    ) -> AsyncIterator[StoredSlide]:
        """Yield the committed slides of all homes, in slide id order."""
        streams = [
            shard.list_slides(collection, slide_id=slide_id, deadline=deadline)
            for shard in self._shards.values()
        ]
        async for stored in _merged_by_slide_id(streams):
            yield stored

    async def create_collection(self, collection: Collection, *, deadline: Deadline) -> bool:
        """Create a collection on every shard; return whether any created it in this call.

        Repeating it changes nothing, and completes it where a shard was missing.
        """
        calls = {
            name: shard.create_collection(collection, deadline=deadline)
            for name, shard in self._shards.items()
        }
        asking = f"creation of collection {collection.name!r}"
        told = await gathered(calls, asking=asking, deadline=deadline)
        return any(told.answers.values())

    async def list_collections(self, *, deadline: Deadline) -> Sequence[Collection]:
        """Return the collections that any shard holds, in name order.

        Shards that are away are left out: a collection is made on all of them, so any one knows it,
        and a search that allows partial answers must learn its definition.
        """
        calls = {
            name: shard.list_collections(deadline=deadline) for name, shard in self._shards.items()
        }
        told = await gathered(
            calls, asking="list of collections", deadline=deadline, allow_partial=True
        )
        by_name = {held.name: held for answer in told.answers.values() for held in answer}
        return [by_name[name] for name in sorted(by_name)]

    async def describe_collection(self, name: str, *, deadline: Deadline) -> CollectionState:
        """Return what the cluster holds of a collection: the sum over shards."""
        calls = {
            shard_name: shard.describe_collection(name, deadline=deadline)
            for shard_name, shard in self._shards.items()
        }
        told = await gathered(calls, asking=f"description of {name!r}", deadline=deadline)
        return summed_state(told.answers, self.topology)

    async def status(self, *, deadline: Deadline) -> ClusterStatus:
        """Return how every shard is; one that does not answer is part of the answer."""
        uptime_s = self._clock.now_s() - self._began_s
        inner = self._inner(deadline)
        return await cluster_status(self.topology, self._shards, uptime_s=uptime_s, deadline=inner)

    def start_janitor(self) -> None:
        """Let the janitor sweep beside everything else until `close`; needs a running event loop."""
        if self._sweeping is None:
            self._sweeping = asyncio.get_running_loop().create_task(self.janitor.run())

    async def close(self) -> None:
        """End the janitor and release the connections to the shards."""
        if self._sweeping is not None:
            self._sweeping.cancel()
            await asyncio.wait([self._sweeping])
            self._sweeping = None
        for shard in self._shards.values():
            await shard.close()

    def _inner(self, deadline: Deadline) -> Deadline:
        """Return the deadline for shards: what the router needs itself is kept back."""
        return Deadline(deadline.at_s - self.settings.slack_s, deadline.clock)


async def _merged_by_slide_id(
    streams: Sequence[AsyncIterator[StoredSlide]],
) -> AsyncIterator[StoredSlide]:
    """Yield the slides of streams that are each in slide id order, in that order."""
    heads: list[tuple[str, int, StoredSlide]] = []
    for place, stream in enumerate(streams):
        if (first := await anext(stream, None)) is not None:
            heads.append((first.slide.slide_id, place, first))
    heapq.heapify(heads)
    while heads:
        _, place, stored = heads[0]
        yield stored
        following = await anext(streams[place], None)
        if following is None:
            heapq.heappop(heads)
        else:
            heapq.heapreplace(heads, (following.slide.slide_id, place, following))
