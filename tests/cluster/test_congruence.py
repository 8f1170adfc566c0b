"""One index in this process, three shards by site, four by range: the same answers, over real processes."""

import dataclasses

import numpy as np
import pytest

from sish_cluster import open_home
from sish_cluster.core.posting import EncodedSlide
from sish_cluster.core.query import Mode, Query, Ranking, SearchSettings
from sish_cluster.testing.clusters import cut_by_label, cut_by_range

COUNT = 30
TIGHT = {"seeds_per_side": 3, "max_steps": 4}
"""Walks that end within the collection, so that the cut between shards matters."""
DIMENSIONS = 16


def both(slides):
    """The collection ``both``, which keeps embeddings too."""
    return dataclasses.replace(slides.collection, name="both", dimensions=DIMENSIONS)


def embedded(slide):
    """The slide with embeddings: the counts of set bits in parts of its codes."""
    bits = np.unpackbits(slide.patches.codes, axis=1).reshape(len(slide.patches), DIMENSIONS, -1)
    vectors = bits.sum(axis=2) - bits.shape[2] / 2 + 0.25
    patches = dataclasses.replace(slide.patches, embeddings=vectors.astype(np.float16))
    return EncodedSlide.whole(slide.slide, patches, slide.fingerprint)


def fill(client, slides):
    client.create_collection(both(slides))
    for outcome in client.ingest("both", map(embedded, slides.slides(COUNT))):
        assert outcome.is_durable, outcome.error


def answers(client, slides):
    found = []
    for mode in (Mode.SISH, Mode.GUIDED, Mode.EXACT, Mode.DIRECT):
        for number in (0, 4, 100):
            slide = embedded(slides.slide(number))
            settings = SearchSettings(mode, max_distance=200, **TIGHT)
            query = Query(slide.patches, slide.fingerprint, settings, patient=slide.slide.patient)
            for ranking in (Ranking.UNCERTAINTY, Ranking.RRF, Ranking.RETCCL):
                found.append(client.search("both", query, k=8, ranking=ranking))
    return [plain(answer) for answer in found]


def plain(answer):
    results = [
        dataclasses.replace(result, matches=tuple(result.matches)) for result in answer.results
    ]
    return dataclasses.replace(
        answer, results=tuple(results), missing_shards=tuple(answer.missing_shards), elapsed_ms=0.0
    )


def patches_of(client, slides):
    """What patch searches find, as plain lists."""
    found = []
    for mode in (Mode.SISH, Mode.GUIDED, Mode.EXACT, Mode.DIRECT):
        answer = client.search_patches(
            "both", embedded(slides.slide(2)), mode=mode, max_distance=300, max_candidates=4
        )
        rows = answer.candidates
        ids = [answer.slides[place].slide_id for place in rows.slides]
        columns = (rows.offsets, rows.keys, rows.distances, rows.numbers, rows.corners)
        found.append((ids, *(column.tolist() for column in columns), answer.mode_reason))
    return found


@pytest.fixture(scope="module")
def expected(tmp_path_factory, slides):
    with open_home(tmp_path_factory.mktemp("home")) as client:
        fill(client, slides)
        return answers(client, slides), patches_of(client, slides)


@pytest.mark.parametrize(
    "plans",
    [cut_by_label("site", ["lung", "liver"]), cut_by_range(4)],
    ids=["by site", "by range"],
)
def test_a_cluster_of_processes_answers_like_one_index(started, slides, expected, plans):
    _, client = started(plans)
    fill(client, slides)
    for found, wanted in zip(answers(client, slides), expected[0], strict=True):
        assert found.results
        assert found == wanted
    assert patches_of(client, slides) == expected[1]
    one = embedded(slides.slide(7))
    again = client.encoded_slide("both", one.slide.slide_id)
    assert (again.slide, again.version) == (one.slide, one.version)
    np.testing.assert_array_equal(again.patches.embeddings, one.patches.embeddings)
