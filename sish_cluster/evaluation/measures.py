"""What one ranked list is worth: Acc@k, mMV@k and AP@k of the labels found, nearest first.

Pure functions of ``found`` (the labels of the results in order, ``""`` for a result nobody labelled) and
the ``truth`` (the query's label). Every measure lies in 0..1 except `Precision.FIVE` beyond rank 5. A
query without results is worth 0 in all of them.

Two things were left open by the published texts and are named here: what a list shorter than k counts
for (`ShortList`) and what the sum of an average precision is divided by (`Precision`).

Source
------
SISH, "Evaluation metrics": mMV@k and the rule for short lists. RetCCL: Acc@k.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence

from sish_cluster.core.slide import UNKNOWN

PUBLISHED_DIVISOR = 5
"""Results the published average precision divides by, whatever k is: beyond rank 5 it may exceed 1."""


class ShortList(enum.StrEnum):
    """What a list shorter than k counts for in mMV@k and in the mean precision."""

    PUBLISHED = "published"
    """The plurality of what is there, which must also be at least ceil(k / 2) results."""
    MISSING_WRONG = "missing-wrong"
    """A missing result is a wrong one: together they are one more label that may win."""
    AS_FOUND = "as-found"
    """Only what is there counts: one right result alone is a right majority."""


class Precision(enum.StrEnum):
    """What the sum of precisions in AP@k is divided by."""

    CORRECT = "correct"
    """The correct results among the first k: the default; at most 1."""
    FIVE = "five"
    """Five, as published, whatever k is; above 1 possible when k is above 5."""
    MEAN = "mean"
    """The mean of the precision at *every* rank up to k, correct or not."""


def accuracy_at(k: int, found: Sequence[str], truth: str) -> float:
    """Return Acc@k: 1 if one of the first ``k`` labels is the truth, else 0.

    Examples
    --------
    >>> accuracy_at(1, ["b", "a"], "a"), accuracy_at(3, ["b", "a"], "a")
    (0.0, 1.0)
    """
    _check(k)
    return float(truth in found[:k])


def plurality_of(found: Sequence[str]) -> str:
    """Return the label most of the results have, of equals the one found first; ``""`` for none.

    Examples
    --------
    >>> plurality_of(["b", "a", "a", "b"])
    'b'
    """
    known = [label for label in found if label != UNKNOWN]
    # max keeps the first of equals, and a dict keeps the order in which labels were found.
    return max(dict.fromkeys(known), key=known.count, default=UNKNOWN)


def majority_vote_at(
    k: int, found: Sequence[str], truth: str, *, short_list: ShortList = ShortList.PUBLISHED
) -> float:
    """Return mMV@k: 1 if the plurality of the first ``k`` labels is the truth, else 0.

    Examples
    --------
    Two of two agree, but five were asked for and three had to:

    >>> majority_vote_at(5, ["a", "a"], "a")
    0.0
    >>> majority_vote_at(5, ["a", "a"], "a", short_list=ShortList.AS_FOUND)
    1.0
    """
    _check(k)
    first = found[:k]
    agreeing = sum(label == truth for label in first)
    if not agreeing or plurality_of(first) != truth:
        return 0.0
    missing = k - len(first)
    if short_list is ShortList.PUBLISHED and missing:
        return float(agreeing >= math.ceil(k / 2))
    if short_list is ShortList.MISSING_WRONG:
        return float(agreeing >= missing)
    return 1.0


def average_precision_at(
    k: int,
    found: Sequence[str],
    truth: str,
    *,
    precision: Precision = Precision.CORRECT,
    short_list: ShortList = ShortList.PUBLISHED,
) -> float:
    """Return AP@k in one of the three definitions in use.

    Parameters
    ----------
    k
        Ranks looked at.
    found, truth
        Labels in order; the query's label.
    precision
        What the sum is divided by.
    short_list
        AS_FOUND lets the mean precision end where the list does; else missing ranks are wrong ones.

    Examples
    --------
    >>> [average_precision_at(5, ["a", "b", "a"], "a", precision=p) for p in Precision]
    [0.8333333333333333, 0.3333333333333333, 0.6133333333333333]
    """
    _check(k)
    hits = [label == truth for label in found[:k]]
    if precision is Precision.MEAN:
        ranks = len(hits) if short_list is ShortList.AS_FOUND else k
        precisions = [sum(hits[:rank]) / rank for rank in range(1, ranks + 1)]
        return math.fsum(precisions) / max(ranks, 1)
    at_hits = [sum(hits[: row + 1]) / (row + 1) for row, is_hit in enumerate(hits) if is_hit]
    divisor = PUBLISHED_DIVISOR if precision is Precision.FIVE else max(sum(hits), 1)
    return math.fsum(at_hits) / divisor


def _check(k: int) -> None:
    if k < 1:
        raise ValueError(f"a measure looks at 1 result or more; found k = {k}")
