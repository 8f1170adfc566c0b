"""The published search of query patches, quirks included, as a kernel over segments.

A published walk looks at one key after another and stops at a key that this query has accepted. It meets
every key once, so only walks before it can have accepted what stops it: how far it comes is known before
any code is looked at, and its rows are scanned four at a time like those of the guided search. What was
within the bound is then accepted key by key, in the order of the walk.

The published walk visits the query key's own seed twice. Its second visit can accept nothing: it meets the
same keys in the same order, each one looked at before, until the first one accepted. So it is left out.

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
    HIGH,
    LOW,
    PAST,
    choose_seed,
    cursor,
    set_cursor,
)
from sish_cluster.shard.layout import (
    ACCEPTED,
    HIT_CAPACITY,
    HIT_WORDS,
    HITS,
    KEYS,
    LEAST_ACCEPTED,
    MOST_ACCEPTED,
    N_ACCEPTED,
    N_SEGMENTS,
    ROW_BITS,
    SEEDS_PER_SIDE,
    SPANS,
    field,
    first_row_from,
)
from sish_cluster.shard.reaches import reach_everything
from sish_cluster.shard.spans import SPAN_BYTES, add_spans, join_spans, scan_rows
from sish_cluster.shard.walk import finish_patch
from sish_cluster.shard.words import put_word, word_at

_NO_KEY = 1 << 62
"""Above every key."""

_ROW = (1 << ROW_BITS) - 1


@inner
def covered(task: int, way: int, s: int) -> tuple[int, int]:
    """Return the rows (start, end) of a segment that the walk one way covers."""
    if way == BACKWARD:
        return cursor(task, LOW, s), cursor(task, FIRST, s)
    return cursor(task, PAST, s), cursor(task, HIGH, s)


@inner
def keys_covered(task: int, way: int) -> tuple[int, int]:
    """Return the least and the greatest key that the walk one way covers; empty when they cross."""
    least, most = _NO_KEY, -1
    for s in range(word_at(task, N_SEGMENTS)):
        start, end = covered(task, way, s)
        if start < end:
            least = min(least, word_at(field(task, s, KEYS), start))
            most = max(most, word_at(field(task, s, KEYS), end - 1))
    return least, most


@inner
def stop_before_accepted(task: int, way: int) -> None:
    """Draw a walk's reach in to before the first key on its way that was accepted already."""
    least, most = keys_covered(task, way)
    if most < word_at(task, LEAST_ACCEPTED) or least > word_at(task, MOST_ACCEPTED):
        return
    stop = -1
    for i in range(word_at(task, N_ACCEPTED)):
        key = word_at(word_at(task, ACCEPTED), i)
        if key < least or key > most:
            continue
        stop = key
        if way == BACKWARD:
            least = key
        else:
            most = key
    if stop < 0:
        return
    for s in range(word_at(task, N_SEGMENTS)):
        start, end = covered(task, way, s)
        if way == BACKWARD:
            set_cursor(task, LOW, s, max(start, min(end, first_row_from(task, s, stop + 1))))
        else:
            set_cursor(task, HIGH, s, min(end, max(start, first_row_from(task, s, stop))))


@inner
def hit_key(task: int, hit: int) -> int:
    """Return the key of the hit at an address."""
    place = word_at(hit, 1)
    return word_at(field(task, place >> ROW_BITS, KEYS), place & _ROW)


@inner
def is_before(task: int, way: int, left: int, right: int) -> bool:
    """Whether a walk meets the key of the hit at ``left`` strictly before that of the hit at ``right``."""
    if way == BACKWARD:
        return hit_key(task, left) > hit_key(task, right)
    return hit_key(task, left) < hit_key(task, right)


@inner
def move_hit(source: int, target: int) -> None:
    """Copy a hit."""
    for word in range(HIT_WORDS):
        put_word(target, word, word_at(source, word))


@inner
def turn_round(hits: int, n: int, spare: int) -> None:
    """Reverse ``n`` hits."""
    for i in range(n // 2):
        left, right = hits + 8 * HIT_WORDS * i, hits + 8 * HIT_WORDS * (n - 1 - i)
        move_hit(left, spare)
        move_hit(right, left)
        move_hit(spare, right)


@inner
def order_hits(task: int, way: int, hits: int, n: int) -> None:
    """Bring hits, in row order of each segment, into the order in which a walk meets their keys.

    Insertion: hits are few, and those of one segment are in order already. The slot after the last is
    used for moving.
    """
    spare = hits + 8 * HIT_WORDS * n
    if way == BACKWARD:
        turn_round(hits, n, spare)
    for i in range(1, n):
        at = hits + 8 * HIT_WORDS * i
        if not is_before(task, way, at, at - 8 * HIT_WORDS):
            continue
        move_hit(at, spare)
        while at > hits and is_before(task, way, spare, at - 8 * HIT_WORDS):
            move_hit(at - 8 * HIT_WORDS, at)
            at -= 8 * HIT_WORDS
        move_hit(spare, at)


@inner
def accept(task: int, key: int) -> None:
    """Note that a key was accepted."""
    n = word_at(task, N_ACCEPTED)
    put_word(word_at(task, ACCEPTED), n, key)
    put_word(task, N_ACCEPTED, n + 1)
    put_word(task, LEAST_ACCEPTED, min(key, word_at(task, LEAST_ACCEPTED)))
    put_word(task, MOST_ACCEPTED, max(key, word_at(task, MOST_ACCEPTED)))


@inner
def accept_keys(task: int, patch: int, first: int, end: int) -> int:
    """Accept the keys of a walk's ordered hits, numbered ``first`` to ``end``; return the hits' new end.

    Of several hits at one key all of the least distance stay, as one group.
    """
    hits, at, i = word_at(task, HITS), first, first
    while i < end:
        key, nearest, past = hit_key(task, hits + 8 * HIT_WORDS * i), _NO_KEY, i
        while past < end and hit_key(task, hits + 8 * HIT_WORDS * past) == key:
            nearest = min(nearest, word_at(hits, HIT_WORDS * past + 2))
            past += 1
        for one in range(i, past):
            if word_at(hits, HIT_WORDS * one + 2) == nearest:
                move_hit(hits + 8 * HIT_WORDS * one, hits + 8 * HIT_WORDS * at)
                put_word(hits, HIT_WORDS * at, (patch << 32) | word_at(task, N_ACCEPTED))
                at += 1
        accept(task, key)
        i = past
    return at


@inner
def seed_of_turn(task: int, turn: int) -> int:
    """Return the m of the seed ``q + m C`` whose turn it is: 0, -1, -2, ..., then 1, 2, ..."""
    seeds_per_side = word_at(task, SEEDS_PER_SIDE)
    return -turn if turn < seeds_per_side else turn - seeds_per_side + 1


@inner
def walk_published(task: int, patch: int, way: int, at: int) -> int:
    """Walk one way from a seed; return the end of the hits, the capacity when they did not fit."""
    stop_before_accepted(task, way)
    first = at
    for s in range(word_at(task, N_SEGMENTS)):
        start, end = covered(task, way, s)
        at = scan_rows(task, patch, (s, start, end), at)
    if at == first or at >= word_at(task, HIT_CAPACITY):
        return at
    hits = word_at(task, HITS) + 8 * HIT_WORDS * first
    order_hits(task, way, hits, at - first)
    return accept_keys(task, patch, first, at)


@inner
def forget_accepted(task: int) -> None:
    """Forget which keys were accepted."""
    put_word(task, N_ACCEPTED, 0)
    put_word(task, LEAST_ACCEPTED, _NO_KEY)
    put_word(task, MOST_ACCEPTED, -1)


@kernel
def published(task: int, chosen: int, n_chosen: int, progress: int) -> None:
    """Search the patches numbered at ``chosen`` as published; ``progress`` as in `walk.guided`."""
    while word_at(progress, 0) < n_chosen:
        patch = word_at(chosen, word_at(progress, 0))
        at = word_at(progress, 1)
        spans = word_at(task, SPANS) + SPAN_BYTES * word_at(progress, 2)
        n_spans = 0
        forget_accepted(task)
        reach_everything(task, patch)
        for turn in range(2 * word_at(task, SEEDS_PER_SIDE) - 1):
            choose_seed(task, seed_of_turn(task, turn))
            for way in range(2):
                at = walk_published(task, patch, way, at)
            n_spans = add_spans(task, spans, n_spans, 0)
        if at >= word_at(task, HIT_CAPACITY):
            put_word(progress, 3, 2 * at)
            return
        put_word(progress, 1, at)
        finish_patch(task, patch, progress, spans, join_spans(spans, n_spans))
