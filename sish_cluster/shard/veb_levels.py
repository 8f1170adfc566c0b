"""The upper levels of the van Emde Boas tree: 24 = 12 + 12 and 26 = 14 + 12 bits, and the root.

One set of functions serves both middle widths: an A node (24 bits, at a path) and the top summary
(26 bits, one, in the header). Each operation recurses into one cluster *or* into the summary, never both:
O(log log U) steps.
"""

# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from sish_cluster.shard.compiled import inner
from sish_cluster.shard.veb_nodes import (
    DONE,
    NOTHING,
    TURNED,
    A,
    B,
    D,
    T,
    bounds12,
    delete12,
    dense_after,
    dense_before,
    high_of,
    ident_of,
    insert12,
    low_of,
    set_dense,
)
from sish_cluster.shard.veb_table import (
    ABSENT,
    HIGH,
    LOW,
    N_KEYS,
    SUMMARY,
    remove_entry,
    set_entry,
    value_of,
)
from sish_cluster.shard.words import put_word, word_at

TOP = -1
"""The path that stands for the top summary; A nodes have paths from 0."""

LOW24 = (1 << 24) - 1
"""The lower 24 bits of a key: its place within an A node."""
LOW12 = (1 << 12) - 1
"""The lower 12 bits: a place within a cluster."""


@inner
def bounds_of(tree: int, path: int) -> int:
    """Return the packed bounds of an A node, or of the top summary."""
    return word_at(tree, SUMMARY) if path == TOP else value_of(tree, ident_of(A, path), ABSENT)


@inner
def set_bounds(tree: int, path: int, bounds: int) -> None:
    """Set the packed bounds of an A node or of the top summary; ABSENT removes it."""
    if path == TOP:
        put_word(tree, SUMMARY, bounds)
    elif bounds == ABSENT:
        remove_entry(tree, ident_of(A, path))
    else:
        set_entry(tree, ident_of(A, path), bounds)


@inner
def cluster_bounds(tree: int, path: int, high: int) -> int:
    """Return the packed bounds of a middle node's cluster, or ABSENT."""
    return bounds12(tree, T if path == TOP else D, high if path == TOP else (path << 12) | high)


@inner
def insert_mid(tree: int, path: int, x: int) -> int:
    """Add x to a middle node; TURNED when the node was empty."""
    bounds = bounds_of(tree, path)
    if bounds == ABSENT:
        set_bounds(tree, path, (x << 26) | x)
        return TURNED
    low, high = low_of(bounds), high_of(bounds)
    if x in (low, high):
        return NOTHING
    if x < low:
        low, x = x, low
    part = x >> 12
    if path == TOP:
        outcome = insert12(tree, T, part, x & LOW12)
    else:
        outcome = insert12(tree, D, (path << 12) | part, x & LOW12)
    if outcome == NOTHING:
        return NOTHING
    if outcome == TURNED and path == TOP:
        set_dense(tree, part, 1)
    elif outcome == TURNED:
        insert12(tree, B, path, part)
    if bounds != (max(high, x) << 26) | low:
        set_bounds(tree, path, (max(high, x) << 26) | low)
    return DONE


@inner
def _first_part(tree: int, path: int) -> int:
    """Return the number of a middle node's first non-empty cluster, or -1."""
    if path == TOP:
        return dense_after(tree, -1)
    summary = bounds12(tree, B, path)
    return -1 if summary == ABSENT else low_of(summary)


@inner
def _last_part(tree: int, path: int) -> int:
    """Return the number of a middle node's last non-empty cluster, or -1."""
    if path == TOP:
        return dense_before(tree, 1 << 14)
    summary = bounds12(tree, B, path)
    return -1 if summary == ABSENT else high_of(summary)


@inner
def delete_mid(tree: int, path: int, x: int) -> int:
    """Remove x from a middle node; TURNED when the node is now empty."""
    bounds = bounds_of(tree, path)
    low, high = low_of(bounds), high_of(bounds)
    if bounds == ABSENT or x < low or x > high:
        return NOTHING
    if low == high:
        set_bounds(tree, path, ABSENT)
        return TURNED
    if x == low:
        part = _first_part(tree, path)
        x = low = (part << 12) | low_of(cluster_bounds(tree, path, part))
    part = x >> 12
    if path == TOP:
        outcome = delete12(tree, T, part, x & LOW12)
    else:
        outcome = delete12(tree, D, (path << 12) | part, x & LOW12)
    if outcome == NOTHING:
        return NOTHING
    if outcome == TURNED and path == TOP:
        set_dense(tree, part, 0)
    elif outcome == TURNED:
        delete12(tree, B, path, part)
    if x == high:
        part = _last_part(tree, path)
        high = low
        if part >= 0:
            high = (part << 12) | high_of(cluster_bounds(tree, path, part))
    if bounds != (high << 26) | low:
        set_bounds(tree, path, (high << 26) | low)
    return DONE


@inner
def tree_insert(tree: int, x: int) -> bool:
    """Add the key x; whether it was new."""
    n_keys = word_at(tree, N_KEYS)
    low, high = word_at(tree, LOW), word_at(tree, HIGH)
    if n_keys == 0:
        low = high = x
    elif x in (low, high):
        return False
    else:
        kept = x
        if x < low:
            kept, low = low, x
        outcome = insert_mid(tree, kept >> 24, kept & LOW24)
        if outcome == NOTHING:
            return False
        if outcome == TURNED:
            insert_mid(tree, TOP, kept >> 24)
        high = max(high, kept)
    put_word(tree, LOW, low)
    put_word(tree, HIGH, high)
    put_word(tree, N_KEYS, n_keys + 1)
    return True


@inner
def tree_delete(tree: int, x: int) -> bool:
    """Remove the key x; whether it was there."""
    n_keys, low, high = word_at(tree, N_KEYS), word_at(tree, LOW), word_at(tree, HIGH)
    if n_keys == 0 or x < low or x > high or (low == high and x != low):
        return False
    if low != high:
        if x == low:
            part = low_of(word_at(tree, SUMMARY))
            x = low = (part << 24) | low_of(bounds_of(tree, part))
        outcome = delete_mid(tree, x >> 24, x & LOW24)
        if outcome == NOTHING:
            return False
        if outcome == TURNED:
            delete_mid(tree, TOP, x >> 24)
        if x == high:
            summary = word_at(tree, SUMMARY)
            high = low
            if summary != ABSENT:
                part = high_of(summary)
                high = (part << 24) | high_of(bounds_of(tree, part))
    put_word(tree, LOW, low)
    put_word(tree, HIGH, high)
    put_word(tree, N_KEYS, n_keys - 1)
    return True
