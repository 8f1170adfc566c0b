"""The lower nodes of the van Emde Boas tree: 12 = 6 + 6 bits, and the dense 14 = 8 + 6.

The recursion halves: 50 = 26 + 24 bits, 24 = 12 + 12, 26 = 14 + 12, 12 = 6 + 6. Every node keeps its smallest and greatest element; the smallest is kept nowhere below, so a cluster with
one element is one table entry and an insert into an empty cluster is O(1): that is what makes all
operations O(log log U). Bounds are packed as ``high << 26 | low``. Leaves are 64-bit words.

Node families: A (24 bits, one per value of a key's upper 26 bits), its summary B and its clusters D
(12 bits each), the top summary (26 bits, one, in the header) with clusters T (12 bits) over a dense
bitmap of 2**14. A 12-bit node has three tags in a row: its bounds, its summary word, its leaf words.

Source
------
van Emde Boas, "Preserving order in a forest in less than logarithmic time", 1975.
"""

# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from sish_cluster.shard.compiled import inner
from sish_cluster.shard.veb_table import (
    ABSENT,
    DENSE,
    TAG_SHIFT,
    remove_slot,
    set_at,
    set_entry,
    set_value,
    slot_of,
    value_at,
    value_of,
)
from sish_cluster.shard.words import first_bit, last_bit, put_word, word_at

A, B, D, T = 1, 2, 5, 8
"""Tags of node families; B, D and T own the two tags that follow theirs as well."""
PAYLOAD = 11
"""Tag of the number that may ride with a key."""

NOTHING, DONE, TURNED = 0, 1, 2
"""Outcomes of a change: there was nothing to do; done; done, and the node turned empty or non-empty."""

_BOUND = (1 << 26) - 1


@inner
def ident_of(tag: int, path: int) -> int:
    """Return the id of a node."""
    return (tag << TAG_SHIFT) | path


@inner
def low_of(bounds: int) -> int:
    """Return the smallest element of packed bounds."""
    return bounds & _BOUND


@inner
def high_of(bounds: int) -> int:
    """Return the greatest element of packed bounds."""
    return bounds >> 26


@inner
def bounds12(tree: int, tag: int, path: int) -> int:
    """Return the packed bounds of a 12-bit node, or ABSENT."""
    return value_of(tree, ident_of(tag, path), ABSENT)


@inner
def leaf12(tree: int, tag: int, path: int, high: int) -> int:
    """Return a leaf word of a 12-bit node; 0 when there is none."""
    return value_of(tree, ident_of(tag + 2, (path << 6) | high), 0)


@inner
def successor12(tree: int, tag: int, path: int, x: int) -> int:
    """Return the element after x of a 12-bit node whose greatest element exceeds x."""
    bounds = bounds12(tree, tag, path)
    if x < low_of(bounds):
        return low_of(bounds)
    high = x >> 6
    word = leaf12(tree, tag, path, high) & (-2 << (x & 63))
    if word == 0:
        summary = value_of(tree, ident_of(tag + 1, path), 0) & (-2 << high)
        high = first_bit(summary)
        word = leaf12(tree, tag, path, high)
    return (high << 6) | first_bit(word)


@inner
def predecessor12(tree: int, tag: int, path: int, x: int) -> int:
    """Return the element before x of a 12-bit node whose smallest element is below x."""
    bounds = bounds12(tree, tag, path)
    if x > high_of(bounds):
        return high_of(bounds)
    high = x >> 6
    word = leaf12(tree, tag, path, high) & ~(-1 << (x & 63))
    if word == 0:
        summary = value_of(tree, ident_of(tag + 1, path), 0) & ~(-1 << high)
        if summary == 0:
            return low_of(bounds)
        high = last_bit(summary)
        word = leaf12(tree, tag, path, high)
    return (high << 6) | last_bit(word)


@inner
def insert12(tree: int, tag: int, path: int, x: int) -> int:
    """Add x to a 12-bit node; TURNED when the node was empty."""
    ident = ident_of(tag, path)
    slot = slot_of(tree, ident)
    if slot < 0:
        set_at(tree, slot, ident, (x << 26) | x)
        return TURNED
    low, high = low_of(value_at(tree, slot)), high_of(value_at(tree, slot))
    if x in (low, high):
        return NOTHING
    if x < low:
        low, x = x, low
    if not _set_leaf(tree, tag, path, x):
        return NOTHING
    set_value(tree, slot, (max(high, x) << 26) | low)
    return DONE


@inner
def _set_leaf(tree: int, tag: int, path: int, x: int) -> bool:
    """Set x in the leaves of a 12-bit node, and its summary bit with the first; whether it was clear."""
    ident, bit = ident_of(tag + 2, (path << 6) | (x >> 6)), 1 << (x & 63)
    slot = slot_of(tree, ident)
    if slot >= 0:
        word = value_at(tree, slot)
        set_value(tree, slot, word | bit)
        return not word & bit
    set_at(tree, slot, ident, bit)
    ident, bit = ident_of(tag + 1, path), 1 << (x >> 6)
    slot = slot_of(tree, ident)
    set_at(tree, slot, ident, bit if slot < 0 else value_at(tree, slot) | bit)
    return True


@inner
def _clear_leaf(tree: int, tag: int, path: int, x: int) -> bool:
    """Clear x in the leaves of a 12-bit node, and its summary bit with the last; whether it was set."""
    slot = slot_of(tree, ident_of(tag + 2, (path << 6) | (x >> 6)))
    bit = 1 << (x & 63)
    if slot < 0 or not value_at(tree, slot) & bit:
        return False
    word = value_at(tree, slot) & ~bit
    if word:
        set_value(tree, slot, word)
        return True
    remove_slot(tree, slot)
    slot = slot_of(tree, ident_of(tag + 1, path))
    word = value_at(tree, slot) & ~(1 << (x >> 6))
    if word:
        set_value(tree, slot, word)
    else:
        remove_slot(tree, slot)
    return True


@inner
def delete12(tree: int, tag: int, path: int, x: int) -> int:
    """Remove x from a 12-bit node; TURNED when the node is now empty."""
    slot = slot_of(tree, ident_of(tag, path))
    if slot < 0:
        return NOTHING
    bounds = value_at(tree, slot)
    low, high = low_of(bounds), high_of(bounds)
    if x < low or x > high or (low == high and x != low):
        return NOTHING
    if low == high:
        remove_slot(tree, slot)
        return TURNED
    if x == low:
        part = first_bit(value_of(tree, ident_of(tag + 1, path), 0))
        x = low = (part << 6) | first_bit(leaf12(tree, tag, path, part))
    if not _clear_leaf(tree, tag, path, x):
        return NOTHING
    if x == high:
        summary = value_of(tree, ident_of(tag + 1, path), 0)
        high = low
        if summary:
            part = last_bit(summary)
            high = (part << 6) | last_bit(leaf12(tree, tag, path, part))
    if bounds != (high << 26) | low:
        set_entry(tree, ident_of(tag, path), (high << 26) | low)
    return DONE


@inner
def dense_after(tree: int, x: int) -> int:
    """Return the element after x of the dense 14-bit bitmap, which has one; x may be -1."""
    high = x >> 6
    word = word_at(tree, DENSE + max(high, 0)) & (-1 if x < 0 else -2 << (x & 63))
    if x < 0:
        high = 0
    if word == 0:
        middle = word_at(tree, DENSE + 256 + (high >> 6)) & (-2 << (high & 63))
        top = high >> 6
        if middle == 0:
            top = first_bit(word_at(tree, DENSE + 260) & (-2 << top))
            middle = word_at(tree, DENSE + 256 + top)
        high = (top << 6) | first_bit(middle)
        word = word_at(tree, DENSE + high)
    return (high << 6) | first_bit(word)


@inner
def dense_before(tree: int, x: int) -> int:
    """Return the element before x of the dense 14-bit bitmap, or -1."""
    word = word_at(tree, DENSE + (x >> 6)) & ~(-1 << (x & 63))
    high = x >> 6
    if word == 0:
        middle = word_at(tree, DENSE + 256 + (high >> 6)) & ~(-1 << (high & 63))
        top = high >> 6
        if middle == 0:
            above = word_at(tree, DENSE + 260) & ~(-1 << top)
            if above == 0:
                return -1
            top = last_bit(above)
            middle = word_at(tree, DENSE + 256 + top)
        high = (top << 6) | last_bit(middle)
        word = word_at(tree, DENSE + high)
    return (high << 6) | last_bit(word)


@inner
def set_dense(tree: int, x: int, bit: int) -> None:
    """Set (bit 1) or clear (bit 0) x in the dense 14-bit bitmap and in the two words above it."""
    place, size = DENSE, 256
    while True:
        word = word_at(tree, place + (x >> 6))
        word = word | (1 << (x & 63)) if bit else word & ~(1 << (x & 63))
        put_word(tree, place + (x >> 6), word)
        if size == 1 or (bit == 0 and word != 0):
            return
        place, size, x = place + size, size // 64 if size > 4 else 1, x >> 6
