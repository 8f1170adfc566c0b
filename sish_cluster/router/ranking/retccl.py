"""RetCCL's ranking: the most certain of the near query patches each return one slide.

A query patch's candidates are weighed by their similarity ``s = 1 - distance / units`` (the cosine, after
a DIRECT search) and by how rare their label is::

    p_L proportional to  sum over its candidates of label L of  w_L (s + 1) / 2
    entropy = - sum over L of  p_L ln p_L
    eta = mean similarity of its five nearest candidates

Query patches whose eta is at least the mean eta are kept, in ascending order of entropy. Each votes the
majority label among its five nearest candidates, and that label's nearest candidate gives the slide it
returns. A slide is listed where it is returned first; the label most query patches voted is the
prediction.

It works after any mode: after a search by codes, s is the cosine of the bits as signs.

Differences from, and completions of, the published text:

1. Weights count the collection's labels without the query's patient, as the default ranking's do.
2. Descending order is an option (`RankingSettings.retccl_certain_first`): the texts can be read both ways.
3. Candidates of unknown label count for eta but have no say on labels. A query patch that has only such
   candidates is as uncertain as the labels allow, votes for nothing and returns its nearest slide: so
   there is an answer whenever there is a candidate, without any label too.
4. A query patch with fewer than five candidates uses those it has.
5. Ties: of labels with as many votes in a patch, the one whose candidate is nearest; of query patches with
   equal entropy (to nine decimals), the larger eta, then the lower row; of labels with as many patches, the
   one voted by the patch that ranks first.
6. Etas are compared as fractions, so that equal ones are all kept however a mean would be rounded.

Source
------
RetCCL, "Search": weights, entropy, eta, majority of the top five.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction

import numpy as np

from sish_cluster.core.seams import PatchCandidates, RankedList, RankedSlide
from sish_cluster.core.slide import UNKNOWN
from sish_cluster.router.ranking.settings import RankingSettings
from sish_cluster.router.ranking.votes import (
    NOTHING_NEAR,
    Ballot,
    PatchVote,
    label_weights,
    normalised,
)
from sish_cluster.router.rows import Floats

_DECIMALS = 9
"""Decimals to which entropies are compared: beyond what adding floats in another order changes."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Returned:
    """A query patch's say: its label and the candidate it returns."""

    vote: PatchVote
    farness: Fraction
    label: str
    slide: int
    distance: int


class RetcclRanker:
    """Ranks slides by RetCCL's entropies; see the module."""

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
        """Return at most ``k`` slides, one for each query patch kept, in the order of entropy.

        Parameters
        ----------
        patches
            Candidates of each query patch, nearest first.
        labels
            Label of each slide of the table; ``""`` when unknown.
        label_counts
            Label -> slides of the collection, without the query's patient.
        k
            Most slides.
        units
            Distance of similarity 0.

        Returns
        -------
        RankedList
            Uncertainties are in bits as everywhere; a slide's score is its query patch's entropy in
            nats, what slides are ordered by.
        """
        found = [patch for patch in patches if len(patch)]
        if not found:
            return RankedList((), {}, "", {}, NOTHING_NEAR)
        said = self._said(found, labels, label_counts, units)
        kept = self._in_order(said)
        votes = _votes(kept)
        return RankedList(
            _first_seen(kept)[:k],
            votes,
            next(iter(votes), ""),
            {one.vote.query_number: one.vote.uncertainty for one in said},
        )

    def _said(
        self,
        found: Sequence[PatchCandidates],
        labels: Sequence[str],
        label_counts: Mapping[str, int],
        units: float,
    ) -> list[_Returned]:
        known = {label: n for label, n in label_counts.items() if label != UNKNOWN}
        weights = label_weights(known, (label for label in labels if label), self._settings)
        ballot = Ballot(
            labels,
            weights,
            nearest=self._settings.nearest,
            silent=(UNKNOWN,),
            said=lambda weights, patch: weights * _likeness(patch, units),
        )
        silent_uncertainty = math.log2(max(len(weights), 2))
        said = []
        for patch in found:
            vote = ballot.vote_of(patch)
            if not vote.shares:
                vote = dataclasses.replace(vote, uncertainty=silent_uncertainty)
            said.append(self._returned(vote, patch, labels))
        return said

    def _returned(
        self, vote: PatchVote, patch: PatchCandidates, labels: Sequence[str]
    ) -> _Returned:
        slides = patch.slides[: self._settings.nearest].tolist()
        distances = patch.distances[: self._settings.nearest].tolist()
        label = _majority(labels[slide] for slide in slides)
        row = next((row for row, slide in enumerate(slides) if labels[slide] == label), 0)
        farness = Fraction(sum(distances), len(distances))
        return _Returned(vote, farness, label, slides[row], distances[row])

    def _in_order(self, said: Sequence[_Returned]) -> list[_Returned]:
        """Return the query patches that are near enough, by entropy."""
        mean = sum((one.farness for one in said), Fraction(0)) / len(said)
        sign = 1 if self._settings.retccl_certain_first else -1
        return sorted(
            (one for one in said if one.farness <= mean),
            key=lambda one: (
                sign * round(_nats(one.vote.uncertainty), _DECIMALS),
                one.farness,
                one.vote.query_number,
            ),
        )


def _likeness(patch: PatchCandidates, units: float) -> Floats:
    """Return ``(s + 1) / 2`` of each candidate: 1 for equal patches, 0 for opposite ones."""
    similarity = 1.0 - patch.distances.astype(np.float64) / units
    return np.asarray(np.maximum(similarity + 1.0, 0.0) / 2.0)


def _majority(labels: Iterable[str]) -> str:
    """Return the most frequent known label, the first to appear among equals; ``""`` without any."""
    counts = Counter(label for label in labels if label != UNKNOWN)
    return max(counts, key=counts.__getitem__, default=UNKNOWN)


def _nats(bits: float) -> float:
    return bits * math.log(2.0)


def _first_seen(kept: Sequence[_Returned]) -> list[RankedSlide]:
    """Return each slide where it is returned first."""
    slides: dict[int, RankedSlide] = {}
    for one in kept:
        uncertainty = one.vote.uncertainty
        row = RankedSlide(
            one.slide, one.vote.query_number, uncertainty, one.distance, _nats(uncertainty)
        )
        slides.setdefault(one.slide, row)
    return list(slides.values())


def _votes(kept: Sequence[_Returned]) -> dict[str, float]:
    """Return label -> share of the query patches' votes, the largest first."""
    counts = Counter(one.label for one in kept)
    return normalised({label: float(n) for label, n in counts.most_common()})
