"""The exact scan: every row against every query patch of a slide.

Rows are taken in blocks whose code heads stay in the nearest cache while all patches pass over them, four
rows at a time, so that memory is read once per slide query and the work is counting bits.
"""

# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from sish_cluster.shard.compiled import inner, kernel
from sish_cluster.shard.layout import (
    BOUNDS,
    HEAD,
    HEADS,
    HIT_CAPACITY,
    LANES,
    N_PATCHES,
    bounded_distance,
    field,
    is_eligible_row,
    keep_hit,
    query_head,
)
from sish_cluster.shard.words import first_bit, four_heads_near, put_word, word_at

BLOCK = 256
"""Rows per block, a multiple of LANES: 14 KB of heads, half of a nearest cache."""


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
def keep_near(task: int, patch: int, s: int, rows: tuple[int, int, int], at: int) -> int:
    """Keep the rows of a group of four whose heads are near; ``rows`` = (first, end, which four bits)."""
    first, end, near = rows
    while near:
        row = first + first_bit(near)
        near &= near - 1
        if row < end:
            at = keep_within(task, patch, s, row, at)
    return at


@inner
def scan_rows(task: int, patch: int, s: int, rows: tuple[int, int], at: int) -> int:
    """Scan ``rows`` = (start, stop), start a multiple of LANES, with one patch; return the hits' end."""
    query, bound = query_head(task, patch), word_at(word_at(task, BOUNDS), patch)
    heads = field(task, s, HEADS)
    for first in range(rows[0], rows[1], LANES):
        near = four_heads_near(heads + 8 * HEAD * first, query, bound)
        if near:
            at = keep_near(task, patch, s, (first, rows[1], near), at)
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
        for patch in range(word_at(task, N_PATCHES)):
            at = scan_rows(task, patch, s, (start, stop), at)
        start = stop
    put_word(piece, 1, start)
    put_word(piece, 3, at)
