"""Any cut of an index into shards merges to the answer of the one index."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sish_cluster.core.candidate import Examined
from sish_cluster.core.errors import Internal
from sish_cluster.core.key import UNIVERSE
from sish_cluster.core.query import Mode
from sish_cluster.core.slide import Slide
from sish_cluster.router.merge import merged_answer
from sish_cluster.router.rows import order_of

COARSE_UNIT = 10**11
SLIDES = [Slide(name, site=site) for name, site in zip("dbeacf", "xyxyzz", strict=True)]

# Keys collide, lie beside the seeds, and at both ends of the universe.
keys = st.one_of(
    st.integers(0, 12).map(lambda n: n * COARSE_UNIT // 2),
    st.integers(0, 6).map(lambda n: n * COARSE_UNIT + 1),
    st.integers(UNIVERSE - 3, UNIVERSE - 1),
)
codes = st.integers(0, 15)
rows = st.lists(st.tuples(keys, codes, st.integers(0, 5)), max_size=40)
patches = st.lists(st.tuples(keys, codes), min_size=1, max_size=4)
bounds = st.fixed_dictionaries(
    {
        "max_distance": st.integers(0, 3),
        "seeds_per_side": st.integers(1, 4),
        "seed_spacing": st.integers(1, 2),
        "max_steps": st.integers(0, 5),
        "max_candidates": st.sampled_from([0, 0, 2]),
    }
)


def postings_from(model, drawn):
    slides = [SLIDES[s] for _, _, s in drawn]
    numbers = [slides[:n].count(slide) for n, slide in enumerate(slides)]
    rows = zip(drawn, slides, numbers, strict=True)
    return [model.Posting(key, code, slide, number) for (key, code, _), slide, number in rows]


def flat(merged):
    return [
        [
            (int(d), merged.slides[s].slide_id, int(n))
            for d, s, n in zip(patch.distances, patch.slides, patch.numbers, strict=True)
        ]
        for patch in merged.patches
    ]


@pytest.mark.parametrize("mode", [Mode.SISH, Mode.GUIDED, Mode.EXACT])
@given(
    drawn=rows,
    patches=patches,
    bounds=bounds,
    cut=st.lists(keys, max_size=3),
    by_site=st.booleans(),
)
@settings(max_examples=120, deadline=None)
def test_every_cut_gives_the_candidates_order_and_counts_of_one_index(
    model, mode, drawn, patches, bounds, cut, by_site
):
    postings = postings_from(model, drawn)
    query = model.query_of(patches, mode=mode, **bounds)
    shards: dict[object, list] = {("", 0): [], ("", 1): []}
    for posting in postings:
        part = (posting.slide.site if by_site else "", sum(posting.key >= bound for bound in cut))
        shards.setdefault(part, []).append(posting)
    answers = [model.answer_of(part, query, wants_examined=True) for part in shards.values()]
    merged = merged_answer(answers, query)
    expected = [model.one_index(postings, q, c, mode, query.settings) for q, c in patches]
    limit = query.settings.max_candidates or None
    assert flat(merged) == [
        [(d, p.slide.slide_id, p.number) for d, p in found[:limit]] for found, _ in expected
    ]
    assert merged.examined_counts.tolist() == [count for _, count in expected]
    assert merged.eligible == len(postings)


@given(drawn=rows, patches=patches, bounds=bounds)
@settings(max_examples=40, deadline=None)
def test_a_lone_shards_answer_is_taken_as_it_is(model, drawn, patches, bounds):
    query = model.query_of(patches, mode=Mode.SISH, **bounds)
    postings = postings_from(model, drawn)
    alone = merged_answer([model.answer_of(postings, query, wants_examined=False)], query)
    shared = merged_answer([model.answer_of(postings, query, wants_examined=True)], query)
    assert flat(alone) == flat(shared)
    assert alone.examined_counts.tolist() == shared.examined_counts.tolist()


def test_equal_keys_of_several_shards_add_their_counts(model):
    slide = Slide("a")
    query = model.query_of([(5, 0)], mode=Mode.GUIDED, max_distance=1)
    parts = [[model.Posting(7, 0, slide, n)] for n in range(3)]
    answers = [model.answer_of(part, query, wants_examined=True) for part in parts]
    merged = merged_answer(answers, query)
    assert merged.examined_counts.tolist() == [3]
    assert [s.slide_id for s in merged.slides] == ["a"]


def test_a_shard_without_examined_keys_is_reported_as_a_bug(model):
    query = model.query_of([(5, 0)], mode=Mode.GUIDED)
    answer = model.answer_of([], query, wants_examined=False)
    with pytest.raises(Internal, match="must send the keys it examined"):
        merged_answer([answer, answer], query)


def test_a_candidate_at_a_key_nobody_examined_is_reported_as_a_bug(model):
    query = model.query_of([(5, 0)], mode=Mode.GUIDED)
    answer = model.answer_of([model.Posting(7, 0, Slide("a"), 0)], query, wants_examined=True)
    damaged = dataclasses.replace(answer, examined=Examined.empty())
    with pytest.raises(Internal, match="does not name as examined"):
        merged_answer([damaged, damaged], query)


def test_answers_of_different_modes_are_never_merged(model):
    modes = (Mode.GUIDED, Mode.EXACT)
    queries = [model.query_of([(5, 0)], mode=mode) for mode in modes]
    answers = [model.answer_of([], query, wants_examined=True) for query in queries]
    with pytest.raises(Internal, match="one resolved mode"):
        merged_answer(answers, queries[0])


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 2**62)), max_size=30), st.integers(0, 62)
)
def test_order_of_is_the_lexicographic_order_whether_columns_fit_in_63_bits_or_not(values, shift):
    first = np.array([a for a, _ in values], np.int64)
    second = np.array([b >> shift for _, b in values], np.int64)
    expected = sorted(range(len(values)), key=lambda n: (first[n], second[n]))
    assert order_of(first, second).tolist() == expected
