"""The same answer for every cut: the oracle, one index, shards by label, by key range, and a mix.

Real shards (LMDB and all) in the process, the real merge; the oracle is the specification in plain
Python. Archives are small and crowded: equal keys, equal codes, keys at both ends of the universe, seeds
below zero and beyond, exclusions, few steps, so that every quirk of a walk is met.
"""

import asyncio
import itertools
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sish_cluster.core.clock import Deadline
from sish_cluster.core.collection import Collection
from sish_cluster.core.key import COARSE_UNIT, UNIVERSE
from sish_cluster.core.posting import EncodedSlide, PatchColumns
from sish_cluster.core.query import Filter, Mode, Query, SearchSettings
from sish_cluster.core.seams import SlideState
from sish_cluster.core.slide import Slide
from sish_cluster.core.topology import KeyRange, Selector, ShardSpec, Topology
from sish_cluster.router.merge import merged_answer
from sish_cluster.shard.direct import DirectShard
from sish_cluster.shard.settings import ShardSettings
from sish_cluster.shard.shard import Shard
from tests.oracles import search as oracle

SITES = ("brain", "lung", "skin")
CUTS_AT = (0, 2 * COARSE_UNIT, 5 * COARSE_UNIT + 1, 9 * COARSE_UNIT, UNIVERSE)


def spec(name, low=0, high=UNIVERSE, **labels):
    return ShardSpec(name, "", Selector.of(labels), KeyRange(low, high))


def by_range(prefix="r", **labels):
    pairs = itertools.pairwise(CUTS_AT)
    return tuple(spec(f"{prefix}{i}", low, high, **labels) for i, (low, high) in enumerate(pairs))


CUTS = {
    "one index": Topology((spec("all"),)),
    "3 by site": Topology(tuple(spec(site, site=site) for site in SITES)),
    "4 by range": Topology(by_range()),
    "a mix": Topology((spec("lung", site="lung"), *by_range("s", site="skin"), *by_range("x"))),
}

keys = st.one_of(
    st.builds(lambda a, b: a * COARSE_UNIT + b, st.integers(0, 12), st.integers(0, 3)),
    st.sampled_from([0, 1, UNIVERSE - 1, UNIVERSE - COARSE_UNIT]),
)
codes = st.builds(
    lambda base, flips: base ^ flips,
    st.sampled_from([0, 2**64 - 1, 0xF0F0F0F0F0F0F0F0]),
    st.integers(0, 15),
)
patches = st.lists(st.tuples(keys, codes), min_size=1, max_size=8)
archives = st.lists(st.tuples(st.sampled_from(SITES), patches), min_size=1, max_size=8)
bounds = st.builds(
    oracle.Bounds,
    st.integers(0, 36), st.integers(1, 4), st.integers(1, 3), st.integers(0, 5),
)  # fmt: skip


def columns(rows):
    packed = np.array([code for _, code in rows], ">u8").view(np.uint8).reshape(-1, 8)
    return PatchColumns.of([key for key, _ in rows], packed, [(k % 97, 5) for k, _ in rows])


def slides_of(archive):
    # Ids that sort otherwise than they were made, so that order is never an accident.
    return [
        (Slide(f"s{(i * 7) % 10}-{i}", patient=f"P{i % 3}", site=site), rows)
        for i, (site, rows) in enumerate(archive)
    ]


class Cluster:
    """Real shards of a topology, in the process; each archive gets a collection of its own."""

    def __init__(self, topology, folder):
        self.topology = topology
        self.shards = {
            s.name: DirectShard(
                Shard(ShardSettings(Path(folder) / s.name, s.name, s.selector, s.range))
            )
            for s in topology.shards
        }

    async def fill(self, collection, slides):
        deadline = Deadline.after(60)
        every = self.shards.values()
        await gather(s.create_collection(collection, deadline=deadline) for s in every)
        await gather(self.place(collection.name, slide, rows, deadline) for slide, rows in slides)

    async def place(self, collection, slide, rows, deadline):
        encoded = EncodedSlide.whole(slide, columns(rows), "fp")
        group = self.topology.group_of(slide)
        home = self.topology.home_of(slide.slide_id, group)
        for s in group:
            share = np.array([key in s.range for key, _ in rows])
            if share.any() or s is home:
                await self.shards[s.name].ingest(
                    collection, encoded.part(share), state=SlideState.COMMITTED,
                    is_home=s is home, home=home.name, deadline=deadline,
                )  # fmt: skip

    async def answer(self, collection, query):
        wants = {"wants_examined": len(self.shards) > 1, "deadline": Deadline.after(60)}
        every = self.shards.values()
        return merged_answer(
            await gather(s.search(collection, query, **wants) for s in every), query
        )


async def gather(calls):
    return await asyncio.gather(*calls)


@pytest.fixture(scope="module")
def clusters(tmp_path_factory):
    with asyncio.Runner() as runner:
        made = {name: Cluster(cut, tmp_path_factory.mktemp("cut")) for name, cut in CUTS.items()}
        yield runner, made
        for cluster in made.values():
            runner.run(gather(shard.close() for shard in cluster.shards.values()))


def rows_of(merged):
    return [
        [
            (int(d), merged.slides[s].slide_id, int(n))
            for d, s, n in zip(p.distances, p.slides, p.numbers, strict=True)
        ]
        for p in merged.patches
    ]


def expected(slides, query_rows, left_out, bound, mode):
    postings = [
        oracle.Posting(key, code, slide.slide_id, number)
        for slide, rows in slides
        for number, (key, code) in enumerate(rows)
    ]
    eligible = {slide.slide_id for slide, _ in slides if slide.patient != left_out}
    usable = [p for p in postings if p.slide in eligible]
    found, examined = [], []
    for key, code in query_rows:
        if mode is Mode.EXACT:
            results, looked_at = oracle.exact(postings, eligible, code, bound), None
        elif mode is Mode.SISH:
            results, looked_at = oracle.published(postings, eligible, key, code, bound)
        else:
            results, looked_at = oracle.guided(postings, eligible, key, code, bound)
        found.append([(d, p.slide, p.number) for d, p in results])
        examined.append(sum(looked_at is None or p.key in looked_at for p in usable))
    return found, examined, len(usable)


archive_number = itertools.count()


@pytest.mark.parametrize("mode", [Mode.SISH, Mode.GUIDED, Mode.EXACT])
@settings(
    max_examples=int(os.environ.get("SISH_CONGRUENCE_EXAMPLES", "40")),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(
    archives, st.lists(patches, min_size=2, max_size=3), bounds, st.sampled_from(["", "P0", "P1"])
)
def test_oracle_and_every_cut_give_the_same_answer(
    clusters, mode, archive, queries, bound, left_out
):
    runner, made = clusters
    slides = slides_of(archive)
    collection = Collection(f"c{next(archive_number)}", "fp", 64)
    for name, cluster in made.items():
        runner.run(cluster.fill(collection, slides))
        for rows in queries:
            query = query_of(rows, bound, left_out, mode)
            merged = runner.run(cluster.answer(collection.name, query))
            found, examined, eligible = expected(slides, rows, left_out, bound, mode)
            assert rows_of(merged) == found, name
            assert merged.examined_counts.tolist() == examined, name
            assert (merged.eligible, merged.mode) == (eligible, mode), name


def query_of(rows, bound, left_out, mode):
    where = Filter.of(leave_out={"patient": [left_out]} if left_out else {})
    search = SearchSettings(
        mode, bound.max_distance, bound.seeds_per_side, bound.seed_spacing, bound.max_steps
    )
    return Query(columns(rows), "fp", search, where)
