"""Reading the index by key: a page of a key range, and the keys next to a key.

Segments are read in windows that double until enough is seen; a key counts only when every segment's
window reaches past it, so keys are always whole.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from sish_cluster.core.key import UNIVERSE, Keys
from sish_cluster.shard.found import Rows
from sish_cluster.shard.segment import Segment

_FIRST_WINDOW = 256
"""Rows of each segment read at first."""

Picks = list[npt.NDArray[np.int64]]
"""Rows of each segment."""


class KeyPages:
    """Eligible postings by key.

    Parameters
    ----------
    segments
        At least what the reader's snapshot has.
    live
        bool by ordinal.
    """

    def __init__(self, segments: Sequence[Segment], live: npt.NDArray[np.bool_]) -> None:
        self._segments = segments
        self._live = live

    def rows_from(self, start: int, end: int, limit: int) -> Rows:
        """Return the postings with ``start <= key < end``, whole keys, until there are ``limit``."""
        window = max(_FIRST_WINDOW, limit)
        while True:
            picks, whole_below = self._window_above(start, end, window)
            if whole_below >= end or sum(map(len, picks)) >= limit:
                return self._first_keys(picks, limit)
            window *= 2

    def keys_above(self, key: int, n: int) -> Keys:
        """Return the ``n`` nearest keys strictly above, ascending."""
        window = max(_FIRST_WINDOW, n)
        while True:
            picks, whole_below = self._window_above(key + 1, UNIVERSE, window)
            keys = self._keys_of(picks)
            if whole_below >= UNIVERSE or len(keys) >= n:
                return keys[:n].view(np.uint64)
            window *= 2

    def keys_below(self, key: int, n: int) -> Keys:
        """Return the ``n`` nearest keys strictly below, descending."""
        window = max(_FIRST_WINDOW, n)
        while True:
            picks, whole_from = self._window_below(key, window)
            keys = self._keys_of(picks)
            if whole_from <= 0 or len(keys) >= n:
                return np.ascontiguousarray(keys[::-1][:n]).view(np.uint64)
            window *= 2

    def _window_above(self, start: int, end: int, window: int) -> tuple[Picks, int]:
        """Return eligible rows of whole keys from ``start``, and the key below which keys are whole."""
        ranges = []
        whole_below = end
        for segment in self._segments:
            first, past = segment.first_row_from(start), segment.first_row_from(end)
            stop = min(first + window, past)
            ranges.append((first, stop))
            if stop < past:
                whole_below = min(whole_below, int(segment.keys[stop]))
        stops = [segment.first_row_from(whole_below) for segment in self._segments]
        return self._eligible(
            [(r[0], min(r[1], s)) for r, s in zip(ranges, stops, strict=True)]
        ), whole_below

    def _window_below(self, key: int, window: int) -> tuple[Picks, int]:
        """Return eligible rows of whole keys below ``key``, and the key from which keys are whole."""
        ranges = []
        whole_from = 0
        for segment in self._segments:
            past = segment.first_row_from(key)
            first = max(past - window, 0)
            ranges.append((first, past))
            if first > 0:
                whole_from = max(whole_from, int(segment.keys[first - 1]) + 1)
        starts = [segment.first_row_from(whole_from) for segment in self._segments]
        return self._eligible(
            [(max(r[0], s), r[1]) for r, s in zip(ranges, starts, strict=True)]
        ), whole_from

    def _eligible(self, ranges: Sequence[tuple[int, int]]) -> Picks:
        return [
            first + np.flatnonzero(self._live[segment.ordinals[first:past]])
            for segment, (first, past) in zip(self._segments, ranges, strict=True)
        ]

    def _keys_of(self, picks: Picks) -> npt.NDArray[np.int64]:
        """Return the distinct keys of rows, ascending."""
        keys = [segment.keys[rows] for segment, rows in zip(self._segments, picks, strict=True)]
        return np.unique(np.concatenate([np.zeros(0, np.int64), *keys]))

    def _first_keys(self, picks: Picks, limit: int) -> Rows:
        """Return the rows of the first keys that together have ``limit`` rows, in key order."""
        chosen = [(s, rows) for s, rows in zip(self._segments, picks, strict=True) if len(rows)]
        if not chosen:
            return _no_rows()
        keys = np.concatenate([s.keys[rows] for s, rows in chosen])
        order = np.argsort(keys, kind="stable")
        if len(order) > limit:
            past = int(np.searchsorted(keys[order], keys[order[limit - 1]], side="right"))
            order = order[:past]
        return Rows(
            keys=keys[order].view(np.uint64),
            ordinals=np.concatenate([s.ordinals[rows] for s, rows in chosen])[order],
            numbers=np.concatenate([s.numbers[rows] for s, rows in chosen])[order].astype(
                np.uint32
            ),
            corners=np.concatenate([s.corners[rows] for s, rows in chosen])[order],
            codes=np.concatenate([s.codes(rows) for s, rows in chosen])[order],
        )


def _no_rows() -> Rows:
    empty = np.zeros(0, np.uint32)
    return Rows(
        np.zeros(0, np.uint64), empty, empty, np.zeros((0, 2), np.int32), np.zeros((0, 0), np.uint8)
    )
