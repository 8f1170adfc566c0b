"""Ranked slides with what speaks for them: pairs of patches that look alike.

One pair per query patch, the nearest the slide has for it: fifty pairs of the same query patch say
less than one pair of each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from sish_cluster.core.posting import PatchColumns
from sish_cluster.core.result import PatchMatch, SlideResult
from sish_cluster.core.seams import PatchCandidates, RankedList, RankedSlide
from sish_cluster.router.merge import Merged


def slide_results(
    merged: Merged, ranked: RankedList, query: PatchColumns, *, max_matches: int
) -> list[SlideResult]:
    """Return the ranked slides as results.

    Parameters
    ----------
    merged
        The candidates.
    ranked
        The slides in order.
    query
        The query's patches, for their corners.
    max_matches
        Most pairs per slide, nearest first.
    """
    pairs = _pairs_of({slide.slide for slide in ranked.slides}, merged.patches)
    return [
        SlideResult(
            rank=place + 1,
            slide=merged.slides[slide.slide],
            distance=slide.distance,
            uncertainty=slide.uncertainty,
            certainty=2.0**-slide.uncertainty,
            score=slide.score,
            matches=_matches(slide, pairs, (query, ranked.uncertainties), max_matches),
        )
        for place, slide in enumerate(ranked.slides)
    ]


_Pair = tuple[int, int, int, tuple[int, int]]
"""Distance, query patch, patch number in the result's slide, corner there."""


def _pairs_of(
    wanted: set[int], patches: Sequence[PatchCandidates]
) -> Mapping[int, Sequence[_Pair]]:
    """Return the pairs of each wanted slide, one per query patch, nearest first."""
    pairs: dict[int, list[_Pair]] = {slide: [] for slide in wanted}
    chosen = np.fromiter(wanted, np.int64, len(wanted))
    for patch in patches:
        rows = np.flatnonzero(np.isin(patch.slides, chosen))
        _, firsts = np.unique(patch.slides[rows], return_index=True)
        for row in rows[firsts].tolist():
            x, y = patch.corners[row].tolist()
            pair = (int(patch.distances[row]), patch.query_number, int(patch.numbers[row]), (x, y))
            pairs[int(patch.slides[row])].append(pair)
    return {slide: sorted(found) for slide, found in pairs.items()}


def _matches(
    slide: RankedSlide,
    pairs: Mapping[int, Sequence[_Pair]],
    query: tuple[PatchColumns, Mapping[int, float]],
    max_matches: int,
) -> list[PatchMatch]:
    patches, uncertainties = query
    matches = []
    for distance, query_number, number, corner in pairs[slide.slide][:max_matches]:
        x, y = patches.corners[query_number].tolist()
        uncertainty = uncertainties.get(query_number, 0.0)
        matches.append(PatchMatch(query_number, (x, y), number, corner, distance, uncertainty))
    return matches
