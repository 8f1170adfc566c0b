"""Candidates of several shards as one set of columns over one slide table.

Each shard numbers the slides of its answer in its own way, and a slide whose postings are cut by key
range is in several answers. Here they become one table in slide id order, so that "by slide id" is an
integer comparison, and all candidates become one flat set of rows that the merge sorts and cuts.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from sish_cluster.core.candidate import Candidates, ShardAnswer
from sish_cluster.core.seams import PatchCandidates
from sish_cluster.core.slide import Slide

Ints = npt.NDArray[np.int64]
"""Whole numbers, int64."""

Floats = npt.NDArray[np.float64]
"""Real numbers, float64."""

Mask = npt.NDArray[np.bool_]
"""One truth value per row."""

_SORT_BITS = 63
"""Bits of a packed sort key: what a non-negative int64 holds."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Candidates as flat columns of equal length n.

    Parameters
    ----------
    patches
        int64 (n,): query patch of each row.
    keys
        int64 (n,): key of each candidate.
    distances
        int64 (n,): Hamming bits.
    slides
        int64 (n,): place in the slide table.
    numbers
        int64 (n,): patch number within the candidate's slide.
    corners
        int32 (n, 2): level-0 pixels.
    """

    patches: Ints
    keys: Ints
    distances: Ints
    slides: Ints
    numbers: Ints
    corners: npt.NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.patches)

    def taken(self, chosen: Ints | Mask) -> Rows:
        """Return the rows ``chosen`` (indices or mask) as new columns."""
        return Rows(
            self.patches[chosen],
            self.keys[chosen],
            self.distances[chosen],
            self.slides[chosen],
            self.numbers[chosen],
            self.corners[chosen],
        )

    def first_of_each_patch(self, most: int) -> Rows:
        """Return at most ``most`` leading rows of each query patch; all of them when 0.

        Rows must be grouped by query patch.
        """
        if not most:
            return self
        starts = np.searchsorted(self.patches, self.patches, side="left")
        return self.taken(np.arange(len(self)) - starts < most)

    def by_patch(self, n_query_patches: int) -> list[PatchCandidates]:
        """Return one view per query patch; rows must be grouped by query patch."""
        ends = np.searchsorted(self.patches, np.arange(n_query_patches + 1)).tolist()
        return [
            PatchCandidates(
                number,
                self.slides[start:end],
                self.distances[start:end],
                self.numbers[start:end],
                self.corners[start:end],
            )
            for number, (start, end) in enumerate(itertools.pairwise(ends))
        ]


def slide_table(answers: Sequence[ShardAnswer]) -> list[Slide]:
    """Return every slide the answers refer to, once, in slide id order."""
    by_id = {slide.slide_id: slide for answer in answers for slide in answer.slides}
    return [by_id[slide_id] for slide_id in sorted(by_id)]


def rows_of(answers: Sequence[ShardAnswer], table: Sequence[Slide]) -> Rows:
    """Return the answers' candidates as rows over ``table``, shard after shard."""
    places = {slide.slide_id: place for place, slide in enumerate(table)}
    parts = [_rows_of_one(answer.candidates, answer.slides, places) for answer in answers]
    columns = [
        np.concatenate([getattr(part, field.name) for part in parts])
        for field in dataclasses.fields(Rows)
    ]
    return Rows(*columns)


def _rows_of_one(candidates: Candidates, slides: Sequence[Slide], places: dict[str, int]) -> Rows:
    place_of = np.array([places[slide.slide_id] for slide in slides], dtype=np.int64)
    counts = np.diff(candidates.offsets)
    return Rows(
        np.repeat(np.arange(candidates.n_query_patches), counts),
        candidates.keys.astype(np.int64),
        candidates.distances.astype(np.int64),
        place_of[candidates.slides.astype(np.int64)],
        candidates.numbers.astype(np.int64),
        candidates.corners,
    )


def order_of(*columns: Ints) -> Ints:
    """Return the stable order that sorts by the columns, the first counting most.

    Parameters
    ----------
    *columns
        int64 (n,) each, none negative.

    Notes
    -----
    Columns are packed into one int64 when their bits fit, which they do for any usual search; sorting
    it is several times faster than a sort by each column, and close to linear for the ascending runs
    that shards send.

    Examples
    --------
    >>> order_of(np.array([1, 0, 0]), np.array([5, 9, 7])).tolist()
    [2, 1, 0]
    """
    if not len(columns[0]):
        return np.zeros(0, np.int64)
    widths = [int(column.max()).bit_length() for column in columns]
    if sum(widths) > _SORT_BITS:
        return np.lexsort(columns[::-1])
    packed = columns[0]
    for column, width in zip(columns[1:], widths[1:], strict=True):
        packed = (packed << width) | column
    return np.argsort(packed, kind="stable")
