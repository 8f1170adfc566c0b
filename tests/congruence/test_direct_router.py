"""The direct search gives the oracle's answer for every cut of a collection, through the router."""

import asyncio
import dataclasses
import itertools
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sish_cluster.core.clock import Deadline
from sish_cluster.core.collection import Collection
from sish_cluster.core.key import UNIVERSE
from sish_cluster.core.posting import EncodedSlide, PatchColumns
from sish_cluster.core.query import Filter, Mode, Query, Ranking, SearchSettings
from sish_cluster.core.slide import Slide
from sish_cluster.core.topology import KeyRange, Selector, ShardSpec, Topology
from sish_cluster.router.router import Router
from sish_cluster.shard.direct import DirectShard
from sish_cluster.shard.settings import ShardSettings
from sish_cluster.shard.shard import Shard
from tests.oracles import direct as oracle

SITES = ("brain", "lung", "skin")
DIMENSIONS = 5


def spec(name, low=0, high=UNIVERSE, **labels):
    return ShardSpec(name, "", Selector.of(labels), KeyRange(low, high))


CUTS = {
    "one index": (spec("all"),),
    "3 by site": tuple(spec(site, site=site) for site in SITES),
    "3 by range": (spec("a", 0, 2), spec("b", 2, 5), spec("c", 5)),
    "a mix": (spec("lung", site="lung"), spec("low", 0, 3), spec("high", 3)),
}

# Few small whole numbers: equal embeddings, equal directions, opposite ones, cosines at a bound.
embeddings = st.lists(st.integers(-2, 2), min_size=DIMENSIONS, max_size=DIMENSIONS).filter(any)
patches = st.lists(st.tuples(st.integers(0, 7), embeddings), min_size=1, max_size=6)
archives = st.lists(st.tuples(st.sampled_from(SITES), patches), min_size=1, max_size=7)
bounds = st.sampled_from([-1.0, -0.5, 0.0, 0.5, 0.7, 1.0])


def columns(rows, code_bytes):
    codes = np.zeros((len(rows), code_bytes), np.uint8)
    vectors = np.array([vector for _, vector in rows], np.float16)
    return PatchColumns.of([key for key, _ in rows], codes, embeddings=vectors)


def slides_of(archive):
    return [
        (Slide(f"s{(i * 7) % 10}-{i}", patient=f"P{i % 3}", site=site, diagnosis=f"d{i % 2}"), rows)
        for i, (site, rows) in enumerate(archive)
    ]


def soon():
    return Deadline.after(60)


@pytest.fixture(scope="module")
def routers(tmp_path_factory):
    with asyncio.Runner() as runner:
        made = {name: opened(cut, tmp_path_factory.mktemp("cut")) for name, cut in CUTS.items()}
        yield runner, made
        for router in made.values():
            runner.run(router.close())


def opened(cut, folder):
    shards = {
        s.name: DirectShard(
            Shard(ShardSettings(Path(folder) / s.name, s.name, s.selector, s.range))
        )
        for s in cut
    }
    return Router(Topology(cut), shards)


async def filled(router, collection, slides):
    await router.create_collection(collection, deadline=soon())
    wholes = [
        EncodedSlide.whole(slide, columns(rows, collection.code_bytes), "fp")
        for slide, rows in slides
    ]
    calls = [router.ingest(collection.name, whole, deadline=soon()) for whole in wholes]
    await asyncio.gather(*calls)


async def all_filled(routers, collection, slides):
    await asyncio.gather(*(filled(router, collection, slides) for router in routers))


def plain(result):
    found = result.candidates
    parts = [found.rows_of(patch) for patch in range(found.n_query_patches)]
    return [
        [
            (distance, result.slides[slide].slide_id, number)
            for distance, slide, number in zip(
                found.distances[rows].tolist(),
                found.slides[rows].tolist(),
                found.numbers[rows].tolist(),
                strict=True,
            )
        ]
        for rows in parts
    ]


def expected(slides, rows, left_out, min_cosine):
    postings = [
        (tuple(map(float, vector)), slide.slide_id, number)
        for slide, part in slides
        for number, (_, vector) in enumerate(part)
    ]
    eligible = {slide.slide_id for slide, _ in slides if slide.patient != left_out}
    usable = sum(slide in eligible for _, slide, _ in postings)
    asked = [tuple(map(float, vector)) for _, vector in rows]
    return [oracle.found(postings, eligible, vector, min_cosine) for vector in asked], usable


numbers = itertools.count()


@pytest.mark.parametrize("code_bits", [0, 64], ids=["embeddings only", "codes too"])
@settings(
    max_examples=int(os.environ.get("SISH_CONGRUENCE_EXAMPLES", "10")),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(archives, patches, bounds, st.sampled_from(["", "P0"]), st.sampled_from([0, 0, 1, 3]))
def test_oracle_and_every_cut_find_the_same_patches(
    routers, code_bits, archive, rows, min_cosine, left_out, most
):
    runner, made = routers
    slides = slides_of(archive)
    collection = Collection(f"c{next(numbers)}", "fp", code_bits, dimensions=DIMENSIONS)
    query = query_of(rows, collection, min_cosine, left_out, most)
    wanted, eligible = expected(slides, rows, left_out, min_cosine)
    runner.run(all_filled(made.values(), collection, slides))
    for name, router in made.items():
        result = runner.run(
            router.search_patches(collection.name, query, allow_partial=False, deadline=soon())
        )
        assert plain(result) == [part[: most or None] for part in wanted], name
        assert (result.mode, result.eligible) == (Mode.DIRECT, eligible), name
        assert result.coverage == 1.0, name


def query_of(rows, collection, min_cosine, left_out, most):
    mode = Mode.DIRECT if collection.code_bits else Mode.AUTO
    where = Filter.of(leave_out={"patient": [left_out]} if left_out else {})
    search = SearchSettings(mode, min_cosine=min_cosine, max_candidates=most)
    return Query(columns(rows, collection.code_bytes), "fp", search, where)


@pytest.mark.parametrize("ranking", list(Ranking))
def test_every_cut_ranks_the_same_slides_after_a_direct_search(routers, ranking):
    runner, made = routers
    rng = np.random.default_rng(1)
    archive = [
        (SITES[i % 3], [(int(rng.integers(8)), rng.integers(1, 9, DIMENSIONS).tolist())] * 2)
        for i in range(9)
    ]
    collection = Collection(f"c{next(numbers)}", "fp", 0, dimensions=DIMENSIONS)
    query = query_of(archive[4][1], collection, 0.7, "", 0)
    asked = {"ranking": ranking, "k": 5, "allow_partial": False, "max_matches": 2}
    answers = []
    runner.run(all_filled(made.values(), collection, slides_of(archive)))
    for router in made.values():
        found = runner.run(router.search(collection.name, query, **asked, deadline=soon()))
        answers.append(dataclasses.replace(found, elapsed_ms=0.0))
    assert answers[0].results
    assert answers[0].results[0].distance == 0
    assert answers[0].mode_reason == "direct: the collection keeps embeddings and no codes"
    assert all(answer == answers[0] for answer in answers)


def test_a_slide_with_embeddings_is_read_back_from_every_cut(routers):
    runner, made = routers
    rows = [(key, [key + 1, 2, 0, -1, 1]) for key in (7, 0, 3, 5, 2)]
    collection = Collection(f"c{next(numbers)}", "fp", 64, dimensions=DIMENSIONS)
    slides = [(Slide("s", site="lung"), rows), (Slide("t", site="skin"), rows)]
    runner.run(all_filled(made.values(), collection, slides))
    whole = columns(rows, 8)
    for router in made.values():
        for slide, _ in slides:
            reading = router.encoded_slide(collection.name, slide.slide_id, deadline=soon())
            found = runner.run(reading)
            assert found.slide == slide
            assert found.version == EncodedSlide.whole(slide, whole, "fp").version
            for name in ("keys", "codes", "corners", "numbers", "embeddings"):
                got, wanted = getattr(found.patches, name), getattr(whole, name)
                np.testing.assert_array_equal(got, wanted)
