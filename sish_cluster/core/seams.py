"""The seams: small protocols with more than one implementation each.

The published methods differ only here: `Embedder`, `MosaicSelector`, `Ranker`, and the shard's index
(reached through `ShardCalls`, whose implementations are a gRPC client and a shard in the process).
"""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from sish_cluster.core.candidate import ShardAnswer
from sish_cluster.core.clock import Deadline
from sish_cluster.core.collection import Collection, CollectionState
from sish_cluster.core.posting import EncodedSlide
from sish_cluster.core.query import Query
from sish_cluster.core.slide import Slide
from sish_cluster.core.topology import KeyRange, Selector

Pixels = npt.NDArray[np.uint8]
"""RGB pixels, shape (n, side, side, 3), 0..255."""


class Embedder(Protocol):
    """Turns patches into embeddings."""

    @property
    def dimensions(self) -> int:
        """Length of one embedding."""

    def embeddings_of(self, patches: Pixels) -> npt.NDArray[np.float32]:
        """Return the embeddings (n, dimensions) of patches; a patch's row never depends on its batch."""


class MosaicSelector(Protocol):
    """Chooses the patches that stand for a slide."""

    def chosen(
        self, thumbnails: Pixels, corners: npt.NDArray[np.integer], *, rng_seed: int
    ) -> npt.NDArray[np.int64]:
        """Return the ascending rows chosen, of ``n >= 1`` patches with small thumbnails and corners."""


class SlideState(enum.IntEnum):
    """Whether a slide's postings may be found."""

    PENDING = 1
    COMMITTED = 2


@dataclasses.dataclass(frozen=True, slots=True)
class IngestOutcome:
    """A slide is durable on a shard (or on all it belongs to)."""

    slide_id: str
    version: str
    was_stored: bool
    """Whether this version was stored already."""


@dataclasses.dataclass(frozen=True, slots=True)
class ForgetOutcome:
    """What forgetting a slide removed."""

    postings: int
    was_stored: bool


@dataclasses.dataclass(frozen=True, slots=True)
class PendingSlide:
    """A slide whose ingest was begun and not committed."""

    slide_id: str
    version: str
    home: str
    age_s: float


@dataclasses.dataclass(frozen=True, slots=True)
class StoredSlide:
    """A committed slide at home on a shard, and how many of its postings are there."""

    slide: Slide
    version: str
    postings: int


@dataclasses.dataclass(frozen=True, slots=True)
class ShardStatus:
    """How a shard is."""

    version: str
    uptime_s: float
    selector: Selector
    range: KeyRange
    collections: Sequence[CollectionState]
    store_used_bytes: int
    store_map_bytes: int
    resident_bytes: int


class ShardCalls(Protocol):
    """What the router asks of one shard; every call carries a deadline and may raise any `SishError`."""

    async def search(
        self, collection: str, query: Query, *, wants_examined: bool, deadline: Deadline
    ) -> ShardAnswer:
        """Return the candidates of a slide query."""

    async def encoded_slide(
        self, collection: str, slide_id: str, *, deadline: Deadline
    ) -> EncodedSlide | None:
        """Return this shard's share of a committed slide as it was ingested; None when it has none."""

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

    async def commit_slide(
        self, collection: str, slide_id: str, version: str, *, deadline: Deadline
    ) -> None:
        """Make a pending slide eligible, dropping its older version; idempotent."""

    async def forget(
        self, collection: str, slide_id: str, *, pending_version: str = "", deadline: Deadline
    ) -> ForgetOutcome:
        """Remove a slide, or only a pending version of it."""

    async def list_pending(self, collection: str, *, deadline: Deadline) -> Sequence[PendingSlide]:
        """Return the pending slides in slide id order."""

    def list_slides(
        self, collection: str, *, slide_id: str = "", deadline: Deadline
    ) -> AsyncIterator[StoredSlide]:
        """Yield the committed slides at home, in slide id order."""

    async def create_collection(self, collection: Collection, *, deadline: Deadline) -> bool:
        """Create a collection; return whether this call did."""

    async def list_collections(self, *, deadline: Deadline) -> Sequence[Collection]:
        """Return the collections in name order."""

    async def describe_collection(self, name: str, *, deadline: Deadline) -> CollectionState:
        """Return what the shard holds of a collection."""

    async def status(self, *, deadline: Deadline) -> ShardStatus:
        """Return how the shard is."""

    async def close(self) -> None:
        """Release the connection."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class PatchCandidates:
    """One query patch's candidates after the merge, in the mode's order: what a ranker reads.

    Parameters
    ----------
    query_number
        Row of the query patch.
    slides
        int64 (n,): index into the slide table.
    distances
        int64 (n,): Hamming bits; cosine units of 1/32768 after a DIRECT search.
    numbers
        int64 (n,): patch numbers in those slides.
    corners
        int32 (n, 2): level-0 pixels.
    """

    query_number: int
    slides: npt.NDArray[np.int64]
    distances: npt.NDArray[np.int64]
    numbers: npt.NDArray[np.int64]
    corners: npt.NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.slides)


@dataclasses.dataclass(frozen=True, slots=True)
class RankedSlide:
    """One slide as a ranker orders it.

    Parameters
    ----------
    slide
        Index into the slide table.
    query_number
        Row of the query patch that ranked it.
    uncertainty
        Bits; 0 where the ranker has none.
    distance
        Hamming bits.
    score
        What slides were ordered by where that is one number, else 0.
    """

    slide: int
    query_number: int
    uncertainty: float
    distance: int
    score: float = 0.0


@dataclasses.dataclass(frozen=True, slots=True)
class RankedList:
    """A ranker's answer: slides in order, the vote, each query patch's uncertainty."""

    slides: Sequence[RankedSlide]
    votes: Mapping[str, float]
    predicted_label: str
    uncertainties: Mapping[int, float]
    reason: str = ""
    """Why there is no slide, when there is none."""
    distance_bound: float = math.inf
    """tau: the distance beyond which candidates did not rank; infinite where the ranker has no bound."""


class Ranker(Protocol):
    """Turns candidates into ranked slides."""

    def ranked(
        self,
        patches: Sequence[PatchCandidates],
        labels: Sequence[str],
        *,
        label_counts: Mapping[str, int],
        k: int,
        units: float,
    ) -> RankedList:
        """Return at most ``k`` slides; ``labels[s]`` is slide s's label, ``""`` when unknown.

        ``units`` is the distance of similarity 0: 32768 for cosines; half of the bits for codes, whose
        similarity 1 - 2 d / bits is the cosine of the bits as signs.
        """
