"""The published ranking equals a slow model of it, and never crashes."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sish_cluster.core.seams import PatchCandidates
from sish_cluster.router.ranking import PublishedRanker, RankingSettings

# A result list is (slide, distance) pairs; slide s has label s % 3.
result_list = st.lists(st.tuples(st.integers(0, 11), st.integers(0, 9)), max_size=9)
result_lists = st.lists(result_list, max_size=24)
LABELS = [f"label {slide % 3}" for slide in range(12)]


def patches_of(lists):
    return [
        PatchCandidates(
            number,
            np.array([slide for slide, _ in found], np.int64),
            np.array([distance for _, distance in found], np.int64),
            np.arange(len(found)),
            np.zeros((len(found), 2), np.int32),
        )
        for number, found in enumerate(sorted(found, key=lambda row: row[1]) for found in lists)
    ]


def counts_of(patches):
    found = {slide for patch in patches for slide in patch.slides.tolist()}
    return Counter(LABELS[slide] for slide in sorted(found))


def shares_of(patch, counts):
    total_inverse = sum(1 / n for n in counts.values())
    sums: dict[str, float] = {}
    for place, slide in enumerate(patch.slides.tolist()):
        weight = 10 / (counts[LABELS[slide]] * total_inverse)
        sums[LABELS[slide]] = sums.get(LABELS[slide], 0.0) + weight / (place + 1)
    return {label: value / sum(sums.values()) for label, value in sums.items()}


def cleaned(patches, entropies):
    lengths = [len(patch) for patch in patches]
    if len(set(lengths)) > 3:
        low, high = np.percentile(lengths, 5), np.percentile(lengths, 95)
        patches = [patch for patch in patches if low < len(patch) < high]
    means = {p.query_number: sum(p.distances[:5].tolist()) / len(p.distances[:5]) for p in patches}
    tau = sum(means.values()) / max(len(means), 1)
    ordered = sorted(patches, key=lambda patch: entropies[patch.query_number])
    return [patch for patch in ordered if means[patch.query_number] <= tau], tau


def dissenters(kept, shares):
    first = [patch.query_number for patch in kept[:5]]
    votes: Counter[str] = Counter()
    for number in first:
        votes.update(shares[number])
    own = {number: max(shares[number], key=shares[number].__getitem__) for number in first}
    for label in sorted(votes, key=lambda label: -votes[label]):
        removed = [number for number in first if own[number] != label]
        if len(removed) < len(first):
            return removed
    return []


def slow_ranking(patches, counts):
    patches = [patch for patch in patches if len(patch)]
    shares = {patch.query_number: shares_of(patch, counts) for patch in patches}
    entropies = {n: -sum(p * math.log2(p) for p in share.values()) for n, share in shares.items()}
    kept, tau = cleaned(patches, entropies)
    seen = {}
    for patch in kept:
        entropy = entropies[patch.query_number]
        for slide, distance in zip(patch.slides.tolist(), patch.distances.tolist(), strict=True):
            if slide not in seen and (entropy == 0 or distance <= tau):
                seen[slide] = (entropy, distance, patch.query_number)
    removed = dissenters(kept, shares)
    ordered = sorted(seen.items(), key=lambda item: item[1][:2])
    return [(slide, *row) for slide, row in ordered if row[2] not in removed]


@given(result_lists)
@settings(max_examples=300, deadline=None)
def test_the_published_ranking_equals_its_slow_model(lists):
    patches = patches_of(lists)
    counts = counts_of(patches)
    ranked = PublishedRanker().ranked(patches, LABELS, label_counts=counts, k=50, units=512.0)
    found = [(s.slide, s.uncertainty, s.distance, s.query_number) for s in ranked.slides]
    assert found == slow_ranking(patches, counts)
    assert bool(ranked.reason) == (not found)
    assert not ranked.votes or sum(ranked.votes.values()) == pytest.approx(1)


@given(result_lists, st.integers(1, 4))
@settings(max_examples=50, deadline=None)
def test_k_keeps_the_first_slides(lists, k):
    patches = patches_of(lists)
    counts = counts_of(patches)
    every = PublishedRanker().ranked(patches, LABELS, label_counts=counts, k=99, units=512.0).slides
    assert (
        PublishedRanker().ranked(patches, LABELS, label_counts=counts, k=k, units=512.0).slides
        == every[:k]
    )


def test_no_results_give_an_empty_list_that_says_why():
    ranked = PublishedRanker().ranked(
        patches_of([[], []]), LABELS, label_counts={}, k=5, units=512.0
    )
    assert ranked.slides == ()
    assert "no query patch has a candidate" in ranked.reason


def test_cleaning_that_leaves_nothing_gives_an_empty_list_that_says_why():
    lists = [[(n % 4 * 3, 1)] * length for n, length in enumerate([1] * 10 + [2] + [3] + [4] * 10)]
    patches = patches_of(lists)
    usual = PublishedRanker().ranked(
        patches, LABELS, label_counts=counts_of(patches), k=5, units=512.0
    )
    assert {slide.query_number for slide in usual.slides} == {10, 11}
    strict = RankingSettings(low_percentile=50, high_percentile=50)
    emptied = PublishedRanker(strict).ranked(
        patches, LABELS, label_counts=counts_of(patches), k=5, units=512.0
    )
    assert emptied.slides == ()
    assert "cleaning" in emptied.reason


def test_a_slide_first_seen_by_a_removed_patch_is_lost_as_published():
    # Slide 1 is seen first by patch 0, whose own label loses the vote; patch 2 shows it too.
    lists = [[(1, 1)], [(0, 1)], [(3, 1), (0, 1), (1, 1)], [(6, 1)]]
    patches = patches_of(lists)
    ranked = PublishedRanker().ranked(patches, LABELS, label_counts={}, k=9, units=512.0)
    assert ranked.predicted_label == "label 0"
    assert 1 not in [slide.slide for slide in ranked.slides]


def test_organ_search_scales_weights_without_changing_the_ranking():
    patches = patches_of([[(0, 1), (1, 2), (2, 3)], [(4, 1), (2, 2)]])
    counts = counts_of(patches)
    ten, thirty = (
        PublishedRanker(RankingSettings(weight_scale=scale)).ranked(
            patches, LABELS, label_counts=counts, k=9, units=512.0
        )
        for scale in (10.0, 30.0)
    )
    assert [s.slide for s in ten.slides] == [s.slide for s in thirty.slides]
    assert ten.votes == pytest.approx(thirty.votes)
