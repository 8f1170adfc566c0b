"""One query patch from its key to its ordered answer in one kernel call.

A walk takes a few dozen microseconds; every array made around it costs one. So the answer's columns are
written here, ordered by distance: counting how many hits each distance has keeps the order they were
found in among equals, which is the published order.
"""

# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from sish_cluster.shard.compiled import inner, kernel
from sish_cluster.shard.layout import (
    CORNERS,
    HIT_WORDS,
    HITS,
    KEYS,
    MAX_DISTANCE,
    NUMBER_BYTES,
    NUMBERS,
    ORDINALS,
    ROW_BITS,
    field,
)
from sish_cluster.shard.published import published
from sish_cluster.shard.walk import guided
from sish_cluster.shard.words import half_at, put_half, put_short, put_word, short_at, word_at

(
    DONE,
    N_HITS,
    N_SPANS,
    WANTED,
    IS_TIED,
    COUNT,
    CHOSEN,
    STARTS,
    OUT_KEYS,
    OUT_CORNERS,
    OUT_ORDINALS,
    OUT_NUMBERS,
    OUT_DISTANCES,
    N_ANSWER,
) = range(14)
"""Words of an answer: the four of a search's progress; whether rows need slide ids to be ordered; the
postings examined; the patch chosen, always 0; and addresses: of a counter for each distance, and of the
columns."""


@inner
def count_distances(task: int, answer: int, n: int) -> None:
    """Turn the counters into where the first hit of each distance goes."""
    starts, hits = word_at(answer, STARTS), word_at(task, HITS)
    n_starts = word_at(task, MAX_DISTANCE) + 1
    for distance in range(n_starts):
        put_word(starts, distance, 0)
    for i in range(n):
        distance = word_at(hits, HIT_WORDS * i + 2)
        put_word(starts, distance, word_at(starts, distance) + 1)
    at = 0
    for distance in range(n_starts):
        count = word_at(starts, distance)
        put_word(starts, distance, at)
        at += count


@inner
def write_row(task: int, answer: int, hit: int, at: int) -> None:
    """Write a hit's posting to row ``at`` of the columns."""
    place = word_at(hit, 1)
    s, row = place >> ROW_BITS, place & ((1 << ROW_BITS) - 1)
    numbers = field(task, s, NUMBERS)
    is_narrow = field(task, s, NUMBER_BYTES) == 2
    put_word(word_at(answer, OUT_KEYS), at, word_at(field(task, s, KEYS), row))
    put_word(word_at(answer, OUT_CORNERS), at, word_at(field(task, s, CORNERS), row))
    put_half(word_at(answer, OUT_ORDINALS), at, half_at(field(task, s, ORDINALS), row))
    put_half(
        word_at(answer, OUT_NUMBERS),
        at,
        short_at(numbers, row) if is_narrow else half_at(numbers, row),
    )
    put_short(word_at(answer, OUT_DISTANCES), at, word_at(hit, 2))


@inner
def write_answer(task: int, answer: int) -> None:
    """Write all hits to the columns, by distance, those of one distance as they were found."""
    n, hits, starts = word_at(answer, N_HITS), word_at(task, HITS), word_at(answer, STARTS)
    count_distances(task, answer, n)
    for i in range(n):
        hit = hits + 8 * HIT_WORDS * i
        at = word_at(starts, word_at(hit, 2))
        put_word(starts, word_at(hit, 2), at + 1)
        write_row(task, answer, hit, at)


@inner
def begin(answer: int) -> int:
    """Clear what a search reports; return the address of the patch chosen."""
    for word in range(IS_TIED + 1):
        put_word(answer, word, 0)
    return answer + 8 * CHOSEN


@kernel
def published_alone(task: int, answer: int) -> None:
    """Search the task's one patch as published; tied when an acceptance has several rows."""
    published(task, begin(answer), 1, answer)
    if word_at(answer, DONE) == 0:
        return
    hits = word_at(task, HITS)
    for i in range(1, word_at(answer, N_HITS)):
        if word_at(hits, HIT_WORDS * i) == word_at(hits, HIT_WORDS * (i - 1)):
            put_word(answer, IS_TIED, 1)
            return
    write_answer(task, answer)


@kernel
def guided_alone(task: int, answer: int) -> None:
    """Search the task's one patch, guided; tied when two rows have the same distance."""
    guided(task, begin(answer), 1, answer)
    if word_at(answer, DONE) == 0:
        return
    write_answer(task, answer)
    distances = word_at(answer, OUT_DISTANCES)
    for i in range(1, word_at(answer, N_HITS)):
        if short_at(distances, i) == short_at(distances, i - 1):
            put_word(answer, IS_TIED, 1)
            return
