"""The published ranking, written from the specification: slow, plain, obvious.

Imports nothing from the product. A query patch's results are a list of (slide, label, distance) in
order; patches are numbered by their place.
"""

from __future__ import annotations

import math
from collections import Counter

F = 10.0


def weights(counts: dict[str, int]) -> dict[str, float]:
    inverse = sum(1 / n for n in counts.values())
    return {label: F / (n * inverse) for label, n in counts.items()}


def uncertainty(
    results: list[tuple[str, str, int]], w: dict[str, float]
) -> tuple[float, dict[str, float]]:
    """Return (entropy in bits, p by label)."""
    count: dict[str, float] = {}
    for j, (_, label, _) in enumerate(results):
        count[label] = count.get(label, 0.0) + w[label] / (j + 1)
    total = sum(count.values())
    p = {label: c / total for label, c in count.items()}
    return -sum(x * math.log2(x) for x in p.values()), p


def percentile(values: list[int], q: float) -> float:
    """The linear-interpolation percentile (numpy's default)."""
    ordered = sorted(values)
    place = (len(ordered) - 1) * q / 100
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def mean_first_5(results: list[tuple[str, str, int]]) -> float:
    first = [distance for _, _, distance in results[:5]]
    return sum(first) / len(first)


def ranked(
    patches: list[list[tuple[str, str, int]]], counts: dict[str, int], k: int
) -> list[tuple[str, float, int]]:
    """Return (slide, uncertainty, distance) in order; empty where the published code has no answer."""
    w = weights(counts)
    bags = {i: results for i, results in enumerate(patches) if results}
    if not bags:
        return []
    scored = {i: uncertainty(results, w) for i, results in bags.items()}
    # Clean.
    lengths = [len(results) for results in bags.values()]
    kept = list(bags)
    if len(set(lengths)) > 3:
        low, high = percentile(lengths, 5), percentile(lengths, 95)
        kept = [i for i in kept if low < len(bags[i]) < high]
    if not kept:
        return []
    tau = sum(mean_first_5(bags[i]) for i in kept) / len(kept)
    kept = [i for i in sorted(kept, key=lambda i: scored[i][0]) if mean_first_5(bags[i]) <= tau]
    # Filter by prediction.
    top5 = kept[:5]
    votes: Counter[str] = Counter()
    for i in top5:
        for label, p in scored[i][1].items():
            votes[label] += p
    own = {i: max(scored[i][1].items(), key=lambda item: item[1])[0] for i in top5}
    removed: set[int] = set()
    for label, _ in sorted(votes.items(), key=lambda item: -item[1]):
        removed = {i for i in top5 if own[i] != label}
        if len(removed) < len(top5):
            break
    # Slides.
    seen: set[str] = set()
    rows: list[tuple[float, int, int, str]] = []
    for i in kept:
        entropy = scored[i][0]
        for slide, _, distance in bags[i]:
            if slide not in seen and (entropy == 0 or distance <= tau):
                seen.add(slide)
                rows.append((entropy, distance, i, slide))
    rows.sort(key=lambda row: (row[0], row[1]))
    return [(slide, entropy, distance) for entropy, distance, i, slide in rows if i not in removed][
        :k
    ]
