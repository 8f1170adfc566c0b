"""Each slide's nearest candidate in each query patch, and its place there.

Rankers that look at all query patches read this one table instead of all candidates.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from sish_cluster.core.seams import PatchCandidates
from sish_cluster.router.rows import Floats, Ints


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Nearest:
    """One row per (query patch, slide) that has a candidate, grouped by query patch, nearest first.

    Parameters
    ----------
    patches
        int64 (n,): row of the query patch.
    slides
        int64 (n,): place in the slide table.
    distances
        int64 (n,): Hamming bits of the slide's nearest candidate.
    ranks
        int64 (n,): one more than the slides of that query patch that are strictly nearer, so slides
        at equal distance share a rank, and a slide at distance 0 always has rank 1.
    """

    patches: Ints
    slides: Ints
    distances: Ints
    ranks: Ints

    def summed(self, values: Floats, n_slides: int) -> Floats:
        """Return the sum of row ``values`` for each slide of the table."""
        sums = np.bincount(self.slides, values, minlength=n_slides)
        return sums.astype(np.float64, copy=False)

    def leading_rows(self, *sort_columns: npt.NDArray[np.generic]) -> Ints:
        """Return, for each slide that has one, the row that comes first by the columns.

        Rows come back ascending in slide; the first column counts most.
        """
        order = np.lexsort((*sort_columns[::-1], self.slides))
        ordered = self.slides[order]
        return np.asarray(order[np.diff(ordered, prepend=-1) != 0])


def nearest_of(patches: Sequence[PatchCandidates], n_slides: int) -> Nearest:
    """Return the table of query patches' candidates, each patch's being nearest first."""
    if not patches:
        none = np.zeros(0, np.int64)
        return Nearest(none, none, none, none)
    numbers = np.array([patch.query_number for patch in patches], dtype=np.int64)
    query = np.repeat(numbers, [len(patch) for patch in patches])
    slides = np.concatenate([patch.slides for patch in patches])
    distances = np.concatenate([patch.distances for patch in patches])
    _, firsts = np.unique(query * max(n_slides, 1) + slides, return_index=True)
    rows = np.sort(firsts)
    query, slides, distances = query[rows], slides[rows], distances[rows]
    return Nearest(query, slides, distances, _ranks(query, distances))


def _ranks(patches: Ints, distances: Ints) -> Ints:
    """Return ranks with equal distances sharing the best place."""
    is_new_patch = np.diff(patches, prepend=-1) != 0
    is_new_distance = is_new_patch | (np.diff(distances, prepend=-1) != 0)
    places = np.arange(len(patches))
    patch_start = np.maximum.accumulate(np.where(is_new_patch, places, 0))
    distance_start = np.maximum.accumulate(np.where(is_new_distance, places, 0))
    return np.asarray(distance_start - patch_start + 1)
