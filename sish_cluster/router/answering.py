"""From merged candidates to what a user gets: labels, ranking, evidence."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from sish_cluster.core.query import Query, Ranking
from sish_cluster.core.result import SearchResult
from sish_cluster.router.evidence import slide_results
from sish_cluster.router.merge import Merged
from sish_cluster.router.ranking import RankingSettings, ranker_of

MAX_K = 10_000
"""Most slides, and most patch pairs per slide, of one answer: beyond any reader."""


def search_result(
    merged: Merged,
    query: Query,
    *,
    ranking: Ranking,
    k: int,
    max_matches: int,
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
    ranking, k, max_matches, missing_shards
        As asked, and as found.
    settings
        Constants of ranking.
    began_s
        ``time.perf_counter()`` when the search began.
    """
    labels = [slide.label(query.label_field) for slide in merged.slides]
    ranked = ranker_of(ranking, settings).ranked(
        merged.patches, labels, label_counts=_label_counts(merged, labels, ranking), k=k
    )
    return SearchResult(
        results=slide_results(merged, ranked, query.patches, max_matches=max_matches),
        mode=merged.mode,
        ranking=ranking,
        predicted_label=ranked.predicted_label,
        votes=ranked.votes,
        examined=int(merged.examined_counts.sum()),
        eligible=merged.eligible,
        n_query_patches=len(query.patches),
        missing_shards=tuple(missing_shards),
        reason=ranked.reason if merged.eligible else "no posting is eligible: widen the filter",
        elapsed_ms=(time.perf_counter() - began_s) * 1e3,
    )


def _label_counts(merged: Merged, labels: Sequence[str], ranking: Ranking) -> Mapping[str, int]:
    """Return n_L: of the collection; for the published ranking, of the slides found, as published."""
    if ranking is not Ranking.SISH:
        return merged.label_counts
    found = [patch.slides for patch in merged.patches if len(patch)]
    slides = np.unique(np.concatenate(found)) if found else np.zeros(0, np.int64)
    return Counter(labels[slide] for slide in slides.tolist())
