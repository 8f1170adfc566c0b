"""Cursors: where a walk stands in every segment, and the spans of rows it has covered."""

# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from sish_cluster.shard.compiled import inner
from sish_cluster.shard.layout import (
    ALL_ELIGIBLE,
    CURSORS,
    KEYS,
    MAX_STEPS,
    N_ROWS,
    N_SEGMENTS,
    SPAN_WORDS,
    field,
    first_row_from,
    is_eligible_row,
)
from sish_cluster.shard.words import put_word, word_at

BACKWARD, FORWARD = 0, 1
"""Directions of a walk."""

FIRST, PAST, LOW, HIGH, N_CURSORS = range(5)
"""Cursors of a segment: where the seed's key starts and ends, and how far its two walks came."""


@inner
def cursor(task: int, name: int, s: int) -> int:
    """Return a cursor of a segment."""
    return word_at(word_at(task, CURSORS), s * N_CURSORS + name)


@inner
def set_cursor(task: int, name: int, s: int, row: int) -> None:
    """Move a cursor of a segment."""
    put_word(word_at(task, CURSORS), s * N_CURSORS + name, row)


@inner
def place_cursors(task: int, seed: int) -> None:
    """Set every segment's cursors to a seed: no step taken."""
    for s in range(word_at(task, N_SEGMENTS)):
        first = first_row_from(task, s, seed)
        past = first
        while past < field(task, s, N_ROWS) and word_at(field(task, s, KEYS), past) == seed:
            past += 1
        set_cursor(task, FIRST, s, first)
        set_cursor(task, LOW, s, first)
        set_cursor(task, PAST, s, past)
        set_cursor(task, HIGH, s, past)


@inner
def nearest_key(task: int, way: int) -> int:
    """Return the next key of a walk over all segments, or -1 at the end."""
    nearest = -1
    for s in range(word_at(task, N_SEGMENTS)):
        row = cursor(task, LOW, s) - 1 if way == BACKWARD else cursor(task, HIGH, s)
        if row < 0 or row >= field(task, s, N_ROWS):
            continue
        key = word_at(field(task, s, KEYS), row)
        if nearest < 0 or (key > nearest if way == BACKWARD else key < nearest):
            nearest = key
    return nearest


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


@inner
def reach_back(task: int) -> None:
    """Walk ``max_steps`` keys backward in the one segment there is, all of whose rows are eligible."""
    keys, row, left = field(task, 0, KEYS), cursor(task, LOW, 0), word_at(task, MAX_STEPS)
    previous = -1
    while row > 0:
        key = word_at(keys, row - 1)
        left -= key != previous
        if left < 0:
            break
        previous = key
        row -= 1
    set_cursor(task, LOW, 0, row)


@inner
def reach_on(task: int) -> None:
    """Walk ``max_steps`` keys forward in the one segment there is, all of whose rows are eligible."""
    keys, row, left = field(task, 0, KEYS), cursor(task, HIGH, 0), word_at(task, MAX_STEPS)
    n_rows, previous = field(task, 0, N_ROWS), -1
    while row < n_rows:
        key = word_at(keys, row)
        left -= key != previous
        if left < 0:
            break
        previous = key
        row += 1
    set_cursor(task, HIGH, 0, row)


@inner
def reach(task: int, way: int) -> None:
    """Walk ``max_steps`` eligible keys one way."""
    if word_at(task, N_SEGMENTS) == 1 and word_at(task, ALL_ELIGIBLE):
        if way == BACKWARD:
            reach_back(task)
        else:
            reach_on(task)
        return
    steps = 0
    while steps < word_at(task, MAX_STEPS):
        key = nearest_key(task, way)
        if key < 0:
            return
        steps += step_over(task, way, key)


@inner
def add_spans(task: int, spans: int, n_spans: int, is_query_key: int) -> int:
    """Add the rows covered around a seed: both sides, and the seed's own key when it is the query's."""
    for s in range(word_at(task, N_SEGMENTS)):
        low, high = cursor(task, LOW, s), cursor(task, HIGH, s)
        if is_query_key:
            n_spans = add_span(spans, n_spans, s, low, high)
        else:
            n_spans = add_span(spans, n_spans, s, low, cursor(task, FIRST, s))
            n_spans = add_span(spans, n_spans, s, cursor(task, PAST, s), high)
    return n_spans


@inner
def add_span(spans: int, n_spans: int, s: int, start: int, end: int) -> int:
    """Add a span unless it is empty, keeping spans ordered by segment and start."""
    if start >= end:
        return n_spans
    at = spans + 8 * SPAN_WORDS * n_spans
    while at > spans:
        before = at - 8 * SPAN_WORDS
        if word_at(before, 0) < s or (word_at(before, 0) == s and word_at(before, 1) <= start):
            break
        for column in range(SPAN_WORDS):
            put_word(at, column, word_at(before, column))
        at = before
    put_word(at, 0, s)
    put_word(at, 1, start)
    put_word(at, 2, end)
    return n_spans + 1


@inner
def join_spans(spans: int, n_spans: int) -> int:
    """Join overlapping ordered spans; return how many are left."""
    if n_spans == 0:
        return 0
    last = spans
    for i in range(1, n_spans):
        span = spans + 8 * SPAN_WORDS * i
        if word_at(last, 0) == word_at(span, 0) and word_at(span, 1) <= word_at(last, 2):
            put_word(last, 2, max(word_at(last, 2), word_at(span, 2)))
            continue
        last += 8 * SPAN_WORDS
        for column in range(SPAN_WORDS):
            put_word(last, column, word_at(span, column))
    return (last - spans) // (8 * SPAN_WORDS) + 1


@inner
def rows_covered(spans: int, n_spans: int) -> int:
    """Return how many rows joined spans have."""
    n = 0
    for i in range(n_spans):
        n += word_at(spans, SPAN_WORDS * i + 2) - word_at(spans, SPAN_WORDS * i + 1)
    return n


@inner
def eligible_rows(task: int, spans: int, n_spans: int) -> int:
    """Return how many rows of joined spans are eligible."""
    if word_at(task, ALL_ELIGIBLE):
        return rows_covered(spans, n_spans)
    n = 0
    for i in range(n_spans):
        span = spans + 8 * SPAN_WORDS * i
        for row in range(word_at(span, 1), word_at(span, 2)):
            n += is_eligible_row(task, word_at(span, 0), row)
    return n
