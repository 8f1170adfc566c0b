"""The exact scan: every row against every query patch of a slide.

Rows are taken in blocks whose code heads stay in the nearest cache while all patches pass over them, two
patches at a time with their words in registers, so that memory is read once per slide query and the work
is counting bits. Six of a head's eight words decide nearly always.
"""

# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from typing import Any

from sish_cluster.shard.compiled import inner, kernel
from sish_cluster.shard.layout import HEAD_WORDS, HEADS, ROW_BITS, bounded_distance, is_eligible_row
from sish_cluster.shard.walk import keep_row
from sish_cluster.shard.words import popcount, word_at

_BLOCK = 256
"""Rows per block: 16 KB of heads, half of a nearest cache."""


@inner
def keep_within(task: Any, sink: Any, bounds: Any, at: int, pair: Any) -> int:
    """Keep a (patch, segment, row) within the patch's bound if it is eligible; return the sink's end."""
    patch, s, row = pair
    distance = bounded_distance(task, patch, s, row, bounds[patch])
    if distance <= bounds[patch] and is_eligible_row(task, s, row):
        keep_row(sink, at, patch, (s << ROW_BITS) | row, distance)
        return at + 1
    return at


@inner
def scan_pair(task: Any, sink: Any, bounds: Any, at: int, block: Any) -> int:
    """Scan a block (first patch, segment, start, end) with two patches whose heads have eight words."""
    p, s, start, end = block
    q = min(p + 1, task.keys.size - 1)
    heads = task.heads
    a0, a1, a2 = heads[p, 0], heads[p, 1], heads[p, 2]
    a3, a4, a5 = heads[p, 3], heads[p, 4], heads[p, 5]
    b0, b1, b2 = heads[q, 0], heads[q, 1], heads[q, 2]
    b3, b4, b5 = heads[q, 3], heads[q, 4], heads[q, 5]
    a_bound, b_bound = bounds[p], (bounds[q] if q > p else -1)
    address = task.segments[s, HEADS] + 8 * HEAD_WORDS * start
    for row in range(start, end):
        w0, w1, w2 = word_at(address, 0), word_at(address, 1), word_at(address, 2)
        w3, w4, w5 = word_at(address, 3), word_at(address, 4), word_at(address, 5)
        a = popcount(a0 ^ w0) + popcount(a1 ^ w1) + popcount(a2 ^ w2)
        a += popcount(a3 ^ w3) + popcount(a4 ^ w4) + popcount(a5 ^ w5)
        b = popcount(b0 ^ w0) + popcount(b1 ^ w1) + popcount(b2 ^ w2)
        b += popcount(b3 ^ w3) + popcount(b4 ^ w4) + popcount(b5 ^ w5)
        if a <= a_bound:
            at = keep_within(task, sink, bounds, at, (p, s, row))
        if b <= b_bound:
            at = keep_within(task, sink, bounds, at, (q, s, row))
        address += 8 * HEAD_WORDS
    return at


@kernel
def exact(task: Any, sink: Any, bounds: Any, piece: Any) -> int:
    """Scan the rows of ``piece`` (segment, start row, end row) with every patch.

    ``bounds`` (n_patches,) is each patch's present bound. The sink is filled row block by row block; the
    return value is the first row not scanned, before which ``piece[3]`` gets the sink's end.
    """
    s, end = piece[0], piece[2]
    n_patches = task.keys.size
    at = 0
    start = piece[1]
    while start < end:
        stop = min(start + _BLOCK, end)
        if at + (stop - start) * n_patches > sink.places.size:
            break
        for p in range(0, n_patches, 2):
            if task.heads.shape[1] == HEAD_WORDS:
                at = scan_pair(task, sink, bounds, at, (p, s, start, stop))
                continue
            for patch in range(p, min(p + 2, n_patches)):
                for row in range(start, stop):
                    at = keep_within(task, sink, bounds, at, (patch, s, row))
        start = stop
    piece[3] = at
    return start
