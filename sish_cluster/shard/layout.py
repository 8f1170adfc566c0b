"""How kernels see segments and tasks: a table of addresses, a few whole numbers, growing outputs.

A *segment* is rows in key order. Codes are cut in two: a head of at most one cache line, and a tail that
is read only when the head leaves the bound open, which halves the memory a search streams. A van Emde
Boas tree over the first keys of blocks of rows finds where a key belongs.
"""

# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from typing import Any, NamedTuple

from sish_cluster.shard.compiled import inner
from sish_cluster.shard.veb_levels import tree_predecessor
from sish_cluster.shard.veb_nodes import PAYLOAD, ident_of
from sish_cluster.shard.veb_table import value_of
from sish_cluster.shard.words import half_at, popcount, word_at

KEYS, ORDINALS, HEADS, TAILS, N_ROWS, TREE, N_FIELDS = range(7)
"""Columns of the segment table: five addresses and the number of rows."""

BLOCK_ROWS = 64
"""Rows per representative in the tree: 512 bytes of keys, a handful of cache lines."""

HEAD_WORDS = 8
"""Most words of a code's head: 512 bits, one cache line."""

ROW_BITS = 40
"""A row's place is ``segment << ROW_BITS | row``."""


class Task(NamedTuple):
    """What the patches of one search share, as kernels read it.

    Parameters
    ----------
    segments
        int64 (n_segments, N_FIELDS).
    heads, tails
        int64 (n_patches, words): the query codes, cut like the segments' codes.
    keys
        int64 (n_patches,).
    is_eligible
        uint8 (n_ordinals,).
    all_eligible
        1 when every row is eligible, so that ordinals need not be read.
    seeds_per_side, stride, max_steps, max_distance
        The search's bounds; the stride in key units.
    """

    segments: Any
    heads: Any
    tails: Any
    keys: Any
    is_eligible: Any
    all_eligible: int
    seeds_per_side: int
    stride: int
    max_steps: int
    max_distance: int


class Sink(NamedTuple):
    """Where a kernel writes what it found; columns of equal capacity.

    Parameters
    ----------
    patches, groups, distances
        int32 (capacity,): the query patch; the acceptance a row belongs to (rows of equal distance at
        one key share it); Hamming bits.
    places
        int64 (capacity,): see `ROW_BITS`.
    spans
        int64 (span capacity, 3): segment, start and end row of what was examined.
    counts
        int64 (n_patches,): eligible postings examined.
    """

    patches: Any
    groups: Any
    distances: Any
    places: Any
    spans: Any
    counts: Any


@inner
def key_at(segments: Any, s: int, row: int) -> int:
    """Return the key of a row."""
    return word_at(segments[s, KEYS], row)


@inner
def is_eligible_row(task: Any, s: int, row: int) -> bool:
    """Whether a row's posting is eligible."""
    if task.all_eligible:
        return True
    return task.is_eligible[half_at(task.segments[s, ORDINALS], row)] != 0


@inner
def first_row_from(segments: Any, s: int, key: int) -> int:
    """Return the first row whose key is at least ``key`` (any int64); O(log log U)."""
    tree, n_rows = segments[s, TREE], segments[s, N_ROWS]
    representative = tree_predecessor(tree, key)
    if representative < 0:
        return 0
    low = value_of(tree, ident_of(PAYLOAD, representative), 0) * BLOCK_ROWS
    high = min(low + BLOCK_ROWS, n_rows)
    while low < high:
        middle = (low + high) >> 1
        if key_at(segments, s, middle) < key:
            low = middle + 1
        else:
            high = middle
    return low


@inner
def head_distance(task: Any, patch: int, address: int) -> int:
    """Return the Hamming distance of the heads of a query code and of the code at an address.

    Six of eight words decide nearly always: what is beyond the bound there is returned as it is.
    """
    heads = task.heads
    if heads.shape[1] != HEAD_WORDS:
        distance = 0
        for w in range(heads.shape[1]):
            distance += popcount(heads[patch, w] ^ word_at(address, w))
        return distance
    distance = (
        popcount(heads[patch, 0] ^ word_at(address, 0))
        + popcount(heads[patch, 1] ^ word_at(address, 1))
        + popcount(heads[patch, 2] ^ word_at(address, 2))
        + popcount(heads[patch, 3] ^ word_at(address, 3))
        + popcount(heads[patch, 4] ^ word_at(address, 4))
        + popcount(heads[patch, 5] ^ word_at(address, 5))
    )
    if distance > task.max_distance:
        return distance
    distance += popcount(heads[patch, 6] ^ word_at(address, 6))
    return distance + popcount(heads[patch, 7] ^ word_at(address, 7))


@inner
def tail_distance(task: Any, patch: int, s: int, row: int, bound: int) -> int:
    """Return the Hamming distance of the tails, or, once it exceeds the bound, some part of it."""
    words = task.tails.shape[1]
    address = task.segments[s, TAILS] + 8 * words * row
    distance = 0
    for w in range(words):
        distance += popcount(task.tails[patch, w] ^ word_at(address, w))
        if distance > bound:
            return distance
    return distance


@inner
def bounded_distance(task: Any, patch: int, s: int, row: int, bound: int) -> int:
    """Return the Hamming distance of a query code to a row's, exact where it is within the bound."""
    address = task.segments[s, HEADS] + 8 * task.heads.shape[1] * row
    distance = head_distance(task, patch, address)
    if distance > bound or task.tails.shape[1] == 0:
        return distance
    return distance + tail_distance(task, patch, s, row, bound - distance)
