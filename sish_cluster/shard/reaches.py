"""Reaches: how far the walks from each seed come, in one segment, in two, and in any number.

Where every row is eligible, one segment is counted many rows at a time and two are merged without a branch.
Otherwise a walk takes runs: the rows of the segment whose key is nearest, up to the nearest key of any
other.
"""

# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from sish_cluster.shard.compiled import inner
from sish_cluster.shard.cursors import (
    BACKWARD,
    FIRST,
    FORWARD,
    HIGH,
    LOW,
    PAST,
    choose_seed,
    cursor,
    find_blocks,
    place_cursors,
    seed_at,
    set_cursor,
)
from sish_cluster.shard.layout import (
    ALL_ELIGIBLE,
    KEYS,
    MAX_STEPS,
    N_ROWS,
    N_SEGMENTS,
    SEEDS_PER_SIDE,
    field,
    is_eligible_row,
)
from sish_cluster.shard.words import word_at

_NO_KEY = 1 << 62
"""Above every key."""


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
    if word_at(task, N_SEGMENTS) == 2 and word_at(task, ALL_ELIGIBLE):
        if way == BACKWARD:
            reach_two_back(task)
        else:
            reach_two_on(task)
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
def reach_two_back(task: int) -> None:
    """Walk ``max_steps`` keys backward in two segments, all of whose rows are eligible.

    One comparison moves one cursor or both, without a branch: which segment comes next cannot be guessed.
    """
    keys, others = field(task, 0, KEYS), field(task, 1, KEYS)
    i, j = cursor(task, LOW, 0), cursor(task, LOW, 1)
    left, last = word_at(task, MAX_STEPS), -1
    while i > 0 or j > 0:
        key = word_at(keys, i - 1) if i > 0 else -1
        other = word_at(others, j - 1) if j > 0 else -1
        nearest = max(key, other)
        is_new = 1 if nearest != last else 0
        if left < is_new:
            break
        left -= is_new
        i -= 1 if key >= other else 0
        j -= 1 if other >= key else 0
        last = nearest
    set_cursor(task, LOW, 0, i)
    set_cursor(task, LOW, 1, j)


@inner
def reach_two_on(task: int) -> None:
    """Walk ``max_steps`` keys forward in two segments, all of whose rows are eligible."""
    keys, others = field(task, 0, KEYS), field(task, 1, KEYS)
    n_rows, n_others = field(task, 0, N_ROWS), field(task, 1, N_ROWS)
    i, j = cursor(task, HIGH, 0), cursor(task, HIGH, 1)
    left, last = word_at(task, MAX_STEPS), -1
    while i < n_rows or j < n_others:
        key = word_at(keys, i) if i < n_rows else _NO_KEY
        other = word_at(others, j) if j < n_others else _NO_KEY
        nearest = min(key, other)
        is_new = 1 if nearest != last else 0
        if left < is_new:
            break
        left -= is_new
        i += 1 if key <= other else 0
        j += 1 if other <= key else 0
        last = nearest
    set_cursor(task, HIGH, 0, i)
    set_cursor(task, HIGH, 1, j)


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
