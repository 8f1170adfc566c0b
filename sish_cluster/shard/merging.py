"""Merging: several segments into one, rows that are no longer wanted left out."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from sish_cluster.shard.gather import CodeColumns
from sish_cluster.shard.segment import CHUNK_ROWS, Segment, sorting_order, tree_over
from sish_cluster.shard.words import aligned_empty

_MANY_ROWS = 1 << 18
"""Rows whose temporary columns are worth giving back: some megabytes."""


def merged(segments: Sequence[Segment], kept: Sequence[npt.NDArray[np.int64] | None]) -> Segment:
    """Return one segment of the kept rows of several.

    Parameters
    ----------
    segments
        Oldest first; equal keys keep this order.
    kept
        For each segment its ascending rows to keep, or None for all.
    """
    keys = np.concatenate([_rows(s.keys, rows) for s, rows in zip(segments, kept, strict=True)])
    order = sorting_order(keys)
    if order is not None:
        keys = keys[order]
        places = np.empty_like(order)
        places[order] = np.arange(len(order))
    else:
        places = np.arange(len(keys))
    columns = {
        name: _scattered([getattr(s, name) for s in segments], kept, places)
        for name in ("ordinals", "numbers", "corners")
    }
    coded = CodeColumns(len(keys), segments[0].code_bytes // 8)
    done = 0
    for segment, rows in zip(segments, kept, strict=True):
        n = len(segment) if rows is None else len(rows)
        coded.take_segment(segment.heads, segment.tails, rows, places[done : done + n])
        done += n
    return Segment(
        keys=keys,
        heads=coded.heads,
        tails=coded.tails,
        tree=tree_over(keys),
        code_bytes=segments[0].code_bytes,
        **columns,
    )


def _rows(column: npt.NDArray[Any], rows: npt.NDArray[np.int64] | None) -> npt.NDArray[Any]:
    return column if rows is None else column[rows]


def _scattered(
    columns: Sequence[npt.NDArray[Any]],
    kept: Sequence[npt.NDArray[np.int64] | None],
    places: npt.NDArray[np.int64],
) -> npt.NDArray[Any]:
    """Return the kept rows of several columns, each written to its place in the merged order."""
    dtype = np.result_type(*columns)
    out = aligned_empty((len(places), *columns[0].shape[1:]), dtype)
    done = 0
    for column, rows in zip(columns, kept, strict=True):
        n = len(column) if rows is None else len(rows)
        for start in range(0, n, CHUNK_ROWS):
            end = min(start + CHUNK_ROWS, n)
            part = column[start:end] if rows is None else column[rows[start:end]]
            out[places[done + start : done + end]] = part
        done += n
    return out


def release_freed(n_rows: int) -> None:
    """Give what the temporary columns of many rows used back to the system, where it can be asked to."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None and n_rows >= _MANY_ROWS:
        trim(0)
