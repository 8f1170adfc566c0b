"""What an evaluation asks of a cluster, waited for: the blocking client's calls, and no more.

`sish_cluster.client.Client` fits as it is; so does anything else that answers these five.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from sish_cluster.core.collection import Collection
from sish_cluster.core.posting import EncodedSlide
from sish_cluster.core.query import Query, Ranking
from sish_cluster.core.result import PatchesResult, SearchResult
from sish_cluster.core.seams import StoredSlide


class AskedCluster(Protocol):
    """A cluster that answers one call after the other; every call may raise any `SishError`."""

    def definition_of(self, collection: str) -> Collection:
        """Return a collection's definition."""

    def list_slides(
        self, collection: str, *, timeout_s: float | None = None
    ) -> Sequence[StoredSlide]:
        """Return the committed slides."""

    def encoded_slide(
        self, collection: str, slide_id: str, *, timeout_s: float | None = None
    ) -> EncodedSlide:
        """Return a committed slide as it was ingested."""

    def search(
        self,
        collection: str,
        what: Query,
        *,
        k: int,
        ranking: Ranking,
        max_matches: int,
        timeout_s: float | None = None,
    ) -> SearchResult:
        """Return the slides that look like the query."""

    def search_patches(
        self, collection: str, what: Query, *, timeout_s: float | None = None
    ) -> PatchesResult:
        """Return each query patch's candidates."""
