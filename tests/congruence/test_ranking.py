"""The published ranking equals its oracle on random result sets, degenerate ones included."""

from collections import Counter

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sish_cluster.core.seams import PatchCandidates
from sish_cluster.router.ranking.published import PublishedRanker
from tests.oracles import ranking as oracle

LABELS = ("adeno", "squamous", "normal", "small cell")


@st.composite
def result_sets(draw):
    """Return (label of each slide, per query patch its (slide, distance) results, nearest first)."""
    labels = draw(st.lists(st.sampled_from(LABELS), min_size=1, max_size=9))
    one = st.tuples(st.integers(0, len(labels) - 1), st.integers(0, 128))
    results = st.lists(one, max_size=12).map(lambda rows: sorted(rows, key=lambda row: row[1]))
    return labels, draw(st.lists(results, max_size=25))


def product(labels, patches, counts, k):
    candidates = [
        PatchCandidates(
            number,
            np.array([slide for slide, _ in rows], np.int64),
            np.array([distance for _, distance in rows], np.int64),
            np.arange(len(rows)),
            np.zeros((len(rows), 2), np.int32),
        )
        for number, rows in enumerate(patches)
    ]
    return PublishedRanker().ranked(candidates, labels, label_counts=counts, k=k, units=512.0)


def mosaics_of_22():
    """22 patches whose lengths P5 and P95 cut down to two."""
    lengths = [1] * 10 + [5] + [6] + [10] * 10
    return (["adeno", "normal"], [[(j % 2, 3 * j) for j in range(n)] for n in lengths])


def slides_of_a_dissenter_only():
    """All slides near enough are seen first by a patch whose own label loses the vote."""
    return ("babcb", [[(2, 0), (1, 2)], [(3, 0), (2, 1), (0, 2)]])


@settings(max_examples=300, deadline=None)
@example((["adeno"], []), 5)
@example((["adeno"], [[], []]), 5)
@example(
    (["adeno", "normal"], [[(0, 1)], [(1, 1)], [(0, 1), (1, 1)], [(0, 9)] * 3, [(1, 2)] * 4]), 5
)
@example(mosaics_of_22(), 5)
@example((["adeno"], [[(0, n)] * n for n in range(1, 9)]), 5)
@example((["normal"] * 3, [[(n % 3, 0), ((n + 1) % 3, 128)] for n in range(22)]), 5)
@example((["adeno", "normal"], [[(1, 4)], [(0, 1), (1, 1)], [(0, 1)] * 3, [(0, 1)] * 4]), 5)
@example(slides_of_a_dissenter_only(), 5)
@given(result_sets(), st.integers(1, 10))
def test_the_published_ranking_equals_its_oracle(result_set, k):
    labels, patches = result_set
    seen = {slide for rows in patches for slide, _ in rows}
    counts = dict(Counter(labels[slide] for slide in seen))
    expected = oracle.ranked(
        [[(str(slide), labels[slide], distance) for slide, distance in rows] for rows in patches],
        counts,
        k,
    )
    ranked = product(labels, patches, counts, k)
    found = [(str(s.slide), s.distance) for s in ranked.slides]
    assert found == [(slide, distance) for slide, _, distance in expected]
    uncertainties = [s.uncertainty for s in ranked.slides]
    np.testing.assert_allclose(uncertainties, [u for _, u, _ in expected], atol=1e-9)
    assert bool(ranked.reason) == (not expected)


def test_a_filter_by_prediction_that_removes_every_slide_says_so():
    labels, patches = slides_of_a_dissenter_only()
    counts = {"b": 2, "a": 1, "c": 1}
    ranked = product(labels, patches, counts, 5)
    assert not ranked.slides
    assert "filter by prediction removed every slide" in ranked.reason
    assert (ranked.predicted_label, ranked.distance_bound) == ("b", 1.0)


def test_percentiles_that_leave_two_of_22_query_patches_still_answer():
    labels, patches = mosaics_of_22()
    ranked = product(labels, patches, {"adeno": 1, "normal": 1}, 5)
    assert {slide.query_number for slide in ranked.slides} <= {10, 11}
    assert ranked.slides
