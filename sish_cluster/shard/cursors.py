"""Cursors: where the walks from each seed stand in every segment, and how far they reach.

All seeds of a patch are placed and their walks' reaches found before any code is looked at: what is
reached is then known ahead, so that the codes of the next walk can be on their way while the present one
is compared. A walk over several segments takes runs: the rows of the segment whose key is nearest, up to
the nearest key of any other.
"""

# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from sish_cluster.shard.compiled import inner
from sish_cluster.shard.layout import (
    ALL_CURSORS,
    ALL_ELIGIBLE,
    BLOCK_ROWS,
    CURSORS,
    KEYS,
    MAX_STEPS,
    N_ROWS,
    N_SEGMENTS,
    QUERY_KEYS,
    SEEDS_PER_SIDE,
    STRIDE,
    TREE,
    field,
    first_of_block,
    is_eligible_row,
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

_NO_KEY = 1 << 62
"""Above every key."""

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


@inner
def reach_everything(task: int, patch: int) -> None:
    """Place the seeds of a patch and find how far the walks from each of them reach."""
    find_blocks(task, patch)
    for m in range(1 - word_at(task, SEEDS_PER_SIDE), word_at(task, SEEDS_PER_SIDE)):
        choose_seed(task, m)
        place_cursors(task, seed_at(task, patch, m))
        reach(task, BACKWARD)
        reach(task, FORWARD)


@inner
def reach(task: int, way: int) -> None:
    """Walk ``max_steps`` eligible keys one way."""
    if word_at(task, N_SEGMENTS) == 1 and word_at(task, ALL_ELIGIBLE):
        if way == BACKWARD:
            reach_back(task)
        else:
            reach_on(task)
        return
    left = word_at(task, MAX_STEPS)
    while left > 0:
        s, nearest, other = nearest_keys(task, way)
        if s < 0:
            return
        if nearest == other:
            left -= step_over(task, way, nearest)
        else:
            left = take_run(task, way, s, other, left)


@inner
def reach_back(task: int) -> None:
    """Walk ``max_steps`` keys backward in the one segment there is, all of whose rows are eligible.

    As many rows as keys are wanted are taken at once, and their distinct keys counted: a loop without
    branches, eight rows at a time.
    """
    keys, first, left = field(task, 0, KEYS), cursor(task, FIRST, 0), word_at(task, MAX_STEPS)
    row = first
    while left > 0 and row > 0:
        start = max(row - left, 0)
        left -= 1 if row == first else word_at(keys, row - 1) != word_at(keys, row)
        for i in range(start, row - 1):
            left -= word_at(keys, i) != word_at(keys, i + 1)
        row = start
    while 0 < row < first and word_at(keys, row - 1) == word_at(keys, row):
        row -= 1
    set_cursor(task, LOW, 0, row)


@inner
def reach_on(task: int) -> None:
    """Walk ``max_steps`` keys forward in the one segment there is, all of whose rows are eligible."""
    keys, past, left = field(task, 0, KEYS), cursor(task, PAST, 0), word_at(task, MAX_STEPS)
    n_rows, row = field(task, 0, N_ROWS), past
    while left > 0 and row < n_rows:
        end = min(row + left, n_rows)
        left -= 1 if row == past else word_at(keys, row) != word_at(keys, row - 1)
        for i in range(row + 1, end):
            left -= word_at(keys, i) != word_at(keys, i - 1)
        row = end
    while past < row < n_rows and word_at(keys, row) == word_at(keys, row - 1):
        row += 1
    set_cursor(task, HIGH, 0, row)


@inner
def nearest_keys(task: int, way: int) -> tuple[int, int, int]:
    """Return the segment whose next key on a walk is nearest (-1 at the end), that key, and the nearest
    of the other segments (beyond every key when there is none).
    """
    nearest_s, nearest, other = -1, _NO_KEY, _NO_KEY
    for s in range(word_at(task, N_SEGMENTS)):
        row = cursor(task, LOW, s) - 1 if way == BACKWARD else cursor(task, HIGH, s)
        if row < 0 or row >= field(task, s, N_ROWS):
            continue
        key = word_at(field(task, s, KEYS), row)
        key = -key if way == BACKWARD else key
        if key < nearest:
            nearest_s, nearest, other = s, key, nearest
        elif key < other:
            other = key
    if way == BACKWARD:
        return nearest_s, -nearest, -other
    return nearest_s, nearest, other


@inner
def take_run(task: int, way: int, s: int, other: int, left: int) -> int:
    """Walk one segment's keys that are nearer than ``other``, at most ``left``; return the steps left."""
    keys, n_rows = field(task, s, KEYS), field(task, s, N_ROWS)
    step = -1 if way == BACKWARD else 1
    row = cursor(task, LOW, s) - 1 if way == BACKWARD else cursor(task, HIGH, s)
    previous, is_counted = -1, False
    while 0 <= row < n_rows:
        key = word_at(keys, row)
        if key != previous:
            if left == 0 or step * (other - key) <= 0:
                break
            previous, is_counted = key, False
        if not is_counted and is_eligible_row(task, s, row):
            is_counted = True
            left -= 1
        row += step
    set_cursor(task, LOW if way == BACKWARD else HIGH, s, row + 1 if way == BACKWARD else row)
    return left


@inner
def step_over(task: int, way: int, key: int) -> int:
    """Move every cursor past a key; return 1 when an eligible posting was there, else 0."""
    any_eligible = 0
    for s in range(word_at(task, N_SEGMENTS)):
        keys, n_rows = field(task, s, KEYS), field(task, s, N_ROWS)
        if way == BACKWARD:
            row = cursor(task, LOW, s)
            while row > 0 and word_at(keys, row - 1) == key:
                row -= 1
                any_eligible |= is_eligible_row(task, s, row)
            set_cursor(task, LOW, s, row)
        else:
            row = cursor(task, HIGH, s)
            while row < n_rows and word_at(keys, row) == key:
                any_eligible |= is_eligible_row(task, s, row)
                row += 1
            set_cursor(task, HIGH, s, row)
    return any_eligible
