"""Cursors: where the walks from each seed stand in every segment, and how far they reach.

All seeds of a patch are placed and their walks' reaches (see `reaches`) found before any code is looked
at: what is reached is then known ahead, so that the codes of the next walk can be on their way while the
present one is compared.
"""

# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from sish_cluster.shard.compiled import inner
from sish_cluster.shard.layout import (
    ALL_CURSORS,
    BLOCK_ROWS,
    CURSORS,
    KEYS,
    N_ROWS,
    N_SEGMENTS,
    QUERY_KEYS,
    SEEDS_PER_SIDE,
    STRIDE,
    TREE,
    field,
    first_of_block,
    representative_of,
    row_in_block,
)
from sish_cluster.shard.veb_neighbours import bring_around
from sish_cluster.shard.veb_nodes import PAYLOAD, ident_of
from sish_cluster.shard.veb_table import bring_entry
from sish_cluster.shard.words import CACHE_LINE_BYTES, prefetch, put_word, word_at

BACKWARD, FORWARD = 0, 1
"""Directions of a walk."""

FIRST, PAST, LOW, HIGH, N_CURSORS = range(5)
"""Cursors of a segment: where the seed's key starts and ends, and how far its two walks came."""

_KEYS_AHEAD = 384
"""Keys prefetched on each side of a seed's block: the published 375 steps."""


@inner
def cursor(task: int, name: int, s: int) -> int:
    """Return a cursor of a segment."""
    return word_at(word_at(task, CURSORS), s * N_CURSORS + name)


@inner
def set_cursor(task: int, name: int, s: int, row: int) -> None:
    """Move a cursor of a segment."""
    put_word(word_at(task, CURSORS), s * N_CURSORS + name, row)


@inner
def choose_seed(task: int, m: int) -> None:
    """Let the cursors be those of seed ``q + m C``, ``-T < m < T``."""
    number = m + word_at(task, SEEDS_PER_SIDE) - 1
    n_words = word_at(task, N_SEGMENTS) * N_CURSORS
    put_word(task, CURSORS, word_at(task, ALL_CURSORS) + 8 * number * n_words)


@inner
def seed_at(task: int, patch: int, m: int) -> int:
    """Return the seed ``q + m C`` of a patch; it may lie outside the universe."""
    return word_at(word_at(task, QUERY_KEYS), patch) + m * word_at(task, STRIDE)


@inner
def place_cursors(task: int, seed: int) -> None:
    """Set every segment's cursors to a seed, no step taken; FIRST is the first row of the seed's block."""
    for s in range(word_at(task, N_SEGMENTS)):
        first = row_in_block(task, s, seed, cursor(task, FIRST, s))
        past = first
        while past < field(task, s, N_ROWS) and word_at(field(task, s, KEYS), past) == seed:
            past += 1
        set_cursor(task, FIRST, s, first)
        set_cursor(task, LOW, s, first)
        set_cursor(task, PAST, s, past)
        set_cursor(task, HIGH, s, past)


@inner
def bring_keys(task: int, s: int, first: int) -> None:
    """Prefetch the keys around a block that starts at ``first``: as far as most walks reach."""
    start = max(first - _KEYS_AHEAD, 0)
    end = min(first + BLOCK_ROWS + _KEYS_AHEAD, field(task, s, N_ROWS))
    for row in range(start, end, CACHE_LINE_BYTES // 8):
        prefetch(field(task, s, KEYS) + 8 * row)


@inner
def find_blocks(task: int, patch: int) -> None:
    """Set FIRST of every seed and segment to the first row of the block the seed belongs to.

    In three rounds over all seeds, each prefetching what the next one reads: a seed alone would wait
    for memory five times.
    """
    seeds_per_side, n_segments = word_at(task, SEEDS_PER_SIDE), word_at(task, N_SEGMENTS)
    for m in range(1 - seeds_per_side, seeds_per_side):
        for s in range(n_segments):
            bring_around(field(task, s, TREE), seed_at(task, patch, m))
    for m in range(1 - seeds_per_side, seeds_per_side):
        choose_seed(task, m)
        for s in range(n_segments):
            representative = representative_of(task, s, seed_at(task, patch, m))
            set_cursor(task, FIRST, s, representative)
            if representative >= 0:
                bring_entry(field(task, s, TREE), ident_of(PAYLOAD, representative))
    for m in range(1 - seeds_per_side, seeds_per_side):
        choose_seed(task, m)
        for s in range(n_segments):
            first = first_of_block(task, s, cursor(task, FIRST, s))
            set_cursor(task, FIRST, s, first)
            bring_keys(task, s, first)
