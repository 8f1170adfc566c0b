"""The published ranking, step by step, quirks included.

It exists so that results can be compared with the paper and its own code. Its quirks are kept on
purpose: lengths at a percentile are dropped, a slide is lost when the patch that saw it first is
removed, labels of the results set their own weights. One is not: where the published code would stop
with an error, this gives an empty list and says why.

Source
------
SISH, "Slides ranking" (weighted entropy, cleaning, filtering by prediction), as published.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from sish_cluster.core.seams import PatchCandidates, RankedList, RankedSlide
from sish_cluster.router.ranking.settings import RankingSettings
from sish_cluster.router.ranking.votes import (
    NOTHING_NEAR,
    Ballot,
    PatchVote,
    label_weights,
    normalised,
    tally,
    winner_of,
    within_percentiles,
)


class PublishedRanker:
    """Ranks slides as published; see `ranked`."""

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
        """Return at most ``k`` slides in published order.

        Parameters
        ----------
        patches
            Candidates of each query patch, nearest first.
        labels
            Label of each slide of the table; an unknown label is a label like any other.
        label_counts
            n_L: counted, as published, over the query's results by the caller.
        k
            Most slides.
        units
            Not used: distances count relative to the query patches' own.
        """
        settings = self._settings
        weights = label_weights(label_counts, labels, settings)
        ballot = Ballot(labels, weights, nearest=settings.nearest)
        found = {patch.query_number: patch for patch in patches if len(patch)}
        votes = [ballot.vote_of(patch) for patch in found.values()]
        uncertainties = {vote.query_number: vote.uncertainty for vote in votes}
        if not votes:
            return _empty(uncertainties, NOTHING_NEAR)
        kept, tau = _cleaned(votes, settings)
        if not kept:
            reason = "the published cleaning by length and distance removed every query patch"
            return _empty(uncertainties, reason)
        voters = kept[: settings.voters]
        sums = tally(voters)
        winner = winner_of(sums, voters)
        removed = {vote.query_number for vote in voters if vote.own_label != winner}
        slides = _first_seen(kept, found, tau)
        remaining = [slide for slide in slides if slide.query_number not in removed]
        return RankedList(
            remaining[:k],
            normalised(sums),
            winner,
            uncertainties,
            "" if remaining else "the published filter by prediction removed every slide",
            tau,
        )


def _empty(uncertainties: Mapping[int, float], reason: str) -> RankedList:
    return RankedList((), {}, "", uncertainties, reason)


def _cleaned(
    votes: Sequence[PatchVote], settings: RankingSettings
) -> tuple[list[PatchVote], float]:
    """Return the query patches kept, most certain first, and tau."""
    usual = within_percentiles(votes, settings, is_strict=True)
    if not usual:
        return [], 0.0
    tau = sum(vote.nearness for vote in usual) / len(usual)
    by_certainty = sorted(usual, key=lambda vote: vote.uncertainty)
    return [vote for vote in by_certainty if vote.nearness <= tau], tau


def _first_seen(
    kept: Sequence[PatchVote], found: Mapping[int, PatchCandidates], tau: float
) -> list[RankedSlide]:
    """Return each slide where it is seen first, by (uncertainty, distance)."""
    slides: dict[int, RankedSlide] = {}
    for vote in kept:
        for slide, distance in _nearest_slides(found[vote.query_number], vote, tau):
            if slide not in slides:
                slides[slide] = RankedSlide(slide, vote.query_number, vote.uncertainty, distance)
    return sorted(slides.values(), key=lambda slide: (slide.uncertainty, slide.distance))


def _nearest_slides(
    patch: PatchCandidates, vote: PatchVote, tau: float
) -> Iterator[tuple[int, int]]:
    """Yield (slide, distance) where a patch first shows a slide: all of it when certain, else to tau."""
    near = np.flatnonzero((patch.distances <= tau) | (vote.uncertainty == 0))
    _, firsts = np.unique(patch.slides[near], return_index=True)
    for row in near[np.sort(firsts)].tolist():
        yield int(patch.slides[row]), int(patch.distances[row])
