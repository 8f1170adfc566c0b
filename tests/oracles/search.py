"""The published and the default search, written from the specification: slow, plain, obvious.

Imports nothing from the product. A posting is (key, code as int, slide id, patch number). A query
patch is (key, code as int). Eligibility is a set of slide ids.
"""

from __future__ import annotations

import bisect
import dataclasses

COARSE_UNIT = 10**11


@dataclasses.dataclass(frozen=True)
class Posting:
    key: int
    code: int
    slide: str
    number: int


@dataclasses.dataclass(frozen=True)
class Bounds:
    max_distance: int = 128
    seeds_per_side: int = 10
    seed_spacing: int = 50
    max_steps: int = 375


def hamming(a: int, b: int) -> int:
    return (a ^ b).bit_count()


def order_of(found: tuple[int, Posting]) -> tuple[int, str, int]:
    distance, posting = found
    return distance, posting.slide, posting.number


def seeds(q: int, bounds: Bounds) -> list[int]:
    stride = bounds.seed_spacing * COARSE_UNIT
    below = [q - m * stride for m in range(bounds.seeds_per_side)]
    above = [q + m * stride for m in range(bounds.seeds_per_side)]
    return below + above


def by_key(postings: list[Posting]) -> dict[int, list[Posting]]:
    table: dict[int, list[Posting]] = {}
    for posting in postings:
        table.setdefault(posting.key, []).append(posting)
    return table


class Archive:
    """Postings sorted once, for many queries; the walk itself stays as plain."""

    def __init__(self, postings: list[Posting]) -> None:
        self.table = by_key(postings)
        self.ascending = sorted(self.table)

    def published(
        self, eligible: set[str], q: int, code: int, bounds: Bounds
    ) -> tuple[list[tuple[int, Posting]], set[int]]:
        """Return (results in order, keys stepped on)."""
        accepted: dict[int, tuple[int, Posting]] = {}
        stepped: set[int] = set()

        def walk(places: range) -> None:
            steps = 0
            for place in places:
                key = self.ascending[place]
                if steps == bounds.max_steps or key in accepted:
                    return
                here = [p for p in self.table[key] if p.slide in eligible]
                if not here:
                    continue
                steps += 1
                stepped.add(key)
                best = min(((hamming(code, p.code), p) for p in here), key=order_of)
                if best[0] <= bounds.max_distance:
                    accepted[key] = best

        for seed in seeds(q, bounds):
            walk(range(bisect.bisect_left(self.ascending, seed) - 1, -1, -1))
            walk(range(bisect.bisect_right(self.ascending, seed), len(self.ascending)))
        return sorted(accepted.values(), key=lambda found: found[0]), stepped


def published(
    postings: list[Posting], eligible: set[str], q: int, code: int, bounds: Bounds
) -> tuple[list[tuple[int, Posting]], set[int]]:
    """Return (results in order, keys stepped on)."""
    return Archive(postings).published(eligible, q, code, bounds)


def guided(
    postings: list[Posting], eligible: set[str], q: int, code: int, bounds: Bounds
) -> tuple[list[tuple[int, Posting]], set[int]]:
    """Return (results in order, the key neighbourhood U)."""
    usable = [p for p in postings if p.slide in eligible]
    occupied = sorted({p.key for p in usable})
    neighbourhood = {q} & set(occupied)
    for seed in set(seeds(q, bounds)):
        below = [key for key in occupied if key < seed]
        above = [key for key in occupied if key > seed]
        neighbourhood |= set(below[max(0, len(below) - bounds.max_steps) :])
        neighbourhood |= set(above[: bounds.max_steps])
    found = [(hamming(code, p.code), p) for p in usable if p.key in neighbourhood]
    return sorted((f for f in found if f[0] <= bounds.max_distance), key=order_of), neighbourhood


def exact(
    postings: list[Posting], eligible: set[str], code: int, bounds: Bounds
) -> list[tuple[int, Posting]]:
    """Return every eligible posting within the bound, in order."""
    found = [(hamming(code, p.code), p) for p in postings if p.slide in eligible]
    return sorted((f for f in found if f[0] <= bounds.max_distance), key=order_of)
