"""The direct search, written from the specification: slow, plain, obvious.

Imports nothing from the product. A posting is (embedding as numbers, slide id, patch number).
"""

from __future__ import annotations

import math

UNITS = 32768

Posting = tuple[tuple[float, ...], str, int]


def cosine(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    dot = math.fsum(x * y for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(math.fsum(x * x for x in a) * math.fsum(y * y for y in b))


def found(
    postings: list[Posting], eligible: set[str], embedding: tuple[float, ...], min_cosine: float
) -> list[tuple[int, str, int]]:
    """Return (distance, slide id, patch number) of every eligible posting near enough, in order."""
    rows = []
    for other, slide, number in postings:
        c = cosine(embedding, other)
        if slide in eligible and c >= min_cosine:
            rows.append((min(round((1 - c) * UNITS), 2 * UNITS - 1), slide, number))
    return sorted(rows)
