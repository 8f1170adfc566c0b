"""What a user gets: ranked slides with their evidence."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from sish_cluster.core.candidate import Candidates
from sish_cluster.core.query import Mode, Ranking
from sish_cluster.core.slide import Slide


@dataclasses.dataclass(frozen=True, slots=True)
class PatchMatch:
    """One pair of patches that look alike: the evidence for a result.

    Parameters
    ----------
    query_number
        Row of the query patch.
    query_corner
        Level-0 pixels (x, y) of the query patch's upper left corner.
    number
        Patch number in the result's slide.
    corner
        Level-0 pixels (x, y) in the result's slide.
    distance
        Hamming bits between the two codes; after a DIRECT search, cosine units (`core.embedding`).
    uncertainty
        Weighted entropy of the query patch's candidates, bits.
    """

    query_number: int
    query_corner: tuple[int, int]
    number: int
    corner: tuple[int, int]
    distance: int
    uncertainty: float


@dataclasses.dataclass(frozen=True, slots=True)
class SlideResult:
    """One ranked slide.

    Parameters
    ----------
    rank
        From 1.
    slide
        Identity and labels.
    distance
        Hamming bits of the pair that ranked it (RRF: its nearest pair).
    uncertainty
        Weighted entropy, bits, of the query patch that ranked it (RRF: 0).
    certainty
        ``2 ** -uncertainty``: one over the effective number of labels among that patch's
        candidates, in (0, 1].
    score
        What slides were ordered by, where that is one number (RRF, RetCCL); else 0.
    matches
        Pairs of patches, nearest first.
    """

    rank: int
    slide: Slide
    distance: int
    uncertainty: float
    certainty: float
    score: float
    matches: Sequence[PatchMatch]


@dataclasses.dataclass(frozen=True, slots=True)
class SearchResult:
    """The answer to one slide query.

    Parameters
    ----------
    results
        Ranked slides, nearest first; may be empty.
    mode, ranking
        What ran (never AUTO).
    predicted_label
        The vote's winner; ``""`` without labels or candidates.
    votes
        Label -> share of the vote, summing to 1; empty without labels.
    examined, eligible
        Postings examined, summed over query patches; eligible postings of the collection.
    n_query_patches
        Patches of the query.
    missing_shards
        Shards that did not answer (only when partial answers are allowed).
    reason
        Why there are no results, when there are none.
    elapsed_ms
        Wall time at the router.
    mode_reason
        Why this mode ran: asked for, or what AUTO went by.
    distance_bound
        Largest distance at which a candidate counted: the search's bound, or the ranking's tau where
        that is smaller; Hamming bits, cosine units after a DIRECT search.
    """

    results: Sequence[SlideResult]
    mode: Mode
    ranking: Ranking
    predicted_label: str
    votes: Mapping[str, float]
    examined: int
    eligible: int
    n_query_patches: int
    missing_shards: Sequence[str] = ()
    reason: str = ""
    elapsed_ms: float = 0.0
    mode_reason: str = ""
    distance_bound: float = 0.0

    @property
    def coverage(self) -> float:
        """Postings examined / eligible postings, averaged over query patches; 1 when none are eligible."""
        total = self.eligible * self.n_query_patches
        return self.examined / total if total else 1.0

    @property
    def has_certainty(self) -> bool:
        """Whether certainties mean anything: labels were voted on, by a ranking that weighs them."""
        return bool(self.votes) and self.ranking is not Ranking.RRF


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class PatchesResult:
    """The answer to one query patch by patch: regions that look alike, before any ranking of slides.

    Parameters
    ----------
    candidates
        Ordered per query patch as the mode says, (distance, slide id, patch number) but for SISH.
    slides
        The slides candidates refer to, in slide id order.
    examined_counts
        int64 (n_query_patches,): postings examined per query patch.
    eligible
        Eligible postings of the collection.
    mode, mode_reason
        What ran (never AUTO), and why.
    missing_shards
        Shards that did not answer (only when partial answers are allowed).
    elapsed_ms
        Wall time at the router.
    """

    candidates: Candidates
    slides: Sequence[Slide]
    examined_counts: npt.NDArray[np.int64]
    eligible: int
    mode: Mode
    mode_reason: str = ""
    missing_shards: Sequence[str] = ()
    elapsed_ms: float = 0.0

    @property
    def coverage(self) -> float:
        """Postings examined / eligible postings, averaged over query patches; 1 when none are eligible."""
        total = self.eligible * len(self.examined_counts)
        return float(self.examined_counts.sum()) / total if total else 1.0
