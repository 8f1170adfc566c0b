"""What a van Emde Boas tree must look like, written from the definition and compared entry by entry.

Given its keys, every node of the tree is determined: bounds, summary and leaf words. This is the plain
recursive definition in Python, sharing no code with the compiled tree; it costs some microseconds per key.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from sish_cluster.core.errors import Corrupt
from sish_cluster.shard.veb_kernels import find_slots
from sish_cluster.shard.veb_nodes import PAYLOAD, A, B, D, T
from sish_cluster.shard.veb_table import (
    ABSENT,
    DENSE,
    HIGH,
    LOW,
    N_KEYS,
    SLOTS,
    SUMMARY,
    TABLE,
    TAG_SHIFT,
    USED,
)

Entries = dict[int, int]


def check_tree(block: npt.NDArray[np.int64], keys: npt.NDArray[np.int64]) -> None:
    """Raise `Corrupt` unless ``block`` is exactly the tree of ``keys``, as its iteration listed them."""
    _must(bool((np.diff(keys) > 0).all()), "keys do not ascend strictly")
    _must(len(keys) == block[N_KEYS], f"{block[N_KEYS]} keys counted, {len(keys)} listed")
    entries = _entries_found(block)
    _must(len(entries) == block[USED], f"{block[USED]} entries counted, {len(entries)} found")
    wanted: Entries = {}
    summary, dense = _expected(keys.tolist(), wanted)
    if len(keys):
        _must(block[LOW] == keys[0] and block[HIGH] == keys[-1], "the root's bounds are wrong")
    _must(block[SUMMARY] == summary, "the top summary's bounds are wrong")
    _must(_dense_of(block) == dense, "the dense bitmap is wrong")
    nodes = {ident: value for ident, value in entries.items() if ident >> TAG_SHIFT != PAYLOAD}
    for ident in sorted(nodes.keys() ^ wanted.keys())[:1]:
        _must(False, f"node {ident:#x} is {'spurious' if ident in nodes else 'missing'}")
    for ident, value in wanted.items():
        _must(nodes[ident] == value, f"node {ident:#x} holds {nodes[ident]:#x}, not {value:#x}")


def _must(holds: bool, what: str) -> None:
    if not holds:
        raise Corrupt(f"van Emde Boas tree: {what}; rebuild the index from the store")


def _entries_found(block: npt.NDArray[np.int64]) -> Entries:
    """Return the table's entries; each must be reachable from its home without crossing an empty slot."""
    table = block[TABLE:].reshape(int(block[SLOTS]), 2)
    filled = np.flatnonzero(table[:, 0])
    slots = np.empty(len(filled), np.int64)
    find_slots(int(block.ctypes.data), np.ascontiguousarray(table[filled, 0]), slots)
    _must(bool((slots == filled).all()), "an entry cannot be reached from its home slot")
    return dict(zip(table[filled, 0].tolist(), table[filled, 1].tolist(), strict=True))


def _dense_of(block: npt.NDArray[np.int64]) -> list[set[int]]:
    parts = (
        block[DENSE : DENSE + 256],
        block[DENSE + 256 : DENSE + 260],
        block[DENSE + 260 : DENSE + 261],
    )
    bits = (np.unpackbits(part.view(np.uint8), bitorder="little") for part in parts)
    return [set(np.flatnonzero(row).tolist()) for row in bits]


def _expected(keys: list[int], wanted: Entries) -> tuple[int, list[set[int]]]:
    """Return the top summary's bounds and dense bitmaps, and add every other node to ``wanted``."""
    tops = []
    for high, lows in _clusters(keys[1:], 24):
        tops.append(high)
        _add_node24(high, lows, wanted)
    if not tops:
        return ABSENT, [set(), set(), set()]
    parts = []
    for high, lows in _clusters(tops[1:], 12):
        parts.append(high)
        _add_node12(T, high, lows, wanted)
    dense = [set(parts), {part >> 6 for part in parts}, {part >> 12 for part in parts}]
    return _bounds(tops), dense


def _add_node24(path: int, elements: list[int], wanted: Entries) -> None:
    wanted[A << TAG_SHIFT | path] = _bounds(elements)
    parts = []
    for high, lows in _clusters(elements[1:], 12):
        parts.append(high)
        _add_node12(D, path << 12 | high, lows, wanted)
    if parts:
        _add_node12(B, path, parts, wanted)


def _add_node12(tag: int, path: int, elements: list[int], wanted: Entries) -> None:
    wanted[tag << TAG_SHIFT | path] = _bounds(elements)
    highs = []
    for high, lows in _clusters(elements[1:], 6):
        highs.append(high)
        wanted[(tag + 2) << TAG_SHIFT | path << 6 | high] = _word(lows)
    if highs:
        wanted[(tag + 1) << TAG_SHIFT | path] = _word(highs)


def _clusters(elements: Sequence[int], low_bits: int) -> list[tuple[int, list[int]]]:
    grouped = itertools.groupby(elements, key=lambda element: element >> low_bits)
    return [(high, [e & ((1 << low_bits) - 1) for e in group]) for high, group in grouped]


def _bounds(elements: Sequence[int]) -> int:
    return elements[-1] << 26 | elements[0]


def _word(bits: Sequence[int]) -> int:
    """Return the word with these bits set, as a signed 64-bit value."""
    word = sum(1 << bit for bit in bits)
    return word - (1 << 64) if word >> 63 else word
