"""One index in this process, three shards by site, four by range: the same answers, over real processes."""

import dataclasses

import pytest

from sish_cluster import open_home
from sish_cluster.core.query import Mode, Query, Ranking, SearchSettings
from sish_cluster.testing.clusters import cut_by_label, cut_by_range

COUNT = 30
TIGHT = {"seeds_per_side": 3, "max_steps": 4}
"""Walks that end within the collection, so that the cut between shards matters."""


def answers(client, slides):
    found = []
    for mode in (Mode.SISH, Mode.GUIDED, Mode.EXACT):
        for number in (0, 4, 100):
            slide = slides.slide(number)
            settings = SearchSettings(mode, max_distance=200, **TIGHT)
            query = Query(slide.patches, slide.fingerprint, settings, patient=slide.slide.patient)
            for ranking in (Ranking.UNCERTAINTY, Ranking.RRF):
                answer = client.search("synthetic", query, k=8, ranking=ranking)
                found.append(dataclasses.replace(answer, elapsed_ms=0.0))
    return found


@pytest.fixture(scope="module")
def expected(tmp_path_factory, slides):
    with open_home(tmp_path_factory.mktemp("home")) as client:
        client.create_collection(slides.collection)
        for outcome in client.ingest("synthetic", slides.slides(COUNT)):
            assert outcome.is_durable, outcome.error
        return answers(client, slides)


@pytest.mark.parametrize(
    "plans",
    [cut_by_label("site", ["lung", "liver"]), cut_by_range(4)],
    ids=["by site", "by range"],
)
def test_a_cluster_of_processes_answers_like_one_index(started, slides, expected, plans):
    _, client = started(plans, count=COUNT)
    for found, wanted in zip(answers(client, slides), expected, strict=True):
        assert found.results
        assert _plain(found) == _plain(wanted)


def _plain(answer):
    results = [
        dataclasses.replace(result, matches=tuple(result.matches)) for result in answer.results
    ]
    return dataclasses.replace(
        answer, results=tuple(results), missing_shards=tuple(answer.missing_shards)
    )
