"""What a search of the index returns, and the order of its rows.

Kernels find rows in memory order; here they get the order of their mode. Slide ids are asked for only
where a tie needs them: nearly never for the published search, at equal distances for the others.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from sish_cluster.shard.layout import ROW_BITS
from sish_cluster.shard.segment import Segment

SlideIdsOf = Callable[[npt.NDArray[np.uint32]], list[str]]
"""Returns the slide ids of ordinals."""

Order = npt.NDArray[np.int64]


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Found:
    """The answer of one index to one slide query; rows of patch i are ``offsets[i]:offsets[i+1]``.

    Parameters
    ----------
    offsets
        int64 (n_patches + 1,).
    keys, distances, ordinals, numbers
        uint64, uint16 (Hamming bits), uint32, uint32 (n,).
    corners
        int32 (n, 2), level-0 pixels.
    examined_keys, examined_key_counts
        uint64 and uint32 (m,): the distinct eligible keys examined for any patch, ascending, and the
        eligible postings at each; None unless candidates were asked for that another shard's will join.
    examined_counts
        int64 (n_patches,): postings examined per patch.
    eligible
        Eligible postings in the index.
    """

    offsets: npt.NDArray[np.int64]
    keys: npt.NDArray[np.uint64]
    distances: npt.NDArray[np.uint16]
    ordinals: npt.NDArray[np.uint32]
    numbers: npt.NDArray[np.uint32]
    corners: npt.NDArray[np.int32]
    examined_keys: npt.NDArray[np.uint64] | None
    examined_key_counts: npt.NDArray[np.uint32] | None
    examined_counts: npt.NDArray[np.int64]
    eligible: int


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Postings in key order: columns of equal length, ``codes`` packed as uint8 (n, code_bytes)."""

    keys: npt.NDArray[np.uint64]
    ordinals: npt.NDArray[np.uint32]
    numbers: npt.NDArray[np.uint32]
    corners: npt.NDArray[np.int32]
    codes: npt.NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.keys)


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Hits:
    """Rows as kernels found them, before they have an order; see `layout.HIT_WORDS`."""

    patches: npt.NDArray[np.int64]
    groups: npt.NDArray[np.int64]
    distances: npt.NDArray[np.int64]
    places: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.places)

    def taken(self, chosen: npt.NDArray[np.generic]) -> Hits:
        """Return the hits at ``chosen`` (indices or mask)."""
        return Hits(*(column[chosen] for column in self.columns()))

    def columns(self) -> tuple[npt.NDArray[np.int64], ...]:
        """Return the four columns."""
        return (self.patches, self.groups, self.distances, self.places)

    @classmethod
    def joined(cls, parts: Sequence[Hits]) -> Hits:
        """Return all hits of several."""
        if not parts:
            empty = np.zeros(0, np.int64)
            return cls(empty, empty, empty, empty)
        return cls(
            *(
                np.concatenate(columns)
                for columns in zip(*(p.columns() for p in parts), strict=True)
            )
        )


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Posted:
    """Hits with their postings' columns, one row each."""

    hits: Hits
    keys: npt.NDArray[np.int64]
    ordinals: npt.NDArray[np.uint32]
    numbers: npt.NDArray[np.uint32]
    corners: npt.NDArray[np.int32]

    @classmethod
    def of(cls, hits: Hits, segments: Sequence[Segment]) -> Posted:
        """Read the postings of hits from their segments."""
        n = len(hits)
        keys, ordinals = np.empty(n, np.int64), np.empty(n, np.uint32)
        numbers, corners = np.empty(n, np.uint32), np.empty((n, 2), np.int32)
        segment_numbers = hits.places >> ROW_BITS
        for s, segment in enumerate(segments):
            here = np.flatnonzero(segment_numbers == s)
            rows = hits.places[here] & ((1 << ROW_BITS) - 1)
            keys[here], ordinals[here] = segment.keys[rows], segment.ordinals[rows]
            numbers[here], corners[here] = segment.numbers[rows], segment.corners[rows]
        return cls(hits, keys, ordinals, numbers, corners)

    def taken(self, chosen: npt.NDArray[np.generic]) -> Posted:
        """Return the rows at ``chosen`` (indices or mask), in that order."""
        columns = (self.keys, self.ordinals, self.numbers, self.corners)
        return Posted(self.hits.taken(chosen), *(column[chosen] for column in columns))


def ordered_by_distance(posted: Posted, slide_ids_of: SlideIdsOf) -> Posted:
    """Return rows ordered by (patch, distance, slide id, patch number)."""
    runs = (posted.hits.patches << 32) | posted.hits.distances
    return posted.taken(_order_within(runs, posted, slide_ids_of))


def ordered_as_published(posted: Posted, slide_ids_of: SlideIdsOf) -> Posted:
    """Return one row per acceptance, ordered by (patch, distance, acceptance)."""
    runs = (posted.hits.patches << 32) | posted.hits.groups
    firsts = _first_of_each(runs, posted, slide_ids_of)
    hits = firsts.hits
    return firsts.taken(np.lexsort((hits.groups, hits.distances, hits.patches)))


def nearest_of_each_key(posted: Posted, slide_ids_of: SlideIdsOf) -> Posted:
    """Return, per patch and key, only the nearest row; ties go to the first (slide id, patch number)."""
    by_key = posted.taken(np.lexsort((posted.hits.distances, posted.keys, posted.hits.patches)))
    is_new = _starts((by_key.hits.patches, by_key.keys))
    runs = np.cumsum(is_new) - 1
    nearest = by_key.hits.distances[is_new][runs] if len(runs) else by_key.hits.distances
    is_nearest = by_key.hits.distances == nearest
    return _first_of_each(runs[is_nearest], by_key.taken(is_nearest), slide_ids_of)


def cut(posted: Posted, max_candidates: int) -> Posted:
    """Return at most ``max_candidates`` first rows of each patch (0 for all)."""
    if max_candidates == 0:
        return posted
    patches = posted.hits.patches
    starts = np.searchsorted(patches, patches)
    return posted.taken(np.arange(len(patches)) - starts < max_candidates)


def _first_of_each(runs: npt.NDArray[np.int64], posted: Posted, slide_ids_of: SlideIdsOf) -> Posted:
    order = _order_within(runs, posted, slide_ids_of)
    return posted.taken(order[_starts((runs[order],))])


def _order_within(runs: npt.NDArray[np.int64], posted: Posted, slide_ids_of: SlideIdsOf) -> Order:
    """Return the order by (run, slide id, patch number)."""
    order = np.lexsort((posted.numbers, posted.ordinals, runs))
    is_new_run = _starts((runs[order],))
    differs = ~is_new_run & _starts((posted.ordinals[order],))
    if not differs.any():
        return order
    run_numbers = np.cumsum(is_new_run) - 1
    is_tied = np.bincount(run_numbers, weights=differs)[run_numbers] > 0
    ranks = np.zeros(len(order), np.int64)
    tied = order[is_tied]
    ranks[tied] = _ranks_of(posted.ordinals[tied], slide_ids_of)
    return np.lexsort((posted.numbers, ranks, runs))


def _ranks_of(ordinals: npt.NDArray[np.uint32], slide_ids_of: SlideIdsOf) -> Order:
    """Return each ordinal's place in the order of slide ids; equal ids have equal places."""
    distinct, inverse = np.unique(ordinals, return_inverse=True)
    slide_ids = slide_ids_of(distinct)
    places = {slide_id: place for place, slide_id in enumerate(sorted(set(slide_ids)))}
    return np.array([places[slide_id] for slide_id in slide_ids], np.int64)[inverse]


def _starts(columns: Sequence[npt.NDArray[np.generic]]) -> npt.NDArray[np.bool_]:
    """Return where any of the columns differs from the row before; the first row always does."""
    starts = np.zeros(len(columns[0]), np.bool_)
    starts[:1] = True
    for column in columns:
        starts[1:] |= column[1:] != column[:-1]
    return starts
