"""RetCCL's ranking equals its oracle on random result sets, degenerate ones included."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sish_cluster.core.embedding import COSINE_UNITS
from sish_cluster.core.seams import PatchCandidates
from sish_cluster.router.ranking import RankingSettings, RetcclRanker
from tests.oracles import retccl as oracle

LABELS = ("adeno", "squamous", "normal", "")


@st.composite
def result_sets(draw):
    """Return (label of each slide, per query patch its (slide, distance) results, the units)."""
    labels = draw(st.lists(st.sampled_from(LABELS), min_size=1, max_size=8))
    units, most = draw(st.sampled_from([(COSINE_UNITS, 2 * COSINE_UNITS - 1), (8, 16), (512, 128)]))
    one = st.tuples(st.integers(0, len(labels) - 1), st.integers(0, most))
    results = st.lists(one, max_size=9).map(lambda rows: sorted(rows, key=lambda row: row[1]))
    return labels, draw(st.lists(results, max_size=12)), units


def candidates_of(patches):
    return [
        PatchCandidates(
            number,
            np.array([slide for slide, _ in rows], np.int64),
            np.array([distance for _, distance in rows], np.int64),
            np.arange(len(rows)),
            np.zeros((len(rows), 2), np.int32),
        )
        for number, rows in enumerate(patches)
    ]


def ranked_by_product(result_set, counts, k, ascending):
    labels, patches, units = result_set
    ranker = RetcclRanker(RankingSettings(retccl_certain_first=ascending))
    return ranker.ranked(candidates_of(patches), labels, label_counts=counts, k=k, units=units)


def ranked_by_oracle(result_set, counts, k, ascending):
    labels, patches, units = result_set
    rows = [[(str(s), labels[s], distance) for s, distance in found] for found in patches]
    return oracle.ranked(rows, counts, k, units, ascending=ascending)


@settings(max_examples=400, deadline=None)
@example((["adeno"], [], 512), 5, True, True)
@example((["adeno"], [[], []], 512), 5, True, True)
@example((["", ""], [[(0, 3), (1, 4)], [(1, 2)]], 512), 5, True, True)
@example((["adeno", "normal"], [[(0, 16), (1, 16)]], 8), 5, True, False)
@example((["adeno", "normal"], [[(0, 1)], [(1, 1)], [(0, 1)]], 3), 5, False, True)
@given(result_sets(), st.integers(1, 6), st.booleans(), st.booleans())
def test_retccl_equals_its_oracle(result_set, k, ascending, is_counted):
    labels = result_set[0]
    counts = dict(sorted(Counter(labels).items())) if is_counted else {}
    expected, label = ranked_by_oracle(result_set, counts, k, ascending)
    ranked = ranked_by_product(result_set, counts, k, ascending)
    found = [(str(s.slide), s.query_number, s.distance) for s in ranked.slides]
    assert found == [(slide, patch, distance) for slide, patch, _, distance in expected]
    entropies = [entropy for _, _, entropy, _ in expected]
    np.testing.assert_allclose([s.score for s in ranked.slides], entropies, atol=1e-9)
    bits = [entropy / math.log(2) for entropy in entropies]
    np.testing.assert_allclose([s.uncertainty for s in ranked.slides], bits, atol=1e-9)
    assert ranked.predicted_label == label
    assert bool(ranked.reason) == (not expected)
    assert not ranked.votes or sum(ranked.votes.values()) == pytest.approx(1)


def test_a_rare_label_outweighs_a_common_one_in_the_entropy_but_not_in_the_vote():
    # Four candidates of a common label, one of a rare: the majority is common, p is nearly even.
    labels = ["common", "common", "common", "common", "rare"]
    patches = [[(slide, 0) for slide in range(5)]]
    ranked = ranked_by_product((labels, patches, 512), {"common": 4, "rare": 1}, 5, True)
    assert (ranked.predicted_label, ranked.slides[0].slide) == ("common", 0)
    assert ranked.uncertainties[0] == pytest.approx(1.0)


def test_a_far_query_patch_returns_nothing_however_certain_it_is():
    labels = ["adeno", "normal", "normal"]
    near, far = [(1, 10), (0, 12), (2, 12)], [(0, 200)]
    ranked = ranked_by_product((labels, [near, near, far], 512), {"adeno": 1, "normal": 2}, 5, True)
    assert [slide.query_number for slide in ranked.slides] == [0]
    assert ranked.uncertainties[2] == 0.0
