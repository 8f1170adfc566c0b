"""The exact scan: every row against every query patch of a slide.

Rows are taken in blocks whose code heads stay in the nearest cache while all patches pass over them, two
patches at a time with their words in registers, so that memory is read once per slide query and the work
is counting bits. Six of a head's eight words decide nearly always.
"""

# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from sish_cluster.shard.compiled import inner, kernel
from sish_cluster.shard.layout import (
    BOUNDS,
    FULL_HEAD,
    HEAD_WORDS,
    HEADS,
    HIT_CAPACITY,
    N_PATCHES,
    QUERY_HEADS,
    bounded_distance,
    field,
    is_eligible_row,
    keep_hit,
)
from sish_cluster.shard.words import popcount, put_word, word_at

BLOCK = 256
"""Rows per block: 16 KB of heads, half of a nearest cache."""


@inner
def keep_within(task: int, patch: int, s: int, row: int, at: int) -> int:
    """Keep a row within the patch's present bound if it is eligible; return the end of the hits."""
    bound = word_at(word_at(task, BOUNDS), patch)
    distance = bounded_distance(task, patch, s, row, bound)
    if distance <= bound and is_eligible_row(task, s, row):
        keep_hit(task, at, (patch, 0, s, row, distance))
        return at + 1
    return at


@inner
def scan_pair(task: int, pair: tuple[int, int], s: int, rows: tuple[int, int], at: int) -> int:
    """Scan a block of rows with two patches whose heads are full; the second may be the first."""
    p, q = pair
    a = word_at(task, QUERY_HEADS) + 8 * FULL_HEAD * p
    b = word_at(task, QUERY_HEADS) + 8 * FULL_HEAD * q
    a0, a1, a2 = word_at(a, 0), word_at(a, 1), word_at(a, 2)
    a3, a4, a5 = word_at(a, 3), word_at(a, 4), word_at(a, 5)
    b0, b1, b2 = word_at(b, 0), word_at(b, 1), word_at(b, 2)
    b3, b4, b5 = word_at(b, 3), word_at(b, 4), word_at(b, 5)
    a_bound = word_at(word_at(task, BOUNDS), p)
    b_bound = word_at(word_at(task, BOUNDS), q) if q != p else -1
    code = field(task, s, HEADS) + 8 * FULL_HEAD * rows[0]
    for row in range(rows[0], rows[1]):
        w0, w1, w2 = word_at(code, 0), word_at(code, 1), word_at(code, 2)
        w3, w4, w5 = word_at(code, 3), word_at(code, 4), word_at(code, 5)
        from_a = popcount(a0 ^ w0) + popcount(a1 ^ w1) + popcount(a2 ^ w2)
        from_a += popcount(a3 ^ w3) + popcount(a4 ^ w4) + popcount(a5 ^ w5)
        from_b = popcount(b0 ^ w0) + popcount(b1 ^ w1) + popcount(b2 ^ w2)
        from_b += popcount(b3 ^ w3) + popcount(b4 ^ w4) + popcount(b5 ^ w5)
        if from_a <= a_bound:
            at = keep_within(task, p, s, row, at)
        if from_b <= b_bound:
            at = keep_within(task, q, s, row, at)
        code += 8 * FULL_HEAD
    return at


@inner
def scan_block(task: int, s: int, rows: tuple[int, int, int]) -> int:
    """Scan ``rows`` = (start, stop, hits before) with every patch; return the end of the hits."""
    start, stop, at = rows
    n_patches = word_at(task, N_PATCHES)
    for p in range(0, n_patches, 2):
        q = min(p + 1, n_patches - 1)
        if word_at(task, HEAD_WORDS) == FULL_HEAD:
            at = scan_pair(task, (p, q), s, (start, stop), at)
            continue
        for row in range(start, stop):
            at = keep_within(task, p, s, row, at)
            if q != p:
                at = keep_within(task, q, s, row, at)
    return at


@kernel
def exact(task: int, piece: int) -> None:
    """Scan the rows of ``piece`` = (segment, next row, end row, hits) with every patch.

    It stops early where the hits of another block might not fit; ``piece`` tells how far it came.
    """
    s, start, end, at = word_at(piece, 0), word_at(piece, 1), word_at(piece, 2), 0
    while start < end:
        stop = min(start + BLOCK, end)
        if at + (stop - start) * word_at(task, N_PATCHES) > word_at(task, HIT_CAPACITY):
            break
        at = scan_block(task, s, (start, stop, at))
        start = stop
    put_word(piece, 1, start)
    put_word(piece, 3, at)
