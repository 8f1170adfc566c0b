"""Reciprocal-rank fusion: slides by how near the top they are in each query patch's list.

``score(s) = sum over query patches i of 1 / (60 + rank_i(s))``, rank_i being one more than the number
of slides strictly nearer in patch i; a slide without a candidate there adds nothing. It needs no
labels and no scale of distances. A slide that is itself in the index has rank 1 in every query patch,
the largest score there is.

Source
------
Cormack, Clarke and Büttcher, "Reciprocal rank fusion outperforms Condorcet and individual rank
learning methods", SIGIR 2009.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from sish_cluster.core.seams import PatchCandidates, RankedList, RankedSlide
from sish_cluster.router.ranking.nearest import nearest_of
from sish_cluster.router.ranking.settings import RankingSettings
from sish_cluster.router.ranking.votes import NOTHING_NEAR, normalised


class RrfRanker:
    """Ranks slides by reciprocal-rank fusion; see the module."""

    def __init__(self, settings: RankingSettings = RankingSettings()) -> None:  # noqa: B008 (frozen)
        self._settings = settings

    def ranked(
        self,
        patches: Sequence[PatchCandidates],
        labels: Sequence[str],
        *,
        label_counts: Mapping[str, int],
        k: int,
        units: float,
    ) -> RankedList:
        """Return at most ``k`` slides by score; equal scores by nearest pair, then by slide id.

        The vote is the share of the listed slides' scores by label; ``label_counts`` and
        ``units`` are not used.
        """
        table = nearest_of([patch for patch in patches if len(patch)], len(labels))
        if not len(table.slides):
            reason = NOTHING_NEAR
            return RankedList((), {}, "", {}, reason)
        said = 1.0 / (self._settings.rrf_constant + table.ranks.astype(np.float64))
        scores = table.summed(said, len(labels))
        leading = table.leading_rows(table.distances, table.ranks, table.patches)
        slides, distances = table.slides[leading], table.distances[leading]
        order = np.lexsort((slides, distances, -scores[slides]))[:k]
        listed = [
            RankedSlide(
                int(slides[row]),
                int(table.patches[leading[row]]),
                0.0,
                int(distances[row]),
                float(scores[slides[row]]),
            )
            for row in order
        ]
        votes = _votes(listed, labels)
        return RankedList(listed, votes, next(iter(votes), ""), {})


def _votes(listed: Sequence[RankedSlide], labels: Sequence[str]) -> dict[str, float]:
    sums: dict[str, float] = {}
    for slide in listed:
        sums[labels[slide.slide]] = sums.get(labels[slide.slide], 0.0) + slide.score
    return normalised(dict(sorted(sums.items(), key=lambda item: -item[1])))
