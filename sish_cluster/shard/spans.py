"""Spans: the rows that walks have covered, joined where they overlap, and scanned four rows at a time."""

# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from sish_cluster.shard.compiled import inner
from sish_cluster.shard.cursors import FIRST, HIGH, LOW, PAST, cursor
from sish_cluster.shard.layout import (
    ALL_ELIGIBLE,
    HEAD,
    HEADS,
    HIT_CAPACITY,
    LANES,
    MAX_DISTANCE,
    N_SEGMENTS,
    SPAN_WORDS,
    bounded_distance,
    field,
    is_eligible_row,
    keep_hit,
    query_head,
)
from sish_cluster.shard.words import first_bit, four_heads_near, put_word, word_at

SPAN_BYTES = 8 * SPAN_WORDS
"""Bytes of a span."""


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
    at = spans + SPAN_BYTES * n_spans
    while at > spans:
        before = at - SPAN_BYTES
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
        span = spans + SPAN_BYTES * i
        if word_at(last, 0) == word_at(span, 0) and word_at(span, 1) <= word_at(last, 2):
            put_word(last, 2, max(word_at(last, 2), word_at(span, 2)))
            continue
        last += SPAN_BYTES
        for column in range(SPAN_WORDS):
            put_word(last, column, word_at(span, column))
    return (last - spans) // SPAN_BYTES + 1


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
        span = spans + SPAN_BYTES * i
        for row in range(word_at(span, 1), word_at(span, 2)):
            n += is_eligible_row(task, word_at(span, 0), row)
    return n


@inner
def keep_four(
    task: int, patch: int, s: int, rows: tuple[int, int, int, int], ends: tuple[int, int]
) -> int:
    """Keep the eligible rows within the bound among four whose heads are near.

    Parameters
    ----------
    rows
        The first of the four, the span's start and end, and which of the four are near, as bits.
    ends
        Where the next hit goes, and after how many hits to stop.
    """
    first, start, end, near = rows
    at, bound = ends[0], word_at(task, MAX_DISTANCE)
    while near:
        row = first + first_bit(near)
        near &= near - 1
        if row < start or row >= end or at >= ends[1]:
            continue
        distance = bounded_distance(task, patch, s, row, bound)
        if distance <= bound and is_eligible_row(task, s, row):
            keep_hit(task, at, (patch, 0, s, row, distance))
            at += 1
    return at


@inner
def scan_rows(task: int, patch: int, span: tuple[int, int, int], at: int) -> int:
    """Keep every eligible row of a span (segment, start, end) within the bound, in row order.

    Return the new end of the hits; the task's capacity when they did not fit.
    """
    s, start, end = span
    query, bound, most = (
        query_head(task, patch),
        word_at(task, MAX_DISTANCE),
        word_at(task, HIT_CAPACITY),
    )
    heads = field(task, s, HEADS)
    for first in range(start - start % LANES, end, LANES):
        near = four_heads_near(heads + 8 * HEAD * first, query, bound)
        if near:
            at = keep_four(task, patch, s, (first, start, end, near), (at, most))
    return at
