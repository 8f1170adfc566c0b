"""The direct scan: every embedding of some slides against every query patch, by cosine.

Products of single precision only choose: a pair whose product comes within a safe margin of its bound
(`vectors_patches.margin_of`) gets its cosine anew, from the two rows of halves alone, in double precision
and in one order of additions. So neither the cut into shards, slides, blocks and tiles nor the machine's
registers can change an answer.

    cosine = sum(a_i b_i) / sqrt(sum(a_i a_i) sum(b_i b_i))

Products of halves are exact in double precision, and so is the root of a square: a row's cosine to itself
is 1 to the bit.
"""

# mypy: disable-error-code="no-any-return"

from __future__ import annotations

import math

import numpy as np

from sish_cluster.core.embedding import COSINE_UNITS, MAX_DISTANCE_UNITS
from sish_cluster.shard.compiled import inner, kernel
from sish_cluster.shard.vectors_lanes import (
    LANES,
    ROW_GAP,
    TILE_ROWS,
    TILE_VECTORS,
    double_at,
    exact_product,
    exact_square,
    lone_tile,
    narrow_tile,
    put_double,
    put_single,
    reaching,
    wide_tile,
    widen,
)
from sish_cluster.shard.words import first_bit, put_word, word_at

(
    N_SLIDES,
    ROWS,
    FACTORS,
    COUNTS,
    WIDTH,
    N_PATCHES,
    N_WIDE,
    N_LONE,
    HAS_NARROW,
    PANELS,
    LONE,
    BOUNDS,
    QUERIES,
    SQUARES,
    LEAST,
    FARTHEST,
    SINGLES,
    PRODUCTS,
    HITS,
    HIT_CAPACITY,
    N_JOB,
) = range(21)
"""Words of a job. Addresses: lists of the addresses of each slide's rows (halves) and factors (singles, one
over the length of each row), and of its row counts; the query patches' panels, the rows of those in no
panel, and bounds (singles, of length 1); their rows and squares (doubles); the least cosine (one
double); the largest distance of each patch; room for a tile's rows and products (singles); hits. The
others: slides, numbers of a row (a multiple of 16), patches, wide panels, patches in no panel, whether a
narrow panel follows instead, hits there is room for."""

SLIDE, ROW, N_HITS, ROWS_LEFT, N_STATE = range(5)
"""Words of a scan's state: next slide, next row of it, hits written, rows to do before it stops."""

HIT_WORDS = 4
"""Words of a hit: query patch, slide of the job, row of the slide, distance."""


@inner
def distance_units(cosine: float) -> int:
    """Return the distance of a cosine; see `core.embedding.distance_of`."""
    units = np.rint((1.0 - cosine) * COSINE_UNITS)
    return int(min(max(units, 0.0), float(MAX_DISTANCE_UNITS)))


@inner
def keep_pair(job: int, patch: int, row: tuple[int, int, int], square: float, at: int) -> int:
    """Keep a pair if its cosine reaches the bounds; ``row`` = (slide, row, address)."""
    width = word_at(job, WIDTH)
    squares = double_at(word_at(job, SQUARES), patch) * square
    query = word_at(job, QUERIES) + 8 * width * patch
    cosine = exact_product(row[2], query, width // LANES) / math.sqrt(squares)
    distance = distance_units(cosine)
    is_far = distance > word_at(word_at(job, FARTHEST), patch)
    if is_far or cosine < double_at(word_at(job, LEAST), 0):
        return at
    hit = word_at(job, HITS) + 8 * HIT_WORDS * at
    put_word(hit, 0, patch)
    put_word(hit, 1, row[0])
    put_word(hit, 2, row[1])
    put_word(hit, 3, distance)
    return at + 1


@inner
def keep_reaching(job: int, first: int, n_vectors: int, rows: tuple[int, int, int], at: int) -> int:
    """Keep the pairs of one tile that may reach their bounds.

    ``first`` is the tile's first patch; ``rows`` = (slide, first row, rows).
    """
    slide, start, n_rows = rows
    width = word_at(job, WIDTH)
    for r in range(n_rows):
        factor = word_at(word_at(job, FACTORS), slide) + 4 * (start + r)
        address = word_at(word_at(job, ROWS), slide) + 2 * width * (start + r)
        square = 0.0
        for v in range(n_vectors):
            patch = first + LANES * v
            products = word_at(job, PRODUCTS) + 4 * LANES * (n_vectors * r + v)
            near = reaching(products, factor, word_at(job, BOUNDS) + 4 * patch)
            if near and square == 0.0:
                square = exact_square(address, width // LANES)
            while near:
                row = (slide, start + r, address)
                at = keep_pair(job, patch + first_bit(near), row, square, at)
                near &= near - 1
    return at


@inner
def scan_tile(job: int, slide: int, start: int, n_rows: int, at: int) -> int:
    """Scan up to TILE_ROWS rows of a slide with every patch; return the end of the hits."""
    width, singles = word_at(job, WIDTH), word_at(job, SINGLES)
    source = word_at(word_at(job, ROWS), slide) + 2 * width * start
    for r in range(n_rows):
        target = singles + 4 * (width + ROW_GAP) * r
        for i in range(0, width, LANES):
            widen(source + 2 * (width * r + i), target + 4 * i)
    panel, first = word_at(job, PANELS), 0
    rows = (slide, start, n_rows)
    for _ in range(word_at(job, N_WIDE)):
        wide_tile(singles, panel, width, word_at(job, PRODUCTS))
        at = keep_reaching(job, first, TILE_VECTORS, rows, at)
        panel += 4 * LANES * TILE_VECTORS * width
        first += LANES * TILE_VECTORS
    for patch in range(word_at(job, N_LONE)):
        query = word_at(job, LONE) + 4 * width * patch
        lone_tile(singles, query, width, word_at(job, PRODUCTS) + 4 * patch)
    if word_at(job, N_LONE):
        at = keep_reaching(job, first, 1, rows, at)
    if word_at(job, HAS_NARROW):
        narrow_tile(singles, panel, width, word_at(job, PRODUCTS))
        at = keep_reaching(job, first, 1, rows, at)
    return at


@kernel
def scan(job: int, state: int) -> None:
    """Scan a job's slides on from ``state``, until they end, or hits might not fit, or enough is done."""
    slide, row, at = word_at(state, SLIDE), word_at(state, ROW), word_at(state, N_HITS)
    left = word_at(state, ROWS_LEFT)
    most = word_at(job, HIT_CAPACITY) - TILE_ROWS * word_at(job, N_PATCHES)
    while slide < word_at(job, N_SLIDES) and at <= most and left > 0:
        n_rows = min(TILE_ROWS, word_at(word_at(job, COUNTS), slide) - row)
        at = scan_tile(job, slide, row, n_rows, at)
        row += n_rows
        left -= n_rows
        if row >= word_at(word_at(job, COUNTS), slide):
            slide += 1
            row = 0
    put_word(state, SLIDE, slide)
    put_word(state, ROW, row)
    put_word(state, N_HITS, at)
    put_word(state, ROWS_LEFT, left)


@kernel
def measure(rows: int, n_rows: int, width: int, factors: int) -> None:
    """Write one over the length of each row of halves, as singles."""
    for r in range(n_rows):
        square = exact_square(rows + 2 * width * r, width // LANES)
        put_single(factors, r, 1.0 / math.sqrt(square))


@kernel
def squared(rows: int, n_rows: int, width: int, squares: int) -> None:
    """Write each row's sum of squares, as doubles."""
    for r in range(n_rows):
        put_double(squares, r, exact_square(rows + 2 * width * r, width // LANES))
