"""The default rankings: the slide itself first, nothing lost, an answer for every case."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sish_cluster.core.query import Ranking
from sish_cluster.core.seams import PatchCandidates
from sish_cluster.router.ranking import (
    RankingSettings,
    RrfRanker,
    UncertaintyRanker,
    ranker_of,
)

N_SLIDES = 12
ITSELF = 7
result_list = st.lists(st.tuples(st.integers(0, N_SLIDES - 1), st.integers(1, 9)), max_size=12)
result_lists = st.lists(result_list, min_size=1, max_size=14)
labels = st.lists(st.sampled_from(["", "a", "b", "c"]), min_size=N_SLIDES, max_size=N_SLIDES)
rankers = st.sampled_from([UncertaintyRanker(), RrfRanker()])
counts = st.dictionaries(st.sampled_from("abc"), st.integers(0, 9))


def patches_of(lists):
    rows = [sorted(found, key=lambda row: (row[1], row[0])) for found in lists]
    return [
        PatchCandidates(
            number,
            np.array([slide for slide, _ in found], np.int64),
            np.array([distance for _, distance in found], np.int64),
            np.arange(len(found)),
            np.zeros((len(found), 2), np.int32),
        )
        for number, found in enumerate(rows)
    ]


@given(rankers, result_lists, labels, counts)
@settings(max_examples=300, deadline=None)
def test_a_slide_that_is_in_the_index_comes_first_with_distance_0(ranker, lists, labels, counts):
    patches = patches_of([[*found, (ITSELF, 0)] for found in lists])
    ranked = ranker.ranked(patches, labels, label_counts=counts, k=3, units=512.0)
    assert (ranked.slides[0].slide, ranked.slides[0].distance) == (ITSELF, 0)


@given(rankers, result_lists, labels, counts)
@settings(max_examples=300, deadline=None)
def test_a_slide_alone_at_distance_0_in_one_patch_more_than_others_comes_first(
    ranker, lists, labels, counts
):
    # Another slide also has distance 0, in all patches but the last.
    zeros = [[*found, (ITSELF, 0), (0, 0)] for found in lists]
    patches = patches_of([*zeros, [(ITSELF, 0), (0, 1)]])
    assert (
        ranker.ranked(patches, labels, label_counts=counts, k=2, units=512.0).slides[0].slide
        == ITSELF
    )


@given(rankers, result_lists, labels, counts)
@settings(max_examples=300, deadline=None)
def test_every_slide_with_a_candidate_is_ranked_once_in_order_of_score(
    ranker, lists, labels, counts
):
    patches = patches_of(lists)
    ranked = ranker.ranked(patches, labels, label_counts=counts, k=99, units=512.0)
    found = [slide.slide for slide in ranked.slides]
    assert sorted(found) == sorted({slide for rows in lists for slide, _ in rows})
    assert bool(ranked.reason) == (not found)
    if ranked.votes:
        assert sum(ranked.votes.values()) == pytest.approx(1)
        assert ranked.predicted_label in ranked.votes
    top = ranker.ranked(patches, labels, label_counts=counts, k=3, units=512.0).slides
    assert list(top) == list(ranked.slides[:3])


@given(result_lists, labels)
@settings(max_examples=100, deadline=None)
def test_the_pair_that_ranked_a_slide_is_one_of_its_candidates(lists, labels):
    patches = patches_of(lists)
    ranked = UncertaintyRanker().ranked(patches, labels, label_counts={}, k=99, units=512.0)
    for slide in ranked.slides:
        patch = patches[slide.query_number]
        nearest = min(patch.distances[patch.slides == slide.slide].tolist())
        assert slide.distance == nearest
        assert slide.uncertainty == ranked.uncertainties.get(slide.query_number, 0.0)


def test_many_near_patches_beat_one_certain_stranger():
    # Patch 0 sees only slide 0, far away: "certain". Slide 1 is nearest in four mixed patches.
    mixed = [(1, 10), (2, 40), (3, 41)]
    patches = patches_of([[(0, 120)], mixed, mixed, mixed, mixed])
    ranked = UncertaintyRanker().ranked(
        patches, ["a", "b", "a", "c"], label_counts={"a": 2, "b": 1, "c": 1}, k=4, units=512.0
    )
    assert ranked.slides[0].slide == 1


def test_a_certain_patch_counts_more_than_an_uncertain_one():
    certain, mixed = [(0, 30), (2, 31)], [(4, 30), (1, 31)]
    ranked = UncertaintyRanker().ranked(
        patches_of([mixed, certain]),
        list("abaca"),
        label_counts={"a": 1, "b": 1, "c": 1},
        k=2,
        units=512.0,
    )
    assert [slide.slide for slide in ranked.slides] == [0, 4]


def test_one_pair_much_nearer_than_usual_beats_being_first_among_far_pairs():
    far = [(1, 150), (2, 151), (3, 152)]
    patches = patches_of([[(0, 60), (2, 150)], far, far, far])
    labels = ["a", "b", "a", "b"]
    ranked = UncertaintyRanker().ranked(
        patches, labels, label_counts={"a": 2, "b": 2}, k=2, units=512.0
    )
    assert [slide.slide for slide in ranked.slides] == [0, 1]
    assert ranked.predicted_label == "a"


def test_far_candidates_alone_still_vote():
    patches = patches_of([[(0, 0)] * 6, [(1, 60_000)], [(2, 60_000)]])
    labels = ["", "a", "b"]
    ranked = UncertaintyRanker().ranked(patches[1:], labels, label_counts={}, k=3, units=512.0)
    assert ranked.votes == pytest.approx({"a": 0.5, "b": 0.5})
    every = UncertaintyRanker().ranked(patches, labels, label_counts={}, k=3, units=512.0)
    assert [slide.slide for slide in every.slides] == [0, 1, 2]


def test_rare_labels_weigh_more_by_the_collections_counts():
    patches = patches_of([[(0, 1), (1, 2)]])
    even, rare = (
        UncertaintyRanker()
        .ranked(patches, ["a", "b"], label_counts=label_counts, k=2, units=512.0)
        .votes
        for label_counts in ({"a": 5, "b": 5}, {"a": 50, "b": 5})
    )
    assert even == pytest.approx({"a": 2 / 3, "b": 1 / 3})
    assert rare == pytest.approx({"a": 1 / 6, "b": 5 / 6})


def test_without_labels_reciprocal_ranks_decide():
    patches = patches_of([[(0, 1), (1, 2)], [(1, 5), (2, 6)]])
    nameless = [""] * 3
    default = UncertaintyRanker().ranked(patches, nameless, label_counts={}, k=3, units=512.0)
    assert default == RrfRanker().ranked(patches, nameless, label_counts={}, k=3, units=512.0)
    assert [slide.slide for slide in default.slides] == [1, 0, 2]
    assert default.slides[0].score == pytest.approx(1 / 61 + 1 / 62)
    assert (default.votes, default.predicted_label) == ({}, "")


@pytest.mark.parametrize("ranking", list(Ranking))
def test_every_ranking_says_why_there_is_no_slide(ranking):
    ranked = ranker_of(ranking, RankingSettings()).ranked([], [], label_counts={}, k=5, units=512.0)
    assert not ranked.slides
    assert "no query patch has a candidate" in ranked.reason
