"""The default ranking: certain query patches count more, and every query patch counts.

The published ranking orders slides by the one query patch that saw them first, by (uncertainty,
distance). Three things go wrong with that. A patch with a single far candidate is perfectly "certain",
so its stranger precedes a slide that matches fifty patches at distance 0 where labels are mixed. A
slide is lost when its first patch is removed. And what the other patches say is thrown away.

Here uncertainty and the published cleaning decide how much a query patch says, and a slide is ordered
by all that is said for it::

    score(s) = sum over kept query patches i of  certainty_i / rank_i(s)

``certainty_i = 2 ** -uncertainty_i`` (one over the effective number of labels), ``rank_i(s)`` is one
more than the slides strictly nearer in patch i, the same 1/rank discount that the published weights
give candidates. Slides seen only by patches set aside follow, ordered by the same sum over those: none
is lost.

What holds. A slide that is itself in the index has distance 0 and so rank 1 in *every* query patch
(EXACT and GUIDED always look at the query key), kept or not: each term is the largest it can be, so
no slide scores more, whatever the labels, and an equal score needs distance 0 in every kept patch. Its
deciding pair has distance 0. The other slide of a case, which is near in many patches, beats slides
near in a few. There is always an answer when there is a candidate: a cleaning step that would leave
nothing is skipped, a patch without labelled candidates is as uncertain as the collection's labels
allow, and without any label reciprocal-rank fusion orders the slides.

Differences from the published ranking: weights come from the collection's labels without the query's
patient, not from the results; lengths at the percentiles are kept; among equally certain patches the
nearer one is more certain.

Source
------
SISH, "Slides ranking": weights, weighted entropy, cleaning, vote; the order of slides is this
project's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from sish_cluster.core.seams import PatchCandidates, RankedList, RankedSlide
from sish_cluster.core.slide import UNKNOWN
from sish_cluster.router.ranking.nearest import Floats, Nearest, nearest_of
from sish_cluster.router.ranking.rrf import RrfRanker
from sish_cluster.router.ranking.settings import RankingSettings
from sish_cluster.router.ranking.votes import (
    Ballot,
    PatchVote,
    label_weights,
    normalised,
    tally,
    winner_of,
    within_percentiles,
)
from sish_cluster.router.rows import Ints, Mask

_ROUNDING = 1e-9
"""Hamming bits by which a mean may exceed the mean of means through rounding alone."""


class UncertaintyRanker:
    """Ranks slides by certainty-weighted reciprocal ranks; see the module."""

    def __init__(self, settings: RankingSettings = RankingSettings()) -> None:  # noqa: B008 (frozen)
        self._settings = settings

    def ranked(
        self,
        patches: Sequence[PatchCandidates],
        labels: Sequence[str],
        *,
        label_counts: Mapping[str, int],
        k: int,
    ) -> RankedList:
        """Return at most ``k`` slides by score.

        Parameters
        ----------
        patches
            Candidates of each query patch, nearest first.
        labels
            Label of each slide of the table; ``""`` when unknown: such a slide is ranked but has no
            say in the vote.
        label_counts
            Label -> slides of the collection, without the query's patient.
        k
            Most slides.
        """
        found = [patch for patch in patches if len(patch)]
        if not found or not any(_has_label(patch, labels) for patch in found):
            fallback = RrfRanker(self._settings)
            return fallback.ranked(found, labels, label_counts=label_counts, k=k)
        votes = self._votes(found, labels, label_counts)
        kept, sums, winner = _kept(votes, self._settings)
        return RankedList(
            _ordered(nearest_of(found, len(labels)), votes, kept, len(labels), k=k),
            normalised(sums),
            winner,
            {vote.query_number: vote.uncertainty for vote in votes},
        )

    def _votes(
        self,
        found: Sequence[PatchCandidates],
        labels: Sequence[str],
        label_counts: Mapping[str, int],
    ) -> list[PatchVote]:
        known = {label: n for label, n in label_counts.items() if label != UNKNOWN}
        weights = label_weights(known, (label for label in labels if label), self._settings)
        ballot = Ballot(labels, weights, nearest=self._settings.nearest, silent=(UNKNOWN,))
        # A patch whose candidates have no label says nothing about it: all labels are as likely.
        silent_uncertainty = math.log2(max(len(weights), 2))
        return [_answered(ballot.vote_of(patch), silent_uncertainty) for patch in found]


def _has_label(patch: PatchCandidates, labels: Sequence[str]) -> bool:
    return any(labels[slide] for slide in np.unique(patch.slides).tolist())


def _answered(vote: PatchVote, silent_uncertainty: float) -> PatchVote:
    if vote.shares:
        return vote
    return PatchVote(vote.query_number, vote.shares, silent_uncertainty, vote.nearness, vote.length)


def _kept(
    votes: Sequence[PatchVote], settings: RankingSettings
) -> tuple[set[int], dict[str, float], str]:
    """Return the query patches that are not set aside, the sums of the vote and its winner."""
    usual = within_percentiles(votes, settings, is_strict=False) or list(votes)
    tau = sum(vote.nearness for vote in usual) / len(usual) + _ROUNDING
    near = [vote for vote in usual if vote.nearness <= tau]
    by_certainty = sorted(near, key=lambda vote: (vote.uncertainty, vote.nearness))
    voters = [vote for vote in by_certainty if vote.shares][: settings.voters]
    sums = tally(voters)
    winner = winner_of(sums, voters)
    dissenting = {vote.query_number for vote in voters if vote.own_label != winner}
    return {vote.query_number for vote in near} - dissenting, sums, winner


def _ordered(
    table: Nearest, votes: Sequence[PatchVote], kept: set[int], n_slides: int, *, k: int
) -> list[RankedSlide]:
    """Return the first ``k`` slides."""
    uncertainties = np.zeros(max(vote.query_number for vote in votes) + 1)
    for vote in votes:
        uncertainties[vote.query_number] = vote.uncertainty
    said = np.exp2(-uncertainties[table.patches]) / table.ranks
    is_kept = np.isin(table.patches, list(kept))
    kept_scores = table.summed(np.where(is_kept, said, 0.0), n_slides)
    other_scores = table.summed(np.where(is_kept, 0.0, said), n_slides)
    leading = _deciding_rows(table, said, is_kept)
    slides, distances = table.slides[leading], table.distances[leading]
    order = np.lexsort((slides, distances, -other_scores[slides], -kept_scores[slides]))[:k]
    return [
        RankedSlide(
            int(slides[row]),
            int(table.patches[leading[row]]),
            float(uncertainties[table.patches[leading[row]]]),
            int(distances[row]),
            float(kept_scores[slides[row]] or other_scores[slides[row]]),
        )
        for row in order
    ]


def _deciding_rows(table: Nearest, said: Floats, is_kept: Mask) -> Ints:
    """Return each slide's row that says most for it, kept query patches before others."""
    return table.leading_rows(~is_kept, -said, table.distances, table.patches)
