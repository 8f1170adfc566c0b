"""Guided and published search of query patches, as kernels over segments.

Both start at the same seeds. The *guided* search is order-free: each walk only has to find how far its
``max_steps`` nearest eligible keys reach; the rows it covers become spans, overlapping spans are joined,
and every span is scanned once. The *published* search looks at one key after another and stops at keys
it has accepted. A walk over several segments is a merge: at each step the nearest key of all cursors.

Source
------
SISH, "Guided search algorithm"; the project's specification of the algorithms, section 3.
"""

# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from typing import Any

from sish_cluster.shard.compiled import inner, kernel
from sish_cluster.shard.layout import (
    N_ROWS,
    ROW_BITS,
    bounded_distance,
    first_row_from,
    is_eligible_row,
    key_at,
)
from sish_cluster.shard.words import mixed_bits

BACKWARD, FORWARD = 0, 1
"""Directions of a walk."""

_FIRST, _PAST, _LOW, _HIGH = 0, 1, 2, 3
N_CURSORS = 4
"""Rows of the cursors: where the seed's key starts and ends in each segment, and how far its walks came.
One more row holds the published walk's state."""


@inner
def place_cursors(task: Any, cursors: Any, seed: int) -> None:
    """Set every segment's cursors to a seed: no step taken."""
    for s in range(task.segments.shape[0]):
        first = first_row_from(task.segments, s, seed)
        past = first
        while past < task.segments[s, N_ROWS] and key_at(task.segments, s, past) == seed:
            past += 1
        cursors[_FIRST, s] = cursors[_LOW, s] = first
        cursors[_PAST, s] = cursors[_HIGH, s] = past


@inner
def nearest_key(task: Any, cursors: Any, way: int) -> int:
    """Return the next key of a walk over all segments, or -1 at the end."""
    nearest = -1
    for s in range(task.segments.shape[0]):
        row = cursors[_LOW, s] - 1 if way == BACKWARD else cursors[_HIGH, s]
        if row < 0 or row >= task.segments[s, N_ROWS]:
            continue
        key = key_at(task.segments, s, row)
        if nearest < 0 or (key > nearest if way == BACKWARD else key < nearest):
            nearest = key
    return nearest


@inner
def step_over(task: Any, cursors: Any, way: int, key: int) -> int:
    """Move every cursor past a key; return 1 when an eligible posting was there, else 0."""
    any_eligible = 0
    for s in range(task.segments.shape[0]):
        if way == BACKWARD:
            row = cursors[_LOW, s] - 1
            while row >= 0 and key_at(task.segments, s, row) == key:
                any_eligible |= is_eligible_row(task, s, row)
                row -= 1
            cursors[_LOW, s] = row + 1
        else:
            row = cursors[_HIGH, s]
            while row < task.segments[s, N_ROWS] and key_at(task.segments, s, row) == key:
                any_eligible |= is_eligible_row(task, s, row)
                row += 1
            cursors[_HIGH, s] = row
    return any_eligible


@inner
def reach(task: Any, cursors: Any, way: int) -> None:
    """Walk ``max_steps`` eligible keys one way."""
    steps = 0
    while steps < task.max_steps:
        key = nearest_key(task, cursors, way)
        if key < 0:
            return
        steps += step_over(task, cursors, way, key)


@inner
def add_spans(task: Any, cursors: Any, spans: Any, n_spans: int, is_query_key: int) -> int:
    """Add the rows covered around a seed: both sides, and the seed's own key when it is the query's."""
    for s in range(task.segments.shape[0]):
        low, high = cursors[_LOW, s], cursors[_HIGH, s]
        if is_query_key:
            n_spans = add_span(spans, n_spans, s, low, high)
        else:
            n_spans = add_span(spans, n_spans, s, low, cursors[_FIRST, s])
            n_spans = add_span(spans, n_spans, s, cursors[_PAST, s], high)
    return n_spans


@inner
def add_span(spans: Any, n_spans: int, s: int, start: int, end: int) -> int:
    """Add a span unless it is empty, keeping spans ordered by segment and start."""
    if start >= end:
        return n_spans
    at = n_spans
    while at > 0 and (spans[at - 1, 0] > s or (spans[at - 1, 0] == s and spans[at - 1, 1] > start)):
        for column in range(3):
            spans[at, column] = spans[at - 1, column]
        at -= 1
    spans[at, 0], spans[at, 1], spans[at, 2] = s, start, end
    return n_spans + 1


@inner
def join_spans(spans: Any, n_spans: int) -> int:
    """Join overlapping ordered spans; return how many are left."""
    n = 0
    for i in range(n_spans):
        if n > 0 and spans[n - 1, 0] == spans[i, 0] and spans[i, 1] <= spans[n - 1, 2]:
            spans[n - 1, 2] = max(spans[n - 1, 2], spans[i, 2])
            continue
        for column in range(3):
            spans[n, column] = spans[i, column]
        n += 1
    return n


@inner
def eligible_rows(task: Any, spans: Any, n_spans: int) -> int:
    """Return how many rows of joined spans are eligible."""
    n = 0
    for i in range(n_spans):
        if task.all_eligible:
            n += spans[i, 2] - spans[i, 1]
            continue
        for row in range(spans[i, 1], spans[i, 2]):
            n += is_eligible_row(task, spans[i, 0], row)
    return n


@inner
def keep_row(sink: Any, at: int, patch: int, place: int, distance: int) -> None:
    """Write one row found."""
    sink.patches[at] = patch
    sink.places[at] = place
    sink.distances[at] = distance


@inner
def scan_span(task: Any, sink: Any, patch: int, span: Any, at: int) -> int:
    """Keep every eligible row of a span within the bound; return the new end of the sink."""
    s = span[0]
    for row in range(span[1], span[2]):
        distance = bounded_distance(task, patch, s, row, task.max_distance)
        if distance <= task.max_distance and is_eligible_row(task, s, row):
            keep_row(sink, at, patch, (s << ROW_BITS) | row, distance)
            at += 1
    return at


@kernel
def guided(task: Any, sink: Any, chosen: Any, cursors: Any, progress: Any) -> None:
    """Search the patches ``chosen[progress[0]:]``.

    ``progress`` is (patches done, rows in the sink, spans in the sink, rows wanted): it stops before a
    patch whose rows might not fit, asking for more.
    """
    while progress[0] < chosen.size:
        patch = chosen[progress[0]]
        at, first_span = progress[1], progress[2]
        spans = sink.spans[first_span:]
        n_spans = 0
        for m in range(1 - task.seeds_per_side, task.seeds_per_side):
            place_cursors(task, cursors, task.keys[patch] + m * task.stride)
            reach(task, cursors, BACKWARD)
            reach(task, cursors, FORWARD)
            n_spans = add_spans(task, cursors, spans, n_spans, 1 if m == 0 else 0)
        n_spans = join_spans(spans, n_spans)
        n_rows = 0
        for i in range(n_spans):
            n_rows += spans[i, 2] - spans[i, 1]
        if at + n_rows > sink.places.size:
            progress[3] = at + n_rows
            return
        for i in range(n_spans):
            at = scan_span(task, sink, patch, spans[i], at)
        sink.counts[patch] = eligible_rows(task, spans, n_spans)
        progress[0] += 1
        progress[1] = at
        progress[2] = first_span + n_spans


@inner
def was_accepted(accepted: Any, key: int) -> int:
    """Return -1 when a key is in the set of accepted keys, else the slot where it would go."""
    slot = mixed_bits(key) & (accepted.size - 1)
    while accepted[slot] != 0:
        if accepted[slot] == key + 1:
            return -1
        slot = (slot + 1) & (accepted.size - 1)
    return slot


@inner
def look_at(task: Any, sink: Any, cursors: Any, ends: Any, found: Any) -> int:
    """Keep the nearest eligible postings of one key (all of an equal distance); return the sink's end.

    ``ends`` is (patch, way, key, end of the sink); ``found`` gets whether an eligible posting was there.
    """
    patch, way, key, first = ends
    at = first
    nearest = task.max_distance
    found[0] = 0
    for s in range(task.segments.shape[0]):
        row = cursors[_LOW, s] - 1 if way == BACKWARD else cursors[_HIGH, s]
        while row >= 0 and row < task.segments[s, N_ROWS] and key_at(task.segments, s, row) == key:
            if is_eligible_row(task, s, row):
                found[0] = 1
                distance = bounded_distance(task, patch, s, row, nearest)
                if distance < nearest:
                    nearest, at = distance, first
                if distance == nearest and at < sink.places.size:
                    keep_row(sink, at, patch, (s << ROW_BITS) | row, distance)
                    at += 1
            row += -1 if way == BACKWARD else 1
        if way == BACKWARD:
            cursors[_LOW, s] = row + 1
        else:
            cursors[_HIGH, s] = row
    return at


@inner
def published_walk(task: Any, sink: Any, cursors: Any, accepted: Any, ends: Any, state: Any) -> int:
    """Walk one way from a seed; ``ends`` is (patch, way, end of the sink). Return the sink's end.

    ``state`` is (acceptances of this patch, scratch).
    """
    patch, way, at = ends
    steps = 0
    while steps < task.max_steps and at < sink.places.size:
        key = nearest_key(task, cursors, way)
        if key < 0:
            return at
        slot = was_accepted(accepted, key)
        if slot < 0:
            return at
        end = look_at(task, sink, cursors, (patch, way, key, at), state[1:])
        steps += state[1]
        if end > at:
            for i in range(at, end):
                sink.groups[i] = state[0]
            state[0] += 1
            accepted[slot] = key + 1
        at = end
    return at


@kernel
def published(
    task: Any, sink: Any, chosen: Any, cursors: Any, progress: Any, accepted: Any
) -> None:
    """Search the patches ``chosen[progress[0]:]`` as published; ``progress`` as in `guided`.

    The published walk visits the query key's own seed twice. Its second visit can accept nothing: it
    meets the same keys in the same order, each one looked at before, until the first one accepted.
    So it is left out. ``accepted`` is a zeroed hash set, its size a power of two above twice the sink's.
    """
    state = cursors[N_CURSORS]
    while progress[0] < chosen.size:
        patch = chosen[progress[0]]
        at, first_span = progress[1], progress[2]
        spans = sink.spans[first_span:]
        n_spans = 0
        state[0] = 0
        accepted[:] = 0
        for i in range(2 * task.seeds_per_side):
            if i == task.seeds_per_side:
                continue
            m = -i if i < task.seeds_per_side else i - task.seeds_per_side
            place_cursors(task, cursors, task.keys[patch] + m * task.stride)
            for way in range(2):
                at = published_walk(task, sink, cursors, accepted, (patch, way, at), state)
            n_spans = add_spans(task, cursors, spans, n_spans, 0)
        if at >= sink.places.size:
            progress[3] = 2 * sink.places.size
            return
        n_spans = join_spans(spans, n_spans)
        sink.counts[patch] = eligible_rows(task, spans, n_spans)
        progress[0] += 1
        progress[1] = at
        progress[2] = first_span + n_spans
