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

from sish_cluster.shard.compiled import inner, kernel
from sish_cluster.shard.cursors import (
    BACKWARD,
    FIRST,
    FORWARD,
    HIGH,
    LOW,
    PAST,
    add_spans,
    cursor,
    eligible_rows,
    join_spans,
    nearest_key,
    place_cursors,
    reach,
    rows_covered,
    set_cursor,
)
from sish_cluster.shard.layout import (
    ACCEPTED,
    ACCEPTED_SIZE,
    COUNTS,
    HEAD,
    HEADS,
    HIT_CAPACITY,
    KEYS,
    LANES,
    MAX_DISTANCE,
    MAX_STEPS,
    N_ACCEPTED,
    N_ROWS,
    N_SEGMENTS,
    QUERY_KEYS,
    SEEDS_PER_SIDE,
    SPAN_WORDS,
    SPANS,
    STRIDE,
    bounded_distance,
    field,
    first_row_from,
    is_eligible_row,
    keep_hit,
    query_head,
)
from sish_cluster.shard.words import (
    first_bit,
    four_heads_near,
    last_bit,
    mixed_bits,
    put_word,
    word_at,
)


@inner
def scan_span(task: int, patch: int, span: int, at: int) -> int:
    """Keep every eligible row of a span within the bound; return the new end of the hits."""
    s, start, end = word_at(span, 0), word_at(span, 1), word_at(span, 2)
    query, bound, heads = (
        query_head(task, patch),
        word_at(task, MAX_DISTANCE),
        field(task, s, HEADS),
    )
    for first in range(start - start % LANES, end, LANES):
        near = four_heads_near(heads + 8 * HEAD * first, query, bound)
        while near:
            row = first + first_bit(near)
            near &= near - 1
            if row < start or row >= end:
                continue
            distance = bounded_distance(task, patch, s, row, bound)
            if distance <= bound and is_eligible_row(task, s, row):
                keep_hit(task, at, (patch, 0, s, row, distance))
                at += 1
    return at


@inner
def finish_patch(task: int, patch: int, progress: int, spans: int, n_spans: int) -> None:
    """Count what a patch examined and go on to the next."""
    put_word(word_at(task, COUNTS), patch, eligible_rows(task, spans, n_spans))
    put_word(progress, 0, word_at(progress, 0) + 1)
    put_word(progress, 2, word_at(progress, 2) + n_spans)


@kernel
def guided(task: int, chosen: int, n_chosen: int, progress: int) -> None:
    """Search the patches numbered at ``chosen``, from ``progress[0]`` on.

    ``progress`` is (patches done, hits, spans, hits wanted): it stops before a patch whose hits might
    not fit, asking for more.
    """
    while word_at(progress, 0) < n_chosen:
        patch = word_at(chosen, word_at(progress, 0))
        at = word_at(progress, 1)
        spans = word_at(task, SPANS) + 8 * SPAN_WORDS * word_at(progress, 2)
        n_spans = 0
        for m in range(1 - word_at(task, SEEDS_PER_SIDE), word_at(task, SEEDS_PER_SIDE)):
            place_cursors(
                task, word_at(word_at(task, QUERY_KEYS), patch) + m * word_at(task, STRIDE)
            )
            reach(task, BACKWARD)
            reach(task, FORWARD)
            n_spans = add_spans(task, spans, n_spans, 1 if m == 0 else 0)
        n_spans = join_spans(spans, n_spans)
        wanted = at + rows_covered(spans, n_spans)
        if wanted > word_at(task, HIT_CAPACITY):
            put_word(progress, 3, wanted)
            return
        for i in range(n_spans):
            at = scan_span(task, patch, spans + 8 * SPAN_WORDS * i, at)
        put_word(progress, 1, at)
        finish_patch(task, patch, progress, spans, n_spans)


@inner
def slot_for(task: int, key: int) -> int:
    """Return -1 when a key is accepted already, else its empty slot in the set of accepted keys."""
    accepted, last = word_at(task, ACCEPTED), word_at(task, ACCEPTED_SIZE) - 1
    if word_at(task, N_ACCEPTED) == 0:
        return mixed_bits(key) & last
    slot = mixed_bits(key) & last
    while word_at(accepted, slot) != 0:
        if word_at(accepted, slot) == key + 1:
            return -1
        slot = (slot + 1) & last
    return slot


@inner
def nearer(
    task: int, patch: int, place: tuple[int, int], nearest: int, ends: tuple[int, int]
) -> tuple[int, int]:
    """Look at one posting of a key at ``place`` = (segment, row).

    Return the key's nearest distance and the end of the hits; ``ends`` is where the key's hits start and
    end. All postings of an equal nearest distance are kept.
    """
    s, row = place
    first, at = ends
    distance = bounded_distance(task, patch, s, row, nearest)
    if distance > nearest:
        return nearest, at
    if distance < nearest:
        at = first
    if at < word_at(task, HIT_CAPACITY):
        keep_hit(task, at, (patch, word_at(task, N_ACCEPTED), s, row, distance))
        at += 1
    return distance, at


@inner
def look_at(task: int, patch: int, way: int, key: int, first: int) -> tuple[int, int]:
    """Keep the nearest eligible postings of one key, and move every cursor past it.

    Return the end of the hits, and 1 when an eligible posting was there, else 0.
    """
    at, nearest, was_there = first, word_at(task, MAX_DISTANCE), 0
    for s in range(word_at(task, N_SEGMENTS)):
        keys, n_rows = field(task, s, KEYS), field(task, s, N_ROWS)
        row = cursor(task, LOW, s) - 1 if way == BACKWARD else cursor(task, HIGH, s)
        while row >= 0 and row < n_rows and word_at(keys, row) == key:
            if is_eligible_row(task, s, row):
                was_there = 1
                nearest, at = nearer(task, patch, (s, row), nearest, (first, at))
            row += -1 if way == BACKWARD else 1
        set_cursor(task, LOW if way == BACKWARD else HIGH, s, row + 1 if way == BACKWARD else row)
    return at, was_there


@inner
def accept(task: int, slot: int, key: int) -> None:
    """Put a key into its slot of the set of accepted keys."""
    accepted, n_accepted = word_at(task, ACCEPTED), word_at(task, N_ACCEPTED)
    put_word(accepted, slot, key + 1)
    put_word(accepted, word_at(task, ACCEPTED_SIZE) + n_accepted, slot)
    put_word(task, N_ACCEPTED, n_accepted + 1)


@inner
def published_walk(task: int, patch: int, way: int, at: int) -> int:
    """Walk one way from a seed over several segments; return the end of the hits."""
    steps = 0
    while steps < word_at(task, MAX_STEPS) and at < word_at(task, HIT_CAPACITY):
        key = nearest_key(task, way)
        if key < 0:
            return at
        slot = slot_for(task, key)
        if slot < 0:
            return at
        end, was_there = look_at(task, patch, way, key, at)
        steps += was_there
        if end > at:
            accept(task, slot, key)
        at = end
    return at


@inner
def stop_before_accepted(task: int, way: int) -> None:
    """Draw a walk's reach in to before the first key on its way that was accepted already."""
    keys, low, high = field(task, 0, KEYS), cursor(task, LOW, 0), cursor(task, HIGH, 0)
    start, end = (low, cursor(task, FIRST, 0)) if way == BACKWARD else (cursor(task, PAST, 0), high)
    if start >= end:
        return
    least, most, stop = word_at(keys, start), word_at(keys, end - 1), -1
    accepted = word_at(task, ACCEPTED)
    slots = accepted + 8 * word_at(task, ACCEPTED_SIZE)
    for i in range(word_at(task, N_ACCEPTED)):
        key = word_at(accepted, word_at(slots, i)) - 1
        if key < least or key > most:
            continue
        if way == BACKWARD:
            least = stop = key
        else:
            most = stop = key
    if stop >= 0 and way == BACKWARD:
        set_cursor(task, LOW, 0, first_row_from(task, 0, stop + 1))
    elif stop >= 0:
        set_cursor(task, HIGH, 0, first_row_from(task, 0, stop))


@inner
def accept_run(task: int, patch: int, run: tuple[int, int], at: int) -> int:
    """Accept the nearest eligible postings of one key, whose rows are ``run``; return the hits' end."""
    first, nearest = at, word_at(task, MAX_DISTANCE)
    for row in range(run[0], run[1]):
        if is_eligible_row(task, 0, row):
            nearest, at = nearer(task, patch, (0, row), nearest, (first, at))
    if at > first:
        key = word_at(field(task, 0, KEYS), run[0])
        accept(task, slot_for(task, key), key)
    return at


@inner
def run_at(task: int, row: int) -> tuple[int, int]:
    """Return the first row of a row's key and the row after its last."""
    keys, n_rows = field(task, 0, KEYS), field(task, 0, N_ROWS)
    key, start, end = word_at(keys, row), row, row + 1
    while start > 0 and word_at(keys, start - 1) == key:
        start -= 1
    while end < n_rows and word_at(keys, end) == key:
        end += 1
    return start, end


@inner
def accept_back(task: int, patch: int, at: int) -> int:
    """Accept what a backward walk covered, in its order; return the end of the hits."""
    query, bound = query_head(task, patch), word_at(task, MAX_DISTANCE)
    heads, low, before = field(task, 0, HEADS), cursor(task, LOW, 0), cursor(task, FIRST, 0)
    first = before - 1 - (before - 1) % LANES
    while first + LANES > low and before > low:
        near = four_heads_near(heads + 8 * HEAD * first, query, bound)
        while near:
            row = first + last_bit(near)
            near ^= 1 << (row - first)
            if low <= row < before:
                run = run_at(task, row)
                at, before = accept_run(task, patch, run, at), run[0]
        first -= LANES
    return at


@inner
def accept_on(task: int, patch: int, at: int) -> int:
    """Accept what a forward walk covered, in its order; return the end of the hits."""
    query, bound = query_head(task, patch), word_at(task, MAX_DISTANCE)
    heads, start, end = field(task, 0, HEADS), cursor(task, PAST, 0), cursor(task, HIGH, 0)
    for first in range(start - start % LANES, end, LANES):
        near = four_heads_near(heads + 8 * HEAD * first, query, bound)
        while near:
            row = first + first_bit(near)
            near &= near - 1
            if start <= row < end:
                run = run_at(task, row)
                at, start = accept_run(task, patch, run, at), run[1]
    return at


@inner
def published_walk_alone(task: int, patch: int, way: int, at: int) -> int:
    """Walk one way from a seed over the one segment there is; return the end of the hits.

    A walk can only be stopped by keys that earlier walks accepted, since it meets every key once. So how
    far it comes is known before any code is looked at, and its rows can be scanned four at a time.
    """
    reach(task, way)
    stop_before_accepted(task, way)
    return accept_back(task, patch, at) if way == BACKWARD else accept_on(task, patch, at)


@inner
def forget_accepted(task: int) -> None:
    """Empty the set of accepted keys."""
    accepted = word_at(task, ACCEPTED)
    slots = accepted + 8 * word_at(task, ACCEPTED_SIZE)
    for i in range(word_at(task, N_ACCEPTED)):
        put_word(accepted, word_at(slots, i), 0)
    put_word(task, N_ACCEPTED, 0)


@kernel
def published(task: int, chosen: int, n_chosen: int, progress: int) -> None:
    """Search the patches numbered at ``chosen`` as published; ``progress`` as in `guided`.

    The published walk visits the query key's own seed twice. Its second visit can accept nothing: it
    meets the same keys in the same order, each one looked at before, until the first one accepted.
    So it is left out. The set of accepted keys has a power of two of slots, more than twice the hits.
    """
    seeds_per_side = word_at(task, SEEDS_PER_SIDE)
    while word_at(progress, 0) < n_chosen:
        patch = word_at(chosen, word_at(progress, 0))
        at = word_at(progress, 1)
        spans = word_at(task, SPANS) + 8 * SPAN_WORDS * word_at(progress, 2)
        n_spans = 0
        forget_accepted(task)
        for i in range(2 * seeds_per_side):
            if i == seeds_per_side:
                continue
            m = -i if i < seeds_per_side else i - seeds_per_side
            place_cursors(
                task, word_at(word_at(task, QUERY_KEYS), patch) + m * word_at(task, STRIDE)
            )
            for way in range(2):
                if word_at(task, N_SEGMENTS) == 1:
                    at = published_walk_alone(task, patch, way, at)
                else:
                    at = published_walk(task, patch, way, at)
            n_spans = add_spans(task, spans, n_spans, 0)
        if at >= word_at(task, HIT_CAPACITY):
            put_word(progress, 3, 2 * at)
            return
        put_word(progress, 1, at)
        finish_patch(task, patch, progress, spans, join_spans(spans, n_spans))
