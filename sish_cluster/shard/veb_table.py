"""The one hash table a van Emde Boas tree lives in.

A tree is one int64 array: a header, the dense top summary, then the table. An entry is two words, an id
and a value; an id is a node's tag and its path from the root, so nodes need neither pointers nor a pool.
Id 0 is an empty slot. Collisions go to the next slot; removal moves later entries back, so there are no
tombstones and the table never ages.
"""

# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from sish_cluster.shard.compiled import inner
from sish_cluster.shard.words import mixed_bits, prefetch, put_word, word_at

SLOTS = 0
"""Header word: slots of the table."""
USED = 1
"""Header word: entries in the table."""
N_KEYS = 2
"""Header word: keys in the tree."""
LOW = 3
"""Header word: the tree's smallest key; it is stored nowhere else."""
HIGH = 4
"""Header word: the tree's greatest key."""
SUMMARY = 5
"""Header word: the packed bounds of the top summary (2**26 cluster numbers), or `ABSENT`."""
DENSE = 8
"""First word of the dense bitmap under the top summary: 256 words, then 4 words, then 1."""
TABLE = 272
"""First word of the table."""

ABSENT = -1
"""Packed bounds of a node that does not exist."""

TAG_SHIFT = 52
"""An id is ``tag << TAG_SHIFT | path``; a path has at most 50 bits."""


@inner
def home_slot(tree: int, ident: int) -> int:
    """Return the slot where the search for an id starts."""
    return (mixed_bits(ident) * word_at(tree, SLOTS)) >> 32


@inner
def bring_entry(tree: int, ident: int) -> None:
    """Prefetch the slot where the search for an id starts."""
    prefetch(tree + 8 * (TABLE + 2 * home_slot(tree, ident)))


@inner
def slot_of(tree: int, ident: int) -> int:
    """Return the slot of an id, or ``-1 - slot`` with the empty slot where it would go."""
    slots = word_at(tree, SLOTS)
    slot = home_slot(tree, ident)
    while True:
        found = word_at(tree, TABLE + 2 * slot)
        if found == ident:
            return slot
        if found == 0:
            return -1 - slot
        slot += 1
        if slot == slots:
            slot = 0


@inner
def value_at(tree: int, slot: int) -> int:
    """Return the value in a slot."""
    return word_at(tree, TABLE + 2 * slot + 1)


@inner
def set_value(tree: int, slot: int, value: int) -> None:
    """Replace the value in a slot."""
    put_word(tree, TABLE + 2 * slot + 1, value)


@inner
def value_of(tree: int, ident: int, otherwise: int) -> int:
    """Return the value of an id, or ``otherwise`` when it has no entry."""
    slot = slot_of(tree, ident)
    return value_at(tree, slot) if slot >= 0 else otherwise


@inner
def set_at(tree: int, slot: int, ident: int, value: int) -> None:
    """Set the value of an id whose slot `slot_of` has just told, adding its entry when there is none.

    The table must have room.
    """
    if slot < 0:
        slot = -1 - slot
        put_word(tree, TABLE + 2 * slot, ident)
        put_word(tree, USED, word_at(tree, USED) + 1)
    set_value(tree, slot, value)


@inner
def set_entry(tree: int, ident: int, value: int) -> None:
    """Set the value of an id, adding its entry when there is none; the table must have room."""
    set_at(tree, slot_of(tree, ident), ident, value)


@inner
def remove_slot(tree: int, slot: int) -> None:
    """Empty a slot and move back the entries that were pushed past it."""
    slots = word_at(tree, SLOTS)
    put_word(tree, USED, word_at(tree, USED) - 1)
    hole, probe = slot, slot
    while True:
        probe += 1
        if probe == slots:
            probe = 0
        ident = word_at(tree, TABLE + 2 * probe)
        if ident == 0:
            break
        home = home_slot(tree, ident)
        reach = probe - home if probe >= home else probe - home + slots
        gap = probe - hole if probe >= hole else probe - hole + slots
        if reach >= gap:
            put_word(tree, TABLE + 2 * hole, ident)
            set_value(tree, hole, value_at(tree, probe))
            hole = probe
    put_word(tree, TABLE + 2 * hole, 0)


@inner
def remove_entry(tree: int, ident: int) -> None:
    """Remove the entry of an id that has one."""
    remove_slot(tree, slot_of(tree, ident))
