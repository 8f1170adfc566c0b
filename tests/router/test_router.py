"""The router over shards in memory: search in every mode, AUTO, partial answers, collections."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses

import pytest

from sish_cluster.core.clock import Deadline
from sish_cluster.core.collection import Collection
from sish_cluster.core.errors import (
    BadMessage,
    BadRequest,
    BadTopology,
    DeadlineExceeded,
    FingerprintMismatch,
    ShardUnavailable,
    UnknownCollection,
)
from sish_cluster.core.query import Filter, Mode, Ranking
from sish_cluster.core.topology import KeyRange, Selector, ShardSpec, Topology
from sish_cluster.router.router import Router
from sish_cluster.router.settings import RouterSettings

LOW = ShardSpec("low", "", Selector(), KeyRange(0, 100))
HIGH = ShardSpec("high", "", Selector(), KeyRange(100))
SITES = [
    ShardSpec("brain", "", Selector.parsed(["site=brain"])),
    ShardSpec("lung", "", Selector.parsed(["site=lung"])),
]


def soon():
    return Deadline.after(30)


async def filled(model, *specs, settings=None):
    """Return a router over memory shards that hold four slides, and the shards."""
    topology, shards = model.memory_cluster(*specs)
    router = Router(topology, shards, settings or RouterSettings())
    for number, site in enumerate(["lung", "brain", "lung", "brain"]):
        patches = [(number * 50 + step, (number << 4) + step) for step in range(3)]
        slide = model.slide_of(
            f"s{number}", patches, site=site, patient=f"p{number}", diagnosis=f"d{number % 2}"
        )
        await router.ingest("demo", slide, deadline=soon())
    return router, shards


async def search(router, query, **changes):
    asked = {"ranking": Ranking.UNCERTAINTY, "k": 5, "allow_partial": False, "max_matches": 8}
    return await router.search("demo", query, **(asked | changes), deadline=soon())


@pytest.mark.parametrize("specs", [[ShardSpec("all", "")], [LOW, HIGH], SITES])
@pytest.mark.parametrize("ranking", [Ranking.UNCERTAINTY, Ranking.RRF])
async def test_a_slide_in_the_index_comes_first_with_its_evidence(model, specs, ranking):
    router, _ = await filled(model, *specs)
    query = model.query_of([(50, 16), (51, 17), (52, 18)])
    result = await search(router, query, ranking=ranking)
    first = result.results[0]
    assert (first.rank, first.slide.slide_id, first.distance) == (1, "s1", 0)
    pairs = [(m.query_number, m.number, m.distance, m.corner) for m in first.matches]
    assert pairs == [(n, n, 0, (n, n)) for n in range(3)]
    assert (result.mode, result.coverage, result.eligible) == (Mode.EXACT, 1.0, 12)
    assert result.n_query_patches == 3


@pytest.mark.parametrize("mode", [Mode.SISH, Mode.GUIDED, Mode.EXACT])
async def test_every_cut_gives_the_same_answer(model, mode):
    query = model.query_of([(60, 16), (101, 34)], mode=mode, max_distance=2, max_steps=4)
    cuts = [[ShardSpec("all", "")], [LOW, HIGH], SITES]
    results = [await search((await filled(model, *specs))[0], query) for specs in cuts]
    assert results[0].results
    same = [dataclasses.replace(result, elapsed_ms=0.0) for result in results]
    assert same[1] == same[0]
    assert same[2] == same[0]


async def test_published_weights_count_the_slides_found_not_the_collection(model):
    router, shards = await filled(model, LOW, HIGH)
    query = model.query_of([(50, 16)], max_distance=1)
    before = await search(router, query, ranking=Ranking.SISH)
    for shard in shards.values():
        for held in shard.committed.values():
            held.is_home = False
    assert (await search(router, query, ranking=Ranking.SISH)).votes == before.votes


def paying_for(postings, n_patches=1):
    """Settings under which AUTO scans that many postings of 8-byte codes, and no more."""
    return RouterSettings(
        scan_bytes_per_s=8.0 * n_patches * postings, exact_share=1.0, exact_limit_s=1.0
    )


async def test_auto_is_exact_only_while_the_sum_over_shards_can_be_scanned(model):
    router, shards = await filled(model, LOW, HIGH, settings=paying_for(11))
    result = await search(router, model.query_of([(50, 16)]))
    assert result.mode is Mode.GUIDED
    assert result.mode_reason.startswith("guided: to scan 12 eligible postings x 1 patches needs")
    assert [shard.modes for shard in shards.values()] == [[Mode.GUIDED]] * 2
    router, shards = await filled(model, LOW, HIGH, settings=paying_for(12))
    result = await search(router, model.query_of([(50, 16)]))
    assert result.mode is Mode.EXACT
    assert result.mode_reason.startswith("exact: 12 eligible postings x 1 patches need about 1.0 s")
    assert [shard.modes for shard in shards.values()] == [[Mode.EXACT]] * 2


@pytest.mark.parametrize("most", [5, 6, 11, 12])
async def test_the_cut_does_not_change_what_auto_chooses(model, most):
    cuts = [[ShardSpec("all", "")], [LOW, HIGH], SITES]
    where = Filter.of(keep={"site": ["lung"]})
    for query, eligible in [
        (model.query_of([(50, 16)]), 12),
        (dataclasses.replace(model.query_of([(50, 16)]), where=where), 6),
    ]:
        routers = [(await filled(model, *specs, settings=paying_for(most)))[0] for specs in cuts]
        modes = {(await search(router, query)).mode for router in routers}
        assert modes == {Mode.EXACT if eligible <= most else Mode.GUIDED}


async def test_a_remembered_sum_is_never_believed(model):
    router, shards = await filled(model, LOW, HIGH, settings=paying_for(11))
    query = model.query_of([(50, 16)])
    await search(router, query)
    await router.forget("demo", "s0", deadline=soon())
    again = await search(router, query)
    assert (again.mode, again.eligible) == (Mode.EXACT, 9)
    assert [shard.modes for shard in shards.values()] == [
        [Mode.GUIDED, Mode.GUIDED, Mode.EXACT]
    ] * 2


async def test_less_time_left_means_a_smaller_exact_search(model):
    settings = RouterSettings(scan_bytes_per_s=8.0 * 12, exact_share=0.25)
    router, _ = await filled(model, LOW, HIGH, settings=settings)
    query = model.query_of([(50, 16)])
    asked = {"ranking": Ranking.RRF, "k": 5, "allow_partial": False, "max_matches": 8}
    for timeout_s, mode in [(30.0, Mode.EXACT), (3.0, Mode.GUIDED)]:
        deadline = Deadline.after(timeout_s)
        assert (await router.search("demo", query, **asked, deadline=deadline)).mode is mode


class HandClock:
    """A clock that only the test moves."""

    def __init__(self):
        self.at_s = 0.0

    def now_s(self):
        return self.at_s


def slowed(shard, clock, seconds):
    """Let each of a shard's exact searches take so many seconds of the clock."""
    search_now = shard.search

    async def search_later(collection, query, *, wants_examined, deadline):
        if query.settings.mode is Mode.EXACT:
            clock.at_s += seconds
        if deadline.remaining_s() <= 0:
            raise DeadlineExceeded("the deadline passed")
        return await search_now(collection, query, wants_examined=wants_examined, deadline=deadline)

    shard.search = search_later


@pytest.mark.parametrize("scan_s", [20.0, 100.0], ids=["in time", "too late"])
async def test_auto_learns_from_exact_searches_how_fast_a_scan_is(model, scan_s):
    clock = HandClock()
    _, shards = await filled(model, ShardSpec("all", ""))
    router = Router(Topology((ShardSpec("all", ""),)), shards, paying_for(12), clock=clock)
    slowed(shards["all"], clock, scan_s)
    asked = {"ranking": Ranking.RRF, "k": 5, "allow_partial": False, "max_matches": 8}
    modes = []
    for _ in range(2):
        deadline = Deadline.after(60.0, clock)
        with contextlib.suppress(DeadlineExceeded):
            await router.search("demo", model.query_of([(50, 16)]), **asked, deadline=deadline)
        modes.append(shards["all"].modes[-1] if shards["all"].modes else None)
    assert modes[1] is Mode.GUIDED
    assert modes[0] is (Mode.EXACT if scan_s < 60 else None)


async def test_a_mode_that_was_asked_for_says_so(model):
    router, _ = await filled(model, LOW, HIGH)
    for mode in (Mode.SISH, Mode.GUIDED, Mode.EXACT):
        result = await search(router, model.query_of([(50, 16)], mode=mode))
        assert (result.mode, result.mode_reason) == (mode, f"{mode.value}: asked for")


async def test_a_dead_shard_fails_a_search_and_is_named(model):
    router, shards = await filled(model, *SITES)
    shards["lung"].is_down = True
    with pytest.raises(ShardUnavailable, match=r"lung is down.*allow_partial"):
        await search(router, model.query_of([(50, 16)]))


async def test_a_partial_answer_names_the_missing_shards(model):
    router, shards = await filled(model, *SITES)
    query = model.query_of([(50, 16)])
    await search(router, query)
    shards["lung"].is_down = True
    result = await search(router, query, allow_partial=True)
    assert result.missing_shards == ("lung",)
    assert {found.slide.site for found in result.results} == {"brain"}


async def test_a_filter_that_leaves_nothing_says_so(model):
    router, _ = await filled(model, *SITES)
    query = dataclasses.replace(
        model.query_of([(50, 16)]), where=Filter.of(keep={"site": ["liver"]})
    )
    result = await search(router, query)
    assert (result.results, result.eligible, result.coverage) == ([], 0, 1.0)
    assert "no posting is eligible" in result.reason


async def test_requests_out_of_bounds_are_refused(model):
    router, _ = await filled(model, LOW, HIGH)
    query = model.query_of([(50, 16)])
    with pytest.raises(BadRequest, match="at least one patch"):
        nothing = query.patches.taken(query.patches.keys > 50)
        await search(router, dataclasses.replace(query, patches=nothing))
    with pytest.raises(BadRequest, match=r"k must be 1\.\.10000; found 0"):
        await search(router, query, k=0)
    with pytest.raises(FingerprintMismatch, match="found g"):
        await search(router, dataclasses.replace(query, fingerprint="g"))
    with pytest.raises(UnknownCollection):
        await router.search(
            "none",
            query,
            ranking=Ranking.RRF,
            k=1,
            allow_partial=True,
            max_matches=1,
            deadline=soon(),
        )


async def test_slides_of_another_encoder_or_without_patches_are_refused(model):
    router, shards = await filled(model, LOW, HIGH)
    slide = model.slide_of("new", [(1, 1)])
    with pytest.raises(FingerprintMismatch):
        await router.ingest("demo", dataclasses.replace(slide, fingerprint="g"), deadline=soon())
    wide = slide.patches.codes.repeat(2, axis=1)
    patches = dataclasses.replace(slide.patches, codes=wide)
    with pytest.raises(BadMessage, match="codes of 8 bytes; found codes of 16"):
        await router.ingest("demo", dataclasses.replace(slide, patches=patches), deadline=soon())
    with pytest.raises(BadRequest, match="has no patch"):
        await router.ingest("demo", slide.part(slide.patches.keys > 5), deadline=soon())
    assert not any("new" in shard.committed for shard in shards.values())


async def test_forget_reaches_every_shard_homes_last(model):
    router, shards = await filled(model, LOW, HIGH)
    order: list[str] = []
    for shard in shards.values():
        shard.before = lambda name, call: order.append(name)
    outcome = await router.forget("demo", "s2", deadline=soon())
    assert (outcome.postings, outcome.was_stored) == (3, True)
    home = router.topology.home_of("s2", router.topology.shards).name
    assert order[-1] == home
    assert sorted(order) == ["high", "low"]
    assert not (await router.forget("demo", "s2", deadline=soon())).was_stored


async def test_slides_of_all_homes_are_listed_in_order(model):
    router, _ = await filled(model, *SITES)
    listed = [s.slide.slide_id async for s in router.list_slides("demo", deadline=soon())]
    assert listed == ["s0", "s1", "s2", "s3"]
    one = [s.slide.site async for s in router.list_slides("demo", slide_id="s1", deadline=soon())]
    assert one == ["brain"]


async def test_a_collection_is_created_everywhere_and_described_as_one(model):
    router, shards = await filled(model, *SITES)
    new = Collection("new", "g", 64)
    assert await router.create_collection(new, deadline=soon())
    assert not await router.create_collection(new, deadline=soon())
    assert [c.name for c in await router.list_collections(deadline=soon())] == ["demo", "new"]
    state = await router.describe_collection("demo", deadline=soon())
    assert (state.slides, state.postings, state.pending) == (4, 12, 0)
    assert state.label_counts == {"site": {"brain": 2, "lung": 2}}
    assert all(new.name in shard.collections for shard in shards.values())


async def test_status_reports_ill_shards_and_shards_that_own_something_else(model):
    router, shards = await filled(model, *SITES)
    shards["brain"].is_down = True
    shards["lung"].spec = LOW
    brain, lung = (await router.status(deadline=soon())).shards
    assert (brain.is_serving, brain.problem) == (False, "brain is down")
    assert lung.is_serving
    assert "the topology gives this shard site=lung in 0:" in lung.problem


async def test_the_janitor_sweeps_until_cancelled_and_survives_failures(model):
    topology, shards = model.memory_cluster(LOW, HIGH)
    router = Router(topology, shards, RouterSettings(janitor_interval_s=0.0))
    swept = asyncio.Event()
    calls: list[str] = []

    def told(name, call):
        calls.append(call)
        if len(calls) == 1:
            raise ZeroDivisionError("a bug in a sweep")
        if len(calls) > 5:
            swept.set()

    shards["low"].before = told
    sweeping = asyncio.ensure_future(router.janitor.run())
    await asyncio.wait_for(swept.wait(), 30)
    sweeping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sweeping


def test_a_router_needs_exactly_the_shards_of_its_topology(model):
    topology, shards = model.memory_cluster(LOW, HIGH)
    with pytest.raises(
        BadTopology, match=r"names shards \['high', 'low'\]; connected are \['low'\]"
    ):
        Router(topology, {"low": shards["low"]})


async def test_a_routers_own_janitor_is_one_task_that_ends_with_it(model):
    router, _ = await filled(model, ShardSpec("all", ""))
    before = asyncio.all_tasks()
    router.start_janitor()
    router.start_janitor()
    (sweeping,) = asyncio.all_tasks() - before
    await router.close()
    assert sweeping.cancelled()
