"""Segments: postings in key order that never change, with a van Emde Boas tree to find a place.

A segment is built once, by sorting new postings or by merging older segments, and then only read; so
any number of readers may share it without a lock.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from sish_cluster.core.errors import Corrupt
from sish_cluster.core.key import UNIVERSE, Keys
from sish_cluster.shard.gather import CodeColumns, empty_heads
from sish_cluster.shard.layout import BLOCK_ROWS, HEAD, LANES
from sish_cluster.shard.veb import VebTree
from sish_cluster.shard.words import aligned_empty

CHUNK_ROWS = 1 << 16
"""Rows gathered at a time, so that neither memory nor the GIL is held for long."""

_NARROW_LIMIT = 1 << 16
"""Patch numbers below this are kept in two bytes."""

COLUMNS = ("keys", "ordinals", "heads", "tails", "numbers", "corners")
"""A segment's columns, all there is of it: the tree is built from the keys."""

SEGMENT_LAYOUT = 1
"""Raised whenever a column's bytes get another meaning, so that no checkpoint is misread."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Segment:
    """Postings in key order.

    Parameters
    ----------
    keys
        int64 (n,), ascending.
    ordinals
        uint32 (n,): the store's dense number of (slide, version).
    heads
        int64 (ceil(n / 4), 7, 4): each code's first words, those of four rows interleaved.
    tails
        int64 (n, words): the rest of each code.
    code_bytes
        Bytes of a code; codes shorter than a head are padded with zeros.
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
    code_bytes: int

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
        keys, ordinals, heads, tails, numbers, corners = (
            getattr(self, name).ctypes.data for name in COLUMNS
        )
        sizes = (len(self), self.tree.address)
        return [keys, ordinals, heads, tails, *sizes, numbers, self.numbers.itemsize, corners]

    def first_row_from(self, key: int) -> int:
        """Return the first row whose key is at least ``key``."""
        return int(np.searchsorted(self.keys, key))

    def codes(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        """Return the packed codes of rows, shape (n, code_bytes)."""
        words = np.concatenate([heads_at(self.heads, rows), self.tails[rows]], axis=1)
        return np.ascontiguousarray(words).view(np.uint8)[:, : self.code_bytes]

    def check(self) -> None:
        """Raise `Corrupt` unless rows ascend, columns agree and the tree finds every block."""
        n = len(self)
        lengths = {len(c) for c in (self.ordinals, self.tails, self.numbers, self.corners)}
        if lengths != {n} or self.heads.shape != (-(-n // LANES), HEAD, LANES):
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
    tree.trim()
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
    order = sorting_order(signed)
    coded = CodeColumns(*words.shape)
    coded.take_packed(words, order)
    ordered = np.ascontiguousarray(signed) if order is None else signed[order]
    return Segment(
        keys=ordered.copy() if order is None else ordered,
        ordinals=_gathered(np.asarray(ordinals, np.uint32), order),
        heads=coded.heads,
        tails=coded.tails,
        numbers=_gathered(_narrowed(numbers), order),
        corners=_gathered(np.asarray(corners, np.int32), order),
        tree=tree_over(ordered),
        code_bytes=codes.shape[1],
    )


def columns_for(
    n_rows: int, code_bytes: int, number_type: npt.DTypeLike
) -> dict[str, npt.NDArray[Any]]:
    """Return a segment's columns for rows to come, uninitialised, by name; see `segment_from`."""
    if np.dtype(number_type) not in (np.dtype(np.uint16), np.dtype(np.uint32)):
        raise Corrupt(f"patch numbers are uint16 or uint32; found {number_type}")
    return {
        "keys": aligned_empty((n_rows,), np.int64),
        "ordinals": aligned_empty((n_rows,), np.uint32),
        "heads": empty_heads(n_rows),
        "tails": aligned_empty((n_rows, max(0, code_bytes // 8 - HEAD)), np.int64),
        "numbers": aligned_empty((n_rows,), number_type),
        "corners": aligned_empty((n_rows, 2), np.int32),
    }


def segment_from(columns: dict[str, npt.NDArray[Any]], code_bytes: int) -> Segment:
    """Return the segment of columns that are as a segment keeps them; nothing is copied.

    Raises
    ------
    Corrupt
        If the keys do not ascend within the universe.
    """
    keys = columns["keys"]
    if len(keys) and (keys[0] < 0 or keys[-1] >= UNIVERSE or (keys[1:] < keys[:-1]).any()):
        raise Corrupt(f"segment keys must ascend within 0..{UNIVERSE - 1}; rebuild from the store")
    return Segment(**columns, tree=tree_over(keys), code_bytes=code_bytes)


def sorting_order(keys: npt.NDArray[np.int64]) -> npt.NDArray[np.int64] | None:
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
    for start in range(0, len(column), CHUNK_ROWS):
        part = slice(start, start + CHUNK_ROWS)
        out[part] = column[part] if order is None else column[order[part]]
    return out


def heads_of(words: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the first seven words of codes (n, words), padded with zeros where there are fewer."""
    heads = np.zeros((len(words), HEAD), np.int64)
    heads[:, : words.shape[1]] = words[:, :HEAD]
    return heads


def heads_at(heads: npt.NDArray[np.int64], rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the heads (n, 7) of rows."""
    return np.asarray(heads[rows // LANES, :, rows % LANES])
