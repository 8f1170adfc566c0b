"""DIRECT for every cut: plain double precision, one index, shards by label, by key range, and a mix."""

import asyncio
import itertools
import math
import os

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sish_cluster.core.clock import Deadline
from sish_cluster.core.collection import Collection
from sish_cluster.core.embedding import distance_of
from sish_cluster.core.key import UNIVERSE
from sish_cluster.core.posting import EncodedSlide, PatchColumns
from sish_cluster.core.query import Filter, Mode, Query, SearchSettings
from sish_cluster.core.seams import SlideState
from sish_cluster.core.slide import Slide
from sish_cluster.core.topology import KeyRange, Selector, ShardSpec, Topology
from sish_cluster.router.merge import merged_answer
from sish_cluster.shard.direct import DirectShard
from sish_cluster.shard.settings import ShardSettings
from sish_cluster.shard.shard import Shard

SITES = ("brain", "lung", "skin")
DIMENSIONS = 5


def spec(name, low=0, high=UNIVERSE, **labels):
    return ShardSpec(name, "", Selector.of(labels), KeyRange(low, high))


def by_range(prefix="r", **labels):
    pairs = itertools.pairwise((0, 30, 60, UNIVERSE))
    return tuple(spec(f"{prefix}{i}", low, high, **labels) for i, (low, high) in enumerate(pairs))


CUTS = {
    "one index": Topology((spec("all"),)),
    "3 by site": Topology(tuple(spec(site, site=site) for site in SITES)),
    "3 by range": Topology(by_range()),
    "a mix": Topology((spec("lung", site="lung"), *by_range("s", site="skin"), *by_range("x"))),
}

# Few values, so that equal rows, equal cosines and cosines at a bound are common.
rows_of_numbers = st.lists(
    st.sampled_from([-2.0, -0.5, 0.0, 0.5, 1.0, 3.0]), min_size=DIMENSIONS, max_size=DIMENSIONS
).filter(any)
patches = st.lists(st.tuples(st.integers(0, 90), rows_of_numbers), min_size=1, max_size=8)
archives = st.lists(st.tuples(st.sampled_from(SITES), patches), min_size=1, max_size=8)


def columns(rows):
    n = len(rows)
    embeddings = np.array([row for _, row in rows])
    return PatchColumns.of([k for k, _ in rows], np.zeros((n, 0), np.uint8), embeddings=embeddings)


def slides_of(archive):
    return [
        (Slide(f"s{(i * 7) % 10}-{i}", patient=f"P{i % 3}", site=site), rows)
        for i, (site, rows) in enumerate(archive)
    ]


class Cluster:
    """Real shards of a topology, in the process; each archive gets a collection of its own."""

    def __init__(self, topology, folder):
        self.topology = topology
        self.shards = {
            s.name: DirectShard(Shard(ShardSettings(folder / s.name, s.name, s.selector, s.range)))
            for s in topology.shards
        }

    async def fill(self, collection, slides):
        deadline = Deadline.after(60)
        for shard in self.shards.values():
            await shard.create_collection(collection, deadline=deadline)
        await asyncio.gather(*(self.place(collection.name, *slide) for slide in slides))

    async def place(self, collection, slide, rows):
        encoded = EncodedSlide.whole(slide, columns(rows), "fp")
        group = self.topology.group_of(slide)
        home = self.topology.home_of(slide.slide_id, group)
        for s in group:
            share = np.array([key in s.range for key, _ in rows])
            if share.any() or s is home:
                await self.shards[s.name].ingest(
                    collection, encoded.part(share), state=SlideState.COMMITTED,
                    is_home=s is home, home=home.name, deadline=Deadline.after(60),
                )  # fmt: skip

    async def answer(self, collection, query):
        wants = {"wants_examined": len(self.shards) > 1, "deadline": Deadline.after(60)}
        asked = [shard.search(collection, query, **wants) for shard in self.shards.values()]
        return merged_answer(await asyncio.gather(*asked), query)


@pytest.fixture(scope="module")
def clusters(tmp_path_factory):
    with asyncio.Runner() as runner:
        made = {name: Cluster(cut, tmp_path_factory.mktemp("cut")) for name, cut in CUTS.items()}
        yield runner, made
        for cluster in made.values():
            for shard in cluster.shards.values():
                runner.run(shard.close())


def cosine_of(a, b):
    return math.fsum(x * y for x, y in zip(a, b, strict=True)) / math.sqrt(
        math.fsum(x * x for x in a) * math.fsum(y * y for y in b)
    )


def expected(slides, query_rows, left_out, least, k):
    usable = [(slide, rows) for slide, rows in slides if slide.patient != left_out]
    answers = []
    for _, query in query_rows:
        found = [
            (int(distance_of(cosine)), slide.slide_id, number)
            for slide, rows in usable
            for number, (_, row) in enumerate(rows)
            if (cosine := cosine_of(query, row)) >= least
        ]
        answers.append(sorted(found)[: k or None])
    return answers, sum(len(rows) for _, rows in usable)


archive_number = itertools.count()


@settings(
    max_examples=int(os.environ.get("SISH_CONGRUENCE_EXAMPLES", "40")),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(
    archives,
    patches,
    st.sampled_from(["", "P0", "P1"]),
    st.sampled_from([-1.0, 0.0, 0.7, 1.0]),
    st.sampled_from([0, 3]),
)
def test_double_precision_and_every_cut_give_the_same_answer(
    clusters, archive, query_rows, left_out, least, k
):
    runner, made = clusters
    slides = slides_of(archive)
    collection = Collection(f"c{next(archive_number)}", "fp", 0, dimensions=DIMENSIONS)
    where = Filter.of(leave_out={"patient": [left_out]} if left_out else {})
    search = SearchSettings(Mode.DIRECT, min_cosine=least, max_candidates=k)
    query = Query(columns(query_rows), "fp", search, where)
    found, eligible = expected(slides, query_rows, left_out, least, k)
    for name, cluster in made.items():
        runner.run(cluster.fill(collection, slides))
        merged = runner.run(cluster.answer(collection.name, query))
        rows = [
            [
                (int(d), merged.slides[s].slide_id, int(n))
                for d, s, n in zip(p.distances, p.slides, p.numbers, strict=True)
            ]
            for p in merged.patches
        ]
        assert rows == found, name
        assert merged.examined_counts.tolist() == [eligible] * len(query_rows), name
        assert (merged.eligible, merged.mode) == (eligible, Mode.DIRECT), name
