"""The direct search against plain double precision: same pairs, same distances, however it is computed."""

import itertools
import math

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sish_cluster.core.clock import NEVER_CANCELLED, Cancellation
from sish_cluster.core.embedding import distance_of
from sish_cluster.core.errors import Cancelled
from sish_cluster.core.query import Mode, SearchSettings
from sish_cluster.shard import vectors_search
from sish_cluster.shard.index import PostingIndex
from sish_cluster.shard.vectors import SlideVectors, Vectors, width_of
from sish_cluster.shard.vectors_lanes import LANES, widen_by_parts
from sish_cluster.shard.vectors_patches import margin_of
from sish_cluster.shard.vectors_search import direct


class Archive:
    """Slides of embeddings with keys in any order; slide i is ordinal i, its id sorts otherwise."""

    def __init__(self, slides, rng_seed=0):
        rng = np.random.default_rng(rng_seed)
        self.slides = [np.asarray(slide, np.float16) for slide in slides]
        self.vectors = Vectors(self.slides[0].shape[1])
        index = PostingIndex(code_bytes=0)
        for ordinal, rows in enumerate(self.slides):
            n = len(rows)
            self.vectors.put(ordinal, SlideVectors.of(rows))
            index.insert(
                keys=rng.integers(0, 100, n, dtype=np.uint64),
                codes=np.zeros((n, 0), np.uint8),
                ordinals=np.full(n, ordinal, np.uint32),
                numbers=np.arange(n, dtype=np.uint32) * 3,
                corners=np.zeros((n, 2), np.int32),
            )
        self.snapshot = index.snapshot()

    def slide_id(self, ordinal):
        return f"s{(ordinal * 7) % 10}-{ordinal}"

    def found(self, queries, least, *, k=0, eligible=None, n_threads=1, cancel=NEVER_CANCELLED):
        chosen = np.ones(len(self.slides), bool) if eligible is None else eligible
        found = direct(
            self.snapshot,
            self.vectors.view(len(self.slides)),
            np.asarray(queries, np.float16),
            SearchSettings(mode=Mode.DIRECT, min_cosine=least, max_candidates=k),
            eligible=chosen,
            slide_ids_of=lambda ordinals: [self.slide_id(o) for o in ordinals.tolist()],
            cancellation=cancel,
            n_threads=n_threads,
        )
        rows = zip(found.distances, found.ordinals, found.numbers, strict=True)
        every = [(int(d), self.slide_id(int(o)), int(n)) for d, o, n in rows]
        return [every[a:b] for a, b in itertools.pairwise(found.offsets.tolist())]

    def expected(self, queries, least, *, k=0, eligible=None):
        answer = []
        for query in np.asarray(queries, np.float16).astype(float):
            rows = []
            for ordinal, slide in enumerate(self.slides):
                if eligible is not None and not eligible[ordinal]:
                    continue
                for row, other in enumerate(slide.astype(float)):
                    cosine = cosine_of(query, other)
                    if cosine >= least:
                        distance = int(distance_of(cosine))
                        rows.append((distance, self.slide_id(ordinal), 3 * row))
            answer.append(sorted(rows)[: k or None])
        return answer


def cosine_of(a, b):
    squares = math.fsum(a * a) * math.fsum(b * b)
    return math.fsum(a * b) / math.sqrt(squares)


def drawn(rng, n, dimensions):
    rows = rng.standard_normal((n, dimensions)) + rng.standard_normal(dimensions)
    return rows * 10.0 ** rng.integers(-3, 3, (n, 1))


@given(
    st.integers(0, 2**32),
    st.sampled_from([1, 3, 16, 17, 40]),
    st.lists(st.integers(0, 30), min_size=1, max_size=6).filter(any),
    st.integers(1, 70),
    st.sampled_from([-1.0, 0.0, 0.5, 0.7, 0.99]),
    st.sampled_from([0, 1, 5]),
)
@settings(max_examples=60, deadline=None)
def test_pairs_and_distances_are_those_of_double_precision(
    rng_seed, dimensions, sizes, n_queries, least, k
):
    rng = np.random.default_rng(rng_seed)
    archive = Archive([drawn(rng, n, dimensions) for n in sizes], rng_seed)
    queries = drawn(rng, n_queries, dimensions)
    eligible = rng.random(len(sizes)) < 0.7
    found = archive.found(queries, least, k=k, eligible=eligible)
    assert found == archive.expected(queries, least, k=k, eligible=eligible)


def test_blocks_and_threads_and_passes_change_nothing(monkeypatch):
    rng = np.random.default_rng(3)
    archive = Archive([drawn(rng, 40, 20) for _ in range(30)])
    queries = drawn(rng, 50, 20)
    whole = archive.found(queries, 0.2, k=7)
    assert whole == archive.expected(queries, 0.2, k=7)
    for numbers, patches, hits in ((64, 7, 1), (1000, 33, 500), (10**6, 16, 10**4)):
        monkeypatch.setattr(vectors_search, "NUMBERS_PER_BLOCK", numbers)
        monkeypatch.setattr(vectors_search, "PATCHES_PER_PASS", patches)
        monkeypatch.setattr(vectors_search, "HITS_HELD", hits)
        assert archive.found(queries, 0.2, k=7, n_threads=3) == whole


def test_a_row_reaches_a_cosine_of_one_with_itself_and_its_doubles():
    rng = np.random.default_rng(5)
    rows = drawn(rng, 200, 33).astype(np.float16)
    archive = Archive([rows, 2 * rows, -rows])
    for number, found in enumerate(archive.found(rows, 1.0)):
        assert found == [(0, "s0-0", 3 * number), (0, "s7-1", 3 * number)]


def test_every_finite_half_counts_with_its_exact_value():
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    finite = every[np.isfinite(every) & (every != 0)]
    block = SlideVectors.of(finite.reshape(-1, 1))
    lengths = 1.0 / np.abs(finite.astype(float))
    assert np.array_equal(block.factors, lengths.astype(np.float32))


@numba.njit
def widened_by_parts(halves, n, singles):
    for i in range(0, n, LANES):
        widen_by_parts(halves + 2 * i, singles + 4 * i)


def test_machines_that_cannot_widen_halves_get_the_same_singles():
    every = np.arange(1 << 16, dtype=np.uint16)
    found = np.empty(len(every), np.float32)
    widened_by_parts(every.ctypes.data, len(every), found.ctypes.data)
    halves = every.view(np.float16)
    is_finite = np.isfinite(halves)
    expected = halves[is_finite].astype(np.float32)
    assert np.array_equal(found[is_finite].view(np.uint32), expected.view(np.uint32))


def test_rows_at_the_bound_by_single_precision_are_decided_by_double_precision():
    rng = np.random.default_rng(8)
    base = rng.standard_normal(512)
    rows = np.float16(base + 1e-3 * rng.standard_normal((300, 512)))
    archive = Archive([rows])
    cosines = sorted(cosine_of(rows[0].astype(float), row.astype(float)) for row in rows)
    gaps = np.diff(cosines)
    assert gaps.min() < 1e-9 < margin_of(512)
    for least in cosines[100:110]:
        found = archive.found(rows[:1], least)
        assert len(found[0]) == sum(cosine >= least for cosine in cosines)


def test_the_margin_covers_what_single_precision_may_lose():
    rng = np.random.default_rng(9)
    rows = np.float16(rng.random((50, 4096)))
    units = rows / np.linalg.norm(rows.astype(float), axis=1)[:, None]
    singles = units.astype(np.float32)
    summed = np.zeros((50, 50), np.float32)
    for column in range(4096):  # one order of additions, the worst kind
        summed += np.outer(singles[:, column], singles[:, column])
    errors = np.abs(summed - units @ units.T)
    assert 0 < errors.max() < margin_of(width_of(4096))


def test_a_search_ends_between_two_blocks_when_its_caller_leaves(monkeypatch):
    monkeypatch.setattr(vectors_search, "NUMBERS_PER_BLOCK", 64)
    archive = Archive([drawn(np.random.default_rng(1), 20, 16) for _ in range(10)])
    looks = itertools.count()
    cancel = Cancellation(is_cancelled=lambda: next(looks) >= 3)
    with pytest.raises(Cancelled):
        archive.found(np.ones((2, 16)), 0.0, cancel=cancel)
    assert next(looks) == 4


def test_memory_is_two_bytes_a_dimension_and_four_a_posting():
    vectors = Vectors(1000)
    for ordinal in range(5):
        vectors.put(ordinal, SlideVectors.of(np.ones((100, 1000), np.float16)))
    assert vectors.memory_bytes == 500 * (2 * 1008 + 4)
    vectors.release(3)
    assert vectors.memory_bytes == 400 * (2 * 1008 + 4)
