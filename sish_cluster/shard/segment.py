"""Segments: postings in key order that never change, with a van Emde Boas tree to find a place.

A segment is built once, by sorting new postings or by merging older segments, and then only read; so
any number of readers may share it without a lock.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from sish_cluster.core.errors import Corrupt
from sish_cluster.core.key import UNIVERSE, Keys
from sish_cluster.shard.layout import BLOCK_ROWS, FULL_HEAD
from sish_cluster.shard.veb import VebTree
from sish_cluster.shard.words import aligned_empty

_CHUNK_ROWS = 1 << 16
"""Rows gathered at a time, so that neither memory nor the GIL is held for long."""

_NARROW_LIMIT = 1 << 16
"""Patch numbers below this are kept in two bytes."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Segment:
    """Postings in key order.

    Parameters
    ----------
    keys
        int64 (n,), ascending.
    ordinals
        uint32 (n,): the store's dense number of (slide, version).
    heads, tails
        int64 (n, words): each code's first words, at most eight, and the rest.
    numbers
        uint16 or uint32 (n,): patch numbers.
    corners
        int32 (n, 2), level-0 pixels.
    tree
        The first keys of blocks of rows, each with the last block that starts with it.
    """

    keys: npt.NDArray[np.int64]
    ordinals: npt.NDArray[np.uint32]
    heads: npt.NDArray[np.int64]
    tails: npt.NDArray[np.int64]
    numbers: npt.NDArray[Any]
    corners: npt.NDArray[np.int32]
    tree: VebTree

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def memory_bytes(self) -> int:
        """Bytes the segment occupies."""
        columns = (self.keys, self.ordinals, self.heads, self.tails, self.numbers, self.corners)
        return sum(column.nbytes for column in columns) + self.tree.memory_bytes

    @property
    def fields(self) -> list[int]:
        """The segment's row of the kernels' segment table; see `layout`."""
        columns = (self.keys, self.ordinals, self.heads, self.tails)
        return [*(column.ctypes.data for column in columns), len(self), self.tree.address]

    def first_row_from(self, key: int) -> int:
        """Return the first row whose key is at least ``key``."""
        return int(np.searchsorted(self.keys, key))

    def codes(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        """Return the packed codes of rows, shape (n, code_bytes)."""
        words = np.concatenate([self.heads[rows], self.tails[rows]], axis=1)
        return np.ascontiguousarray(words).view(np.uint8)

    def check(self) -> None:
        """Raise `Corrupt` unless rows ascend, columns agree and the tree finds every block."""
        n = len(self)
        lengths = {
            len(c) for c in (self.ordinals, self.heads, self.tails, self.numbers, self.corners)
        }
        if lengths != {n}:
            raise Corrupt(f"segment columns must have {n} rows; found {sorted(lengths)}")
        if n and (self.keys[0] < 0 or self.keys[-1] >= UNIVERSE or (np.diff(self.keys) < 0).any()):
            raise Corrupt(
                f"segment keys must ascend within 0..{UNIVERSE - 1}; rebuild from the store"
            )
        self.tree.check()
        firsts, blocks = _representatives(self.keys)
        if not np.array_equal(np.fromiter(self.tree, np.int64), firsts):
            raise Corrupt("the segment's tree does not hold its blocks' first keys; rebuild it")
        if not np.array_equal(self.tree.payloads_of(firsts), blocks):
            raise Corrupt("the segment's tree points at wrong blocks; rebuild it")


def _representatives(
    keys: npt.NDArray[np.int64],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the distinct first keys of blocks and, for each, the last block that starts with it."""
    firsts = keys[::BLOCK_ROWS]
    is_last = np.append(firsts[1:] != firsts[:-1], True)[: len(firsts)]
    blocks = np.flatnonzero(is_last).astype(np.int64)
    return firsts[blocks], blocks


def tree_over(keys: npt.NDArray[np.int64]) -> VebTree:
    """Return the tree over ascending keys' blocks."""
    firsts, blocks = _representatives(keys)
    tree = VebTree(firsts)
    tree.set_payloads(firsts.view(np.uint64), blocks)
    return tree


def segment_of(
    *,
    keys: Keys,
    codes: npt.NDArray[np.uint8],
    ordinals: npt.NDArray[np.uint32],
    numbers: npt.NDArray[np.uint32],
    corners: npt.NDArray[np.int32],
) -> Segment:
    """Return the segment of postings in any order (columns as in `PatchColumns`)."""
    signed = np.ascontiguousarray(keys).view(np.int64)
    words = np.ascontiguousarray(codes).view(np.int64)
    order = _sorting_order(signed)
    n_head = min(FULL_HEAD, words.shape[1])
    ordered = np.ascontiguousarray(signed) if order is None else signed[order]
    return Segment(
        keys=ordered.copy() if order is None else ordered,
        ordinals=_gathered(np.asarray(ordinals, np.uint32), order),
        heads=_gathered(words[:, :n_head], order),
        tails=_gathered(words[:, n_head:], order),
        numbers=_gathered(_narrowed(numbers), order),
        corners=_gathered(np.asarray(corners, np.int32), order),
        tree=tree_over(ordered),
    )


def _sorting_order(keys: npt.NDArray[np.int64]) -> npt.NDArray[np.int64] | None:
    """Return the stable order that sorts keys, or None when they are sorted."""
    if bool((keys[1:] >= keys[:-1]).all()):
        return None
    return np.argsort(keys, kind="stable")


def _narrowed(numbers: npt.NDArray[Any]) -> npt.NDArray[Any]:
    is_narrow = numbers.size == 0 or int(numbers.max()) < _NARROW_LIMIT
    return np.asarray(numbers, np.uint16 if is_narrow else np.uint32)


def _gathered(column: npt.NDArray[Any], order: npt.NDArray[np.int64] | None) -> npt.NDArray[Any]:
    """Return the column's rows in ``order``, in memory that starts a cache line."""
    out = aligned_empty((len(column), *column.shape[1:]), column.dtype)
    for start in range(0, len(column), _CHUNK_ROWS):
        part = slice(start, start + _CHUNK_ROWS)
        out[part] = column[part] if order is None else column[order[part]]
    return out


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
    order = _sorting_order(keys)
    if order is not None:
        keys = keys[order]
        places = np.empty_like(order)
        places[order] = np.arange(len(order))
    else:
        places = np.arange(len(keys))
    columns = {
        name: _scattered([getattr(s, name) for s in segments], kept, places)
        for name in ("ordinals", "heads", "tails", "numbers", "corners")
    }
    return Segment(keys=keys, tree=tree_over(keys), **columns)


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
        for start in range(0, n, _CHUNK_ROWS):
            end = min(start + _CHUNK_ROWS, n)
            part = column[start:end] if rows is None else column[rows[start:end]]
            out[places[done + start : done + end]] = part
        done += n
    return out
