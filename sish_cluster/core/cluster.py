"""The whole cluster as a user sees it: its calls, and how each of its shards is.

`ClusterCalls` is the seam below the client: a router in the process and a router over the wire are its
two implementations.
"""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from sish_cluster.core.clock import Deadline
from sish_cluster.core.collection import Collection, CollectionState
from sish_cluster.core.posting import EncodedSlide
from sish_cluster.core.query import Query, Ranking
from sish_cluster.core.result import PatchesResult, SearchResult
from sish_cluster.core.seams import ForgetOutcome, IngestOutcome, StoredSlide
from sish_cluster.core.topology import KeyRange, Selector

DEFAULT_K = 5
"""Slides of an answer when nothing is said: the published slide search returns five."""

DEFAULT_MAX_MATCHES = 8
"""Patch pairs kept as evidence per slide: what fits one screen of a report."""


@dataclasses.dataclass(frozen=True, slots=True)
class ShardHealth:
    """How one shard of the topology is, as the router sees it.

    Parameters
    ----------
    name, address
        As in the topology; the address is ``""`` for a shard in the process.
    selector, range
        What it owns.
    is_serving
        Whether it answered.
    problem
        What went wrong when it did not.
    collections
        What it holds.
    store_used_bytes, resident_bytes
        Bytes of its store, and of its process's resident memory.
    """

    name: str
    address: str
    selector: Selector
    range: KeyRange
    is_serving: bool
    problem: str = ""
    collections: Sequence[CollectionState] = ()
    store_used_bytes: int = 0
    resident_bytes: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class ClusterStatus:
    """How the cluster is: software version, topology epoch, seconds serving, every shard."""

    version: str
    epoch: int
    uptime_s: float
    shards: Sequence[ShardHealth]


class ClusterCalls(Protocol):
    """What a client asks of a cluster; every call carries a deadline and may raise any `SishError`."""

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
        """Return the slides that look like the query."""

    async def search_patches(
        self, collection: str, query: Query, *, allow_partial: bool, deadline: Deadline
    ) -> PatchesResult:
        """Return each query patch's candidates, at most ``settings.max_candidates`` (0: all) of each."""

    async def encoded_slide(
        self, collection: str, slide_id: str, *, deadline: Deadline
    ) -> EncodedSlide:
        """Return a committed slide as it was ingested, or raise `UnknownSlide`."""

    async def ingest(
        self, collection: str, slide: EncodedSlide, *, deadline: Deadline
    ) -> IngestOutcome:
        """Store a slide durably on every shard concerned; the same version twice is one ingest."""

    async def forget(self, collection: str, slide_id: str, *, deadline: Deadline) -> ForgetOutcome:
        """Remove a slide from every shard."""

    def list_slides(
        self, collection: str, *, slide_id: str = "", deadline: Deadline
    ) -> AsyncIterator[StoredSlide]:
        """Yield the committed slides."""

    async def create_collection(self, collection: Collection, *, deadline: Deadline) -> bool:
        """Create a collection on every shard; return whether this call did."""

    async def list_collections(self, *, deadline: Deadline) -> Sequence[Collection]:
        """Return the collections in name order."""

    async def describe_collection(self, name: str, *, deadline: Deadline) -> CollectionState:
        """Return what the cluster holds of a collection."""

    async def status(self, *, deadline: Deadline) -> ClusterStatus:
        """Return how the cluster is."""

    async def close(self) -> None:
        """Release connections, and stores where this process holds them."""
