"""How kernels see segments and tasks: blocks of whole numbers, some of which are addresses.

A *segment* is rows in key order. Codes are cut in two: a head of seven words, and a tail that is read only
when the head leaves the bound open, which halves the memory a search streams. A van Emde
Boas tree over the first keys of blocks of rows finds where a key belongs.

A *task* is one block of int64 that tells a kernel everything: numba counts references of arrays at every
call, which costs more than a walk's step, so kernels get no arrays at all.
"""

# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from sish_cluster.shard.compiled import inner
from sish_cluster.shard.veb_neighbours import tree_predecessor
from sish_cluster.shard.veb_nodes import PAYLOAD, ident_of
from sish_cluster.shard.veb_table import value_of
from sish_cluster.shard.words import byte_at, half_at, popcount, put_word, word_at

KEYS, ORDINALS, HEADS, TAILS, N_ROWS, TREE, NUMBERS, NUMBER_BYTES, CORNERS, N_FIELDS = range(10)
"""Columns of the segment table: addresses of four columns, the number of rows, the tree's address, the
addresses of patch numbers, how many bytes one has, and of corners."""

(
    SEGMENTS,
    N_SEGMENTS,
    ELIGIBLE,
    ALL_ELIGIBLE,
    SEEDS_PER_SIDE,
    STRIDE,
    MAX_STEPS,
    MAX_DISTANCE,
    QUERY_KEYS,
    QUERY_HEADS,
    QUERY_TAILS,
    TAIL_WORDS,
    N_PATCHES,
    BOUNDS,
    COUNTS,
    HITS,
    HIT_CAPACITY,
    SPANS,
    ALL_CURSORS,
    CURSORS,
    ACCEPTED,
    N_ACCEPTED,
    LEAST_ACCEPTED,
    MOST_ACCEPTED,
    N_TASK,
) = range(25)
"""Words of a task. Four say what is searched: the address of the segment table, how many segments, the
address of one byte per ordinal (1 where eligible), whether all rows are eligible. Four are the search's
bounds. The patches: addresses of keys, code heads and tails, words of a tail, how many, addresses of
present bounds and of counts. Then addresses of what is written: hits (and how many there is room for),
spans, cursors of all seeds and of the present one; and the keys accepted, how many, and their range."""

BLOCK_ROWS = 128
"""Rows per representative in the tree: 1 KB of keys, of which a search touches a few cache lines."""

HEAD = 7
"""Words of a code's head: 448 bits, enough to tell most codes from the query's; shorter codes are padded
with zeros. Heads of four rows are interleaved: word 0 of all four, then word 1 of all four, ..."""

LANES = 4
"""Rows whose heads are interleaved and compared at once."""

ROW_BITS = 40
"""A row's place is ``segment << ROW_BITS | row``."""

HIT_WORDS = 3
"""Words of a hit: patch << 32 | group, place, distance. Rows of one acceptance share a group."""

SPAN_WORDS = 3
"""Words of a span of rows examined: segment, start, end."""


@inner
def field(task: int, s: int, name: int) -> int:
    """Return a field of a segment."""
    return word_at(word_at(task, SEGMENTS), s * N_FIELDS + name)


@inner
def is_eligible_row(task: int, s: int, row: int) -> bool:
    """Whether a row's posting is eligible."""
    if word_at(task, ALL_ELIGIBLE):
        return True
    return byte_at(word_at(task, ELIGIBLE), half_at(field(task, s, ORDINALS), row)) != 0


@inner
def keep_hit(task: int, at: int, hit: tuple[int, int, int, int, int]) -> None:
    """Write hit number ``at``: (patch, group, segment, row, distance)."""
    patch, group, s, row, distance = hit
    hits = word_at(task, HITS) + 8 * HIT_WORDS * at
    put_word(hits, 0, (patch << 32) | group)
    put_word(hits, 1, (s << ROW_BITS) | row)
    put_word(hits, 2, distance)


@inner
def first_row_from(task: int, s: int, key: int) -> int:
    """Return the first row whose key is at least ``key`` (any int64); O(log log U)."""
    return row_in_block(task, s, key, first_of_block(task, s, representative_of(task, s, key)))


@inner
def representative_of(task: int, s: int, key: int) -> int:
    """Return the greatest first key of a block that is below ``key``, or -1."""
    return tree_predecessor(field(task, s, TREE), key)


@inner
def first_of_block(task: int, s: int, representative: int) -> int:
    """Return the first row of the last block that starts with a representative; 0 for -1."""
    if representative < 0:
        return 0
    return BLOCK_ROWS * value_of(field(task, s, TREE), ident_of(PAYLOAD, representative), 0)


@inner
def row_in_block(task: int, s: int, key: int, low: int) -> int:
    """Return the first row whose key is at least ``key``, in the block that starts at ``low``."""
    keys, high = field(task, s, KEYS), min(low + BLOCK_ROWS, field(task, s, N_ROWS))
    while low < high:
        middle = (low + high) >> 1
        if word_at(keys, middle) < key:
            low = middle + 1
        else:
            high = middle
    return low


@inner
def words_apart(left: int, right: int, n_words: int, bound: int) -> int:
    """Return the Hamming distance of words at two addresses, or, beyond the bound, some part of it."""
    distance = 0
    for w in range(n_words):
        distance += popcount(word_at(left, w) ^ word_at(right, w))
        if distance > bound:
            return distance
    return distance


@inner
def query_head(task: int, patch: int) -> tuple[int, int, int, int, int, int, int]:
    """Return the seven words of a patch's head."""
    head = word_at(task, QUERY_HEADS) + 8 * HEAD * patch
    upper = (word_at(head, 3), word_at(head, 4), word_at(head, 5), word_at(head, 6))
    return (word_at(head, 0), word_at(head, 1), word_at(head, 2), *upper)


@inner
def head_apart(task: int, patch: int, s: int, row: int) -> int:
    """Return the Hamming distance of the heads of a patch's code and of a row's."""
    query = word_at(task, QUERY_HEADS) + 8 * HEAD * patch
    lanes = field(task, s, HEADS) + 8 * (HEAD * LANES * (row // LANES) + row % LANES)
    distance = 0
    for w in range(HEAD):
        distance += popcount(word_at(query, w) ^ word_at(lanes, LANES * w))
    return distance


@inner
def bounded_distance(task: int, patch: int, s: int, row: int, bound: int) -> int:
    """Return the Hamming distance of a patch's code to a row's, exact where it is within the bound."""
    distance, n_tail = head_apart(task, patch, s, row), word_at(task, TAIL_WORDS)
    if distance > bound or n_tail == 0:
        return distance
    query = word_at(task, QUERY_TAILS) + 8 * n_tail * patch
    tail = field(task, s, TAILS) + 8 * n_tail * row
    return distance + words_apart(tail, query, n_tail, bound - distance)
