"""Ranking: many query patches' candidates become slides in order, with a vote.

Lives here: the published ranking with its quirks, the default one, reciprocal-rank fusion, RetCCL's. Each is a
`core.seams.Ranker`: pure, deterministic, with an answer (perhaps an empty one with its reason) for
every input. Never lives here: search, messages, settings of a search.
"""

from __future__ import annotations

from sish_cluster.core.query import Ranking
from sish_cluster.core.seams import Ranker
from sish_cluster.router.ranking.published import PublishedRanker
from sish_cluster.router.ranking.retccl import RetcclRanker
from sish_cluster.router.ranking.rrf import RrfRanker
from sish_cluster.router.ranking.settings import RankingSettings
from sish_cluster.router.ranking.uncertainty import UncertaintyRanker

__all__ = [
    "PublishedRanker",
    "RankingSettings",
    "RetcclRanker",
    "RrfRanker",
    "UncertaintyRanker",
    "ranker_of",
]


def ranker_of(ranking: Ranking, settings: RankingSettings) -> Ranker:
    """Return the ranker of a ranking's name."""
    match ranking:
        case Ranking.SISH:
            return PublishedRanker(settings)
        case Ranking.RETCCL:
            return RetcclRanker(settings)
        case Ranking.RRF:
            return RrfRanker(settings)
        case Ranking.UNCERTAINTY:
            return UncertaintyRanker(settings)
