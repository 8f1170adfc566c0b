"""The compiled entry points of the tree: arrays in, arrays out, one kernel per kind of work."""

# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from typing import Any

from sish_cluster.shard.compiled import inner, kernel
from sish_cluster.shard.veb_levels import tree_delete, tree_insert
from sish_cluster.shard.veb_neighbours import (
    begun_predecessor,
    begun_successor,
    bring_below,
    bring_end,
    bring_node,
    finished_predecessor,
    finished_successor,
    tree_contains,
    tree_successor,
)
from sish_cluster.shard.veb_nodes import PAYLOAD, A, D, T, ident_of
from sish_cluster.shard.veb_table import (
    SLOTS,
    TABLE,
    USED,
    bring_entry,
    set_entry,
    slot_of,
    value_of,
)
from sish_cluster.shard.words import word_at

CONTAINS, SUCCESSOR, PREDECESSOR, PAYLOADS = 0, 1, 2, 3
"""Questions `answer_keys` and `answer_neighbours` answer."""
ROOM = 16
"""Entries one insert may add at most: 3 for each of the four 12-bit nodes it can touch, 1 for A."""

_AHEAD = 12
"""Keys ahead of the present one whose table slots are prefetched, to overlap their cache misses."""


@inner
def bring_near(tree: int, keys: Any, i: int) -> None:
    """Prefetch the slots of the nodes and leaves that key number i is most likely to need."""
    if i < keys.size:
        key = keys[i]
        bring_entry(tree, ident_of(A, key >> 24))
        bring_entry(tree, ident_of(D, key >> 12))
        bring_entry(tree, ident_of(D + 2, key >> 6))
        bring_entry(tree, ident_of(T + 2, key >> 30))


@inner
def bring_ahead(tree: int, keys: Any, i: int) -> None:
    """Prefetch for changes of the keys after number i: of far ones the first entry, of near ones the next."""
    if i + 2 * _AHEAD < keys.size:
        bring_node(tree, keys[i + 2 * _AHEAD])
    if i + _AHEAD < keys.size:
        bring_below(tree, keys[i + _AHEAD])


@inner
def begin(tree: int, question: int, keys: Any, answers: Any, i: int) -> None:
    """Write the begun answer for key number i and prefetch its end."""
    if 0 <= i < keys.size:
        if question == SUCCESSOR:
            answers[i] = begun_successor(tree, keys[i])
        else:
            answers[i] = begun_predecessor(tree, keys[i])
        bring_end(tree, answers[i])


@kernel
def answer_neighbours(tree: int, question: int, keys: Any, answers: Any) -> None:
    """Answer SUCCESSOR or PREDECESSOR for every key (int64): a key, or -1.

    In four stages, some keys behind each other: prefetch the first entry, then the next ones, come as
    far as the last entry, read that.
    """
    for i in range(keys.size + 3 * _AHEAD):
        if i < keys.size:
            bring_node(tree, keys[i])
        if 0 <= i - _AHEAD < keys.size:
            bring_below(tree, keys[i - _AHEAD])
        begin(tree, question, keys, answers, i - 2 * _AHEAD)
        done = i - 3 * _AHEAD
        if done < 0:
            continue
        if question == SUCCESSOR:
            answers[done] = finished_successor(tree, answers[done])
        else:
            answers[done] = finished_predecessor(tree, answers[done])


@kernel
def answer_keys(tree: int, question: int, keys: Any, answers: Any) -> None:
    """Answer CONTAINS (0 or 1) or PAYLOADS (a number, or -1) for every key (int64)."""
    for i in range(keys.size):
        bring_near(tree, keys, i + _AHEAD)
        if question == PAYLOADS:
            answers[i] = value_of(tree, ident_of(PAYLOAD, keys[i]), -1)
        else:
            answers[i] = tree_contains(tree, keys[i])


@kernel
def insert_keys(tree: int, keys: Any, is_new: Any, start: int) -> int:
    """Insert keys (int64) from ``start`` on; return where it stopped for want of room."""
    most = word_at(tree, SLOTS) * 5 // 8 - ROOM
    for i in range(start, keys.size):
        if word_at(tree, USED) > most:
            return i
        bring_ahead(tree, keys, i)
        is_new[i] = tree_insert(tree, keys[i])
    return keys.size


@kernel
def delete_keys(tree: int, keys: Any, was_there: Any) -> None:
    """Delete keys (int64)."""
    for i in range(keys.size):
        bring_ahead(tree, keys, i)
        was_there[i] = tree_delete(tree, keys[i])


@kernel
def copy_entries(tree: int, larger: int) -> None:
    """Add every entry of a tree's table to another tree's."""
    for slot in range(word_at(tree, SLOTS)):
        ident = word_at(tree, TABLE + 2 * slot)
        if ident != 0:
            set_entry(larger, ident, word_at(tree, TABLE + 2 * slot + 1))


@kernel
def set_payloads(tree: int, keys: Any, payloads: Any) -> None:
    """Let a number ride with each key; a later number for a key replaces the earlier."""
    for i in range(keys.size):
        set_entry(tree, ident_of(PAYLOAD, keys[i]), payloads[i])


@kernel
def list_keys(tree: int, start: int, end: int, found: Any) -> int:
    """Write the keys of ``[start, end)`` in order into ``found``; return how many (until it is full).

    A damaged tree ends the list where it stops ascending.
    """
    n, before = 0, start - 1
    key = tree_successor(tree, before)
    while key > before and key < end and n < found.size:
        found[n] = before = key
        n += 1
        key = tree_successor(tree, key)
    return n


@kernel
def find_slots(tree: int, idents: Any, slots: Any) -> None:
    """Write the slot where each id is found (negative where it is not)."""
    for i in range(idents.size):
        slots[i] = slot_of(tree, idents[i])
