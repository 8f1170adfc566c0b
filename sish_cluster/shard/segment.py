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
from sish_cluster.shard.layout import BLOCK_ROWS, HEAD, LANES
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
        columns = (self.keys, self.ordinals, self.heads, self.tails)
        return [*(column.ctypes.data for column in columns), len(self), self.tree.address]

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
    ordered = np.ascontiguousarray(signed) if order is None else signed[order]
    return Segment(
        keys=ordered.copy() if order is None else ordered,
        ordinals=_gathered(np.asarray(ordinals, np.uint32), order),
        heads=_interleaved(words, order),
        tails=_gathered(words[:, HEAD:], order),
        numbers=_gathered(_narrowed(numbers), order),
        corners=_gathered(np.asarray(corners, np.int32), order),
        tree=tree_over(ordered),
        code_bytes=codes.shape[1],
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


def heads_of(words: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the first seven words of codes (n, words), padded with zeros where there are fewer."""
    heads = np.zeros((len(words), HEAD), np.int64)
    heads[:, : words.shape[1]] = words[:, :HEAD]
    return heads


def heads_at(heads: npt.NDArray[np.int64], rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the heads (n, 7) of rows."""
    return np.asarray(heads[rows // LANES, :, rows % LANES])


def _empty_heads(n: int) -> npt.NDArray[np.int64]:
    heads = aligned_empty((-(-n // LANES), HEAD, LANES), np.int64)
    heads[-1:] = 0
    return heads


def _interleaved(
    words: npt.NDArray[np.int64], order: npt.NDArray[np.int64] | None
) -> npt.NDArray[np.int64]:
    """Return the heads of codes in ``order``, four rows interleaved."""
    heads = _empty_heads(len(words))
    for start in range(0, len(words), _CHUNK_ROWS):
        part = slice(start, start + _CHUNK_ROWS)
        some = heads_of(words[part] if order is None else words[order[part], :HEAD])
        groups = slice(start // LANES, -(-(start + len(some)) // LANES))
        padded = np.zeros((LANES * (groups.stop - groups.start), HEAD), np.int64)
        padded[: len(some)] = some
        heads[groups] = padded.reshape(-1, LANES, HEAD).transpose(0, 2, 1)
    return heads


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
        for name in ("ordinals", "tails", "numbers", "corners")
    }
    heads = _scattered_heads([s.heads for s in segments], kept, [len(s) for s in segments], places)
    tree, code_bytes = tree_over(keys), segments[0].code_bytes
    return Segment(keys=keys, heads=heads, tree=tree, code_bytes=code_bytes, **columns)


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


def _scattered_heads(
    sources: Sequence[npt.NDArray[np.int64]],
    kept: Sequence[npt.NDArray[np.int64] | None],
    lengths: Sequence[int],
    places: npt.NDArray[np.int64],
) -> npt.NDArray[np.int64]:
    """Return `_scattered` for interleaved heads."""
    out = _empty_heads(len(places))
    done = 0
    for heads, rows, length in zip(sources, kept, lengths, strict=True):
        n = length if rows is None else len(rows)
        for start in range(0, n, _CHUNK_ROWS):
            end = min(start + _CHUNK_ROWS, n)
            chosen = np.arange(start, end) if rows is None else rows[start:end]
            there = places[done + start : done + end]
            out[there // LANES, :, there % LANES] = heads_at(heads, chosen)
        done += n
    return out
