"""What a query patch's candidates say about the label: shares, uncertainty, and the vote.

A candidate of label L at place j counts ``w_L / (j + 1)``; a query patch's shares p are these counts
over their sum; its uncertainty is their entropy. Labels that are rare in the collection weigh more,
so that a common label does not win by being common.

Source
------
SISH, "Slides ranking": weights and weighted entropy.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import numpy as np

from sish_cluster.core.seams import PatchCandidates
from sish_cluster.router.ranking.settings import RankingSettings
from sish_cluster.router.rows import Floats, Ints

NOTHING_NEAR = "no query patch has a candidate within the bound: widen it (max_distance; min_cosine of a direct search)"
"""Why a ranking is empty when no posting came near any query patch."""


@dataclasses.dataclass(frozen=True, slots=True)
class PatchVote:
    """One query patch's say.

    Parameters
    ----------
    query_number
        Row of the query patch.
    shares
        Label -> p, summing to 1, in order of first appearance; empty when no candidate has a label.
    uncertainty
        Entropy of the shares, bits.
    nearness
        Mean of the leading distances, Hamming bits: small is near.
    length
        How many candidates.
    """

    query_number: int
    shares: Mapping[str, float]
    uncertainty: float
    nearness: float
    length: int

    @property
    def own_label(self) -> str:
        """The label with the largest share, the first to appear among equals; ``""`` without any."""
        return max(self.shares, key=self.shares.__getitem__, default="")


def label_weights(
    label_counts: Mapping[str, int], labels: Iterable[str], settings: RankingSettings
) -> dict[str, float]:
    """Return ``w_L = F / (n_L * sum over labels of 1/n)``.

    Parameters
    ----------
    label_counts
        Label -> how often it occurs, n.
    labels
        Labels that need a weight; one without a count (its only slides are the query's patient's)
        counts as occurring once.
    settings
        F and the exponent of n.

    Examples
    --------
    >>> label_weights({"a": 1, "b": 4}, [], RankingSettings())
    {'a': 8.0, 'b': 2.0}
    """
    damped = {label: max(n, 1) ** settings.weight_exponent for label, n in label_counts.items()}
    inverse = sum(1 / n for n in damped.values()) or 1.0
    rare = {label: 1.0 for label in labels if label not in damped}
    return {label: settings.weight_scale / (n * inverse) for label, n in (damped | rare).items()}


def said_by_place(weights: Floats, patch: PatchCandidates) -> Floats:
    """Return ``weight / (place + 1)`` of each candidate, float64 (n,)."""
    return np.asarray(weights / np.arange(1, len(patch) + 1))


class Ballot:
    """Turns candidates into shares of labels.

    Parameters
    ----------
    labels
        Label of each slide of the table.
    weights
        Weight of each label that may count.
    nearest
        Leading distances averaged into `PatchVote.nearness`.
    silent
        Labels that are no label: their candidates keep their place but do not count.
    said
        What each candidate of a query patch counts, of its label's weight; by default the published
        ``weight / (place + 1)``.
    """

    def __init__(
        self,
        labels: Sequence[str],
        weights: Mapping[str, float],
        *,
        nearest: int,
        silent: Collection[str] = (),
        said: Callable[[Floats, PatchCandidates], Floats] = said_by_place,
    ) -> None:
        self._names = list(dict.fromkeys(labels))
        number_of = {name: number for number, name in enumerate(self._names)}
        self._numbers = np.array([number_of[label] for label in labels], dtype=np.int64)
        self._weights = np.array(
            [0.0 if name in silent else weights[name] for name in self._names], dtype=np.float64
        )
        self._nearest = nearest
        self._said = said

    def vote_of(self, patch: PatchCandidates) -> PatchVote:
        """Return a query patch's say; it must have candidates."""
        numbers = self._numbers[patch.slides]
        shares = self._shares(numbers, self._said(self._weights[numbers], patch))
        leading = patch.distances[: self._nearest].tolist()
        return PatchVote(
            patch.query_number,
            shares,
            entropy_of(shares.values()),
            sum(leading) / len(leading),
            len(patch),
        )

    def _shares(self, numbers: Ints, said: Floats) -> dict[str, float]:
        """Return p by label in order of first appearance."""
        sums = np.bincount(numbers, said, minlength=len(self._names))
        counts = {
            self._names[number]: float(sums[number])
            for number in _in_order_of_appearance(numbers, len(self._names))
            if sums[number] > 0
        }
        total = sum(counts.values())
        return {label: count / total for label, count in counts.items()}


def _in_order_of_appearance(numbers: Ints, n_labels: int) -> list[int]:
    first = np.full(n_labels, len(numbers))
    # Written from the last to the first, so that the first place stays.
    first[numbers[::-1]] = np.arange(len(numbers))[::-1]
    present = np.flatnonzero(first < len(numbers))
    return [int(number) for number in present[np.argsort(first[present])]]


def entropy_of(shares: Iterable[float]) -> float:
    """Return the entropy of shares that sum to 1, bits.

    Examples
    --------
    >>> entropy_of([0.5, 0.5]), entropy_of([1.0])
    (1.0, 0.0)
    """
    # Not the negated sum: that would make -0.0 of a certain patch.
    return sum(share * -math.log2(share) for share in shares) + 0.0


def tally(votes: Iterable[PatchVote]) -> dict[str, float]:
    """Return label -> sum of shares, the largest first, equals in order of appearance."""
    sums: dict[str, float] = {}
    for vote in votes:
        for label, share in vote.shares.items():
            sums[label] = sums.get(label, 0.0) + share
    return dict(sorted(sums.items(), key=lambda item: -item[1]))


def winner_of(sums: Mapping[str, float], voters: Sequence[PatchVote]) -> str:
    """Return the leading label that is some voter's own; ``""`` without voters.

    A label may lead the sums as everybody's second choice; then all voters would disagree with the
    vote, and the next label counts (published).
    """
    own_labels = {vote.own_label for vote in voters}
    return next((label for label in sums if label in own_labels), "")


def normalised(sums: Mapping[str, float]) -> dict[str, float]:
    """Return the sums as shares of their total, unknown labels (``""``) left out."""
    known = {label: value for label, value in sums.items() if label}
    total = sum(known.values())
    return {label: value / total for label, value in known.items()} if total > 0 else {}


def within_percentiles(
    votes: Sequence[PatchVote], settings: RankingSettings, *, is_strict: bool
) -> list[PatchVote]:
    """Return the query patches whose number of candidates is not unusual.

    With at most ``lengths_needed`` distinct lengths all are usual. ``is_strict`` drops those at a
    percentile too, as published.
    """
    lengths = [vote.length for vote in votes]
    if len(set(lengths)) <= settings.lengths_needed:
        return list(votes)
    low, high = np.percentile(lengths, [settings.low_percentile, settings.high_percentile])
    if is_strict:
        return [vote for vote in votes if low < vote.length < high]
    return [vote for vote in votes if low <= vote.length <= high]
