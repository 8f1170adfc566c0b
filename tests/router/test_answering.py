"""From merged candidates to an answer: never a crash, always evidence, and the bounds that counted."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sish_cluster.core.collection import Collection
from sish_cluster.core.embedding import COSINE_UNITS
from sish_cluster.core.errors import BadRequest
from sish_cluster.core.posting import PatchColumns
from sish_cluster.core.query import Mode, Query, Ranking, SearchSettings
from sish_cluster.core.slide import Slide
from sish_cluster.router.answering import Wanted, search_result
from sish_cluster.router.merge import Merged
from sish_cluster.router.patch_results import patches_result
from sish_cluster.router.ranking import RankingSettings
from sish_cluster.router.rows import Rows

DEMO = Collection("demo", "f", 64, 40, dimensions=4)

# Per query patch its (slide, distance) results; slide s has diagnosis d(s % 4), s % 4 == 3 none.
result_lists = st.lists(
    st.lists(st.tuples(st.integers(0, 11), st.integers(0, 40)), max_size=9), min_size=1, max_size=24
)


def merged_of(lists, mode=Mode.EXACT):
    """Merged candidates over a table of twelve slides."""
    rows = [
        (patch, slide, distance)
        for patch, found in enumerate(lists)
        for slide, distance in sorted(found, key=lambda row: row[1])
    ]
    columns = np.array(rows, np.int64).reshape(-1, 3).T
    numbers = np.arange(len(rows))
    corners = np.stack([numbers, numbers], axis=1).astype(np.int32)
    slides = [Slide(f"s{n:02}", diagnosis=f"d{n % 4}" if n % 4 < 3 else "") for n in range(12)]
    counts = Counter(slide.diagnosis for slide in slides)
    return Merged(
        slides,
        Rows(columns[0], numbers, columns[2], columns[1], numbers, corners),
        np.full(len(lists), 12),
        12,
        dict(sorted(counts.items())),
        mode,
    )


def answer(lists, ranking, mode=Mode.EXACT, **bounds):
    n = len(lists)
    patches = PatchColumns.of(np.arange(n), np.zeros((n, 8)), embeddings=np.ones((n, 4)))
    query = Query(patches, "f", SearchSettings(Mode.AUTO, max_distance=40, **bounds))
    return search_result(
        merged_of(lists, mode),
        query,
        DEMO,
        wanted=Wanted(ranking, 5, 3),
        mode_reason="why",
        missing_shards=(),
        settings=RankingSettings(),
        began_s=0.0,
    )


@pytest.mark.parametrize("ranking", list(Ranking))
@settings(max_examples=100, deadline=None)
@example([[]])
@example([[(3, 1), (7, 2)], [(3, 0)]])
@example([[(0, 0)]] * 22)
@example([[(n % 12, n % 7)] * length for n, length in enumerate([1] * 10 + [5, 6] + [9] * 10)])
@given(result_lists)
def test_every_ranking_answers_every_result_set_with_slides_or_a_reason(ranking, lists):
    result = answer(lists, ranking)
    assert bool(result.reason) == (not result.results)
    assert [slide.rank for slide in result.results] == list(range(1, len(result.results) + 1))
    assert len({slide.slide.slide_id for slide in result.results}) == len(result.results)
    assert not result.votes or sum(result.votes.values()) == pytest.approx(1)
    assert not result.predicted_label or result.predicted_label in result.votes
    if ranking is not Ranking.SISH:
        assert bool(result.results) == any(lists)


@pytest.mark.parametrize("ranking", list(Ranking))
@settings(max_examples=50, deadline=None)
@given(result_lists)
def test_every_slide_of_an_answer_has_a_pair_within_the_bound(ranking, lists):
    result = answer(lists, ranking)
    assert result.distance_bound <= 40
    for slide in result.results:
        assert slide.matches
        assert slide.matches[0].distance == min(
            distance for found in lists for number, distance in found
            if f"s{number:02}" == slide.slide.slide_id
        )  # fmt: skip
        assert all(math.isfinite(match.uncertainty) for match in slide.matches)
        assert 0 < slide.certainty <= 1


def test_the_bound_is_the_published_tau_where_that_is_smaller():
    lists = [[(0, 4), (1, 30)], [(0, 8), (2, 12)]]
    assert answer(lists, Ranking.UNCERTAINTY).distance_bound == 40
    # Means of the nearest: 17 and 10; tau is theirs.
    assert answer(lists, Ranking.SISH).distance_bound == 13.5
    assert answer([[(0, 0)]], Ranking.SISH).distance_bound == 0


def test_a_direct_search_counts_its_bound_and_its_similarities_in_cosine_units():
    lists = [[(0, 100), (1, 9000)], [(1, 9800)]]
    result = answer(lists, Ranking.RETCCL, Mode.DIRECT, min_cosine=0.5)
    assert result.distance_bound == COSINE_UNITS / 2
    shares = np.array([1 - 100 / 65536, 1 - 9000 / 65536])
    shares /= shares.sum()
    entropy = -(shares * np.log2(shares)).sum()
    assert result.results[0].uncertainty == pytest.approx(entropy)
    assert result.results[0].slide.slide_id == "s00"


def test_requests_out_of_bounds_are_refused():
    with pytest.raises(BadRequest, match=r"k must be 1\.\.10000; found 0"):
        Wanted(Ranking.RRF, 0, 1)
    with pytest.raises(BadRequest, match=r"max_matches must be 0\.\.10000; found -1"):
        Wanted(Ranking.RRF, 1, -1)


@settings(max_examples=50, deadline=None)
@given(result_lists)
def test_a_patch_search_hands_over_the_rows_and_only_their_slides(lists):
    merged = merged_of(lists)
    result = patches_result(merged, mode_reason="why", missing_shards=("a",), began_s=0.0)
    found = result.candidates
    for patch, rows in enumerate(lists):
        part = found.rows_of(patch)
        ids = [result.slides[place].slide_id for place in found.slides[part].tolist()]
        expected = sorted(rows, key=lambda row: row[1])
        assert ids == [f"s{slide:02}" for slide, _ in expected]
        assert found.distances[part].tolist() == [distance for _, distance in expected]
    assert len(result.slides) == len({slide for rows in lists for slide, _ in rows})
    assert (result.missing_shards, result.eligible) == (("a",), 12)
