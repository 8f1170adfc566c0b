"""The measures of a ranked list, slow and obvious, from the specification alone."""

import collections
import math
from fractions import Fraction


def accuracy(k, found, truth):
    for place, label in enumerate(found):
        if place < k and label == truth:
            return 1
    return 0


def winner(labels):
    """The label with the most votes; of equals, the one that appears first."""
    votes = collections.Counter(label for label in labels if label)
    if not votes:
        return None
    most = max(votes.values())
    return next(label for label in labels if label and votes[label] == most)


def majority_vote(k, found, truth, short_list):
    top = list(found)[:k]
    if not top or winner(top) != truth:
        return 0
    agreeing = len([label for label in top if label == truth])
    if len(top) < k:
        if short_list == "published" and agreeing < math.ceil(k / 2):
            return 0
        if short_list == "missing-wrong" and k - len(top) > agreeing:
            return 0
    return 1


def average_precision(k, found, truth, precision, short_list):
    top = list(found)[:k]
    ranks = range(1, k + 1)
    if precision == "mean" and short_list == "as-found":
        ranks = range(1, len(top) + 1)
    right = lambda rank: len([label for label in top[:rank] if label == truth])  # noqa: E731
    if precision == "mean":
        total = sum((Fraction(right(rank), rank) for rank in ranks), Fraction(0))
        return total / len(ranks) if len(ranks) else Fraction(0)
    total, correct = Fraction(0), 0
    for rank, label in enumerate(top, start=1):
        if label == truth:
            correct += 1
            total += Fraction(right(rank), rank)
    if precision == "five":
        return total / 5
    return total / correct if correct else Fraction(0)


def micro(values):
    return sum(values) / len(values)


def macro(values, classes):
    by_class = collections.defaultdict(list)
    for value, name in zip(values, classes, strict=True):
        by_class[name].append(value)
    return sum(micro(held) for held in by_class.values()) / len(by_class)
