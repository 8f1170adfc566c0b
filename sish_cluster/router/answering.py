"""From merged candidates to what a user gets: labels, ranking, evidence."""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from sish_cluster.core.collection import Collection
from sish_cluster.core.embedding import COSINE_UNITS
from sish_cluster.core.errors import BadRequest
from sish_cluster.core.query import Mode, Query, Ranking
from sish_cluster.core.result import SearchResult
from sish_cluster.router.evidence import slide_results
from sish_cluster.router.merge import Merged
from sish_cluster.router.ranking import RankingSettings, ranker_of

MAX_K = 10_000
"""Most slides, and most patch pairs per slide, of one answer: beyond any reader."""


@dataclasses.dataclass(frozen=True, slots=True)
class Wanted:
    """What kind of answer is wanted.

    Parameters
    ----------
    ranking
        How candidates become slides.
    k
        Most slides, 1 or more.
    max_matches
        Most patch pairs per slide.
    """

    ranking: Ranking
    k: int
    max_matches: int

    def __post_init__(self) -> None:
        if not 1 <= self.k <= MAX_K:
            raise BadRequest(f"k must be 1..{MAX_K}; found {self.k}", field="k")
        if not 0 <= self.max_matches <= MAX_K:
            raise BadRequest(
                f"max_matches must be 0..{MAX_K}; found {self.max_matches}", field="max_matches"
            )


def search_result(
    merged: Merged,
    query: Query,
    definition: Collection,
    *,
    wanted: Wanted,
    mode_reason: str,
    missing_shards: Sequence[str],
    settings: RankingSettings,
    began_s: float,
) -> SearchResult:
    """Return the ranked slides with their evidence.

    Parameters
    ----------
    merged
        The candidates.
    query
        What was asked.
    definition
        The collection, for the unit of distances.
    wanted
        Ranking and bounds of the answer.
    mode_reason, missing_shards
        As found.
    settings
        Constants of ranking.
    began_s
        ``time.perf_counter()`` when the search began.
    """
    labels = [slide.label(query.label_field) for slide in merged.slides]
    patches = merged.patches
    ranked = ranker_of(wanted.ranking, settings).ranked(
        patches,
        labels,
        label_counts=_label_counts(merged, labels, wanted.ranking),
        k=wanted.k,
        units=_units(merged.mode, definition),
    )
    settled = dataclasses.replace(query.settings, mode=merged.mode)
    return SearchResult(
        results=slide_results(merged, ranked, query.patches, max_matches=wanted.max_matches),
        mode=merged.mode,
        ranking=wanted.ranking,
        predicted_label=ranked.predicted_label,
        votes=ranked.votes,
        examined=int(merged.examined_counts.sum()),
        eligible=merged.eligible,
        n_query_patches=len(query.patches),
        missing_shards=tuple(missing_shards),
        reason=ranked.reason if merged.eligible else "no posting is eligible: widen the filter",
        elapsed_ms=(time.perf_counter() - began_s) * 1e3,
        mode_reason=mode_reason,
        distance_bound=min(float(settled.distance_bound), ranked.distance_bound),
    )


def _units(mode: Mode, definition: Collection) -> float:
    """Return the distance of similarity 0: of cosines, or half of the bits of a code."""
    return float(COSINE_UNITS) if mode is Mode.DIRECT else definition.code_bits / 2


def _label_counts(merged: Merged, labels: Sequence[str], ranking: Ranking) -> Mapping[str, int]:
    """Return n_L: of the collection; for the published ranking, of the slides found, as published."""
    if ranking is not Ranking.SISH:
        return merged.label_counts
    found = [patch.slides for patch in merged.patches if len(patch)]
    slides = np.unique(np.concatenate(found)) if found else np.zeros(0, np.int64)
    return Counter(labels[slide] for slide in slides.tolist())
