"""RetCCL's ranking, written from the specification: slow, plain, obvious.

Imports nothing from the product. A query patch's results are a list of (slide, label, distance), nearest
first; a similarity is ``1 - distance / units``; an unknown label is ``""``.
"""

from __future__ import annotations

import math
from fractions import Fraction

F = 10.0


def weights(counts: dict[str, int], labels: set[str]) -> dict[str, float]:
    known = {label: n for label, n in counts.items() if label}
    inverse = sum(1 / n for n in known.values()) or 1.0
    w = {label: F / (known.get(label, 1) * inverse) for label in labels if label}
    return w | {label: F / (n * inverse) for label, n in known.items()}


def entropy(results: list[tuple[str, str, int]], w: dict[str, float], units: float) -> float:
    """Return the entropy in nats; as large as the labels allow where no label is known."""
    summed: dict[str, float] = {}
    for _, label, distance in results:
        if label:
            s = 1 - distance / units
            summed[label] = summed.get(label, 0.0) + w[label] * (s + 1) / 2
    total = sum(summed.values())
    if not total:
        return math.log(max(len(w), 2))
    return -sum(x / total * math.log(x / total) for x in summed.values() if x)


def eta(results: list[tuple[str, str, int]], units: int) -> Fraction:
    five = [1 - Fraction(distance, units) for _, _, distance in results[:5]]
    return sum(five, Fraction(0)) / len(five)


def majority(results: list[tuple[str, str, int]]) -> str:
    """The label most of the first five have; among equals, the one that appears first."""
    known = [label for _, label, _ in results[:5] if label]
    best = ""
    for label in known:
        if not best or known.count(label) > known.count(best):
            best = label
    return best


def ranked(
    patches: list[list[tuple[str, str, int]]], counts: dict[str, int], k: int, units: int,
    *, ascending: bool = True,
) -> tuple[list[tuple[str, int, float, int]], str]:  # fmt: skip
    """Return (slide, query patch, entropy in nats, distance) in order, and the label voted most."""
    w = weights(counts, {label for results in patches for _, label, _ in results})
    bags = [(i, results) for i, results in enumerate(patches) if results]
    if not bags:
        return [], ""
    etas = {i: eta(results, units) for i, results in bags}
    mean = sum(etas.values(), Fraction(0)) / len(etas)
    kept = [(i, results) for i, results in bags if etas[i] >= mean]
    entropies = {i: entropy(results, w, units) for i, results in kept}
    sign = 1 if ascending else -1
    kept.sort(key=lambda bag: (sign * round(entropies[bag[0]], 9), -etas[bag[0]], bag[0]))
    listed: list[tuple[str, int, float, int]] = []
    voted: list[str] = []
    for i, results in kept:
        label = majority(results)
        if label:
            voted.append(label)
        slide, _, distance = next(result for result in results if result[1] == label or not label)
        if slide not in [row[0] for row in listed]:
            listed.append((slide, i, entropies[i], distance))
    winner = ""
    for label in voted:
        if not winner or voted.count(label) > voted.count(winner):
            winner = label
    return listed[:k], winner
