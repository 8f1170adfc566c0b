"""Two-phase ingest: whatever fails, a slide ends up whole or not at all, and once."""

from __future__ import annotations

import asyncio

import pytest

from sish_cluster.core.clock import Deadline
from sish_cluster.core.errors import Moved, ShardUnavailable
from sish_cluster.core.key import UNIVERSE
from sish_cluster.core.topology import KeyRange, Selector, ShardSpec
from sish_cluster.router.ingest import Ingester
from sish_cluster.router.janitor import Janitor
from sish_cluster.router.settings import RouterSettings
from sish_cluster.router.slide_locks import SlideLocks

LUNG = Selector.parsed(["site=lung"])
BOUNDS = [0, 100, 200, UNIVERSE]
SPECS = [
    *(
        ShardSpec(f"lung-{n}", "", LUNG, KeyRange(BOUNDS[n], BOUNDS[n + 1]))
        for n in range(len(BOUNDS) - 1)
    ),
    ShardSpec("rest", ""),
]
PATCHES = [(5, 1), (150, 2), (160, 3), (250, 4)]
N_CALLS = 3 + 3 + 1
"""Three shares, three commits, one forget elsewhere: the calls of one ingest of a lung slide."""


class Crash(BaseException):
    """The router's process ends here."""


class Cluster:
    """A memory cluster with an ingester and a janitor, as one router has them."""

    def __init__(self, model):
        self.topology, self.shards = model.memory_cluster(*SPECS)
        self.restart()
        self.calls = []
        for shard in self.shards.values():
            shard.before = self._told(self.calls)

    def restart(self):
        locks = SlideLocks()
        self.ingester = Ingester(self.topology, self.shards, locks)
        self.janitor = Janitor(self.topology, self.shards, self.ingester, locks, RouterSettings())

    @staticmethod
    def _told(calls):
        return lambda name, call: calls.append((name, call))

    def fail_at(self, number, error, *, after):
        """Raise at the ``number``-th write from now, before or after its effect; once."""
        count = iter(range(10**6))

        def told(name, call):
            if call in ("ingest", "commit", "forget") and next(count) == number:
                self.heal()
                raise error

        for shard in self.shards.values():
            setattr(shard, "after" if after else "before", told)

    def heal(self):
        for shard in self.shards.values():
            shard.before = shard.after = lambda name, call: None

    async def ingest(self, slide):
        return await self.ingester.ingest("demo", slide, deadline=Deadline.after(30))

    async def sweep(self, age_s):
        for shard in self.shards.values():
            for held in shard.pending.values():
                held.age_s = age_s
        return await self.janitor.sweep(deadline=Deadline.after(30))

    def numbers(self, slide_id):
        """Patch numbers that a search can find, by version."""
        found = {}
        for shard in self.shards.values():
            held = shard.committed.get(slide_id)
            if held is not None:
                numbers = found.setdefault(held.slide.version, [])
                numbers.extend(held.slide.patches.numbers.tolist())
        return {version: sorted(numbers) for version, numbers in found.items() if numbers}

    def pending(self):
        return [key for shard in self.shards.values() for key in shard.pending]


@pytest.fixture
def cluster(model):
    return Cluster(model)


@pytest.fixture
def lung(model):
    return model.slide_of("s1", PATCHES, site="lung")


async def test_a_slide_is_cut_by_key_and_committed_at_home_before_anywhere_else(cluster, lung):
    outcome = await cluster.ingest(lung)
    assert (outcome.slide_id, outcome.version, outcome.was_stored) == ("s1", lung.version, False)
    held = {name: shard.committed.get("s1") for name, shard in cluster.shards.items()}
    cut = [held[f"lung-{n}"].slide.patches.keys.tolist() for n in range(3)]
    assert cut == [[5], [150, 160], [250]]
    assert held["rest"] is None
    home = cluster.topology.home_of("s1", cluster.topology.groups[LUNG]).name
    assert [name for name in held if held[name] and held[name].is_home] == [home]
    assert cluster.calls[0] == (home, "ingest")
    assert next(call for call in cluster.calls if call[1] == "commit") == (home, "commit")
    assert not cluster.pending()


async def test_a_group_of_one_shard_takes_one_committed_write(cluster, model):
    slide = model.slide_of("s2", PATCHES, site="brain")
    await cluster.ingest(slide)
    assert [call for call in cluster.calls if call[0] == "rest"] == [("rest", "ingest")]
    assert cluster.numbers("s2") == {slide.version: [0, 1, 2, 3]}


async def test_the_same_version_twice_is_one_ingest(cluster, lung):
    await cluster.ingest(lung)
    assert (await cluster.ingest(lung)).was_stored
    assert cluster.numbers("s1") == {lung.version: [0, 1, 2, 3]}


async def test_a_slide_no_shard_owns_is_refused_before_anything_is_written(model):
    topology, shards = model.memory_cluster(*SPECS[:3])
    ingester = Ingester(topology, shards, SlideLocks())
    with pytest.raises(Moved, match="no shard of the topology"):
        await ingester.ingest(
            "demo", model.slide_of("s", PATCHES, site="brain"), deadline=Deadline.after(5)
        )
    assert not any(shard.pending or shard.committed for shard in shards.values())


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("number", range(N_CALLS))
async def test_a_failure_at_any_call_is_told_and_repeating_completes_the_slide(
    cluster, lung, number, after
):
    cluster.fail_at(number, ShardUnavailable("down"), after=after)
    with pytest.raises(ShardUnavailable):
        await cluster.ingest(lung)
    await cluster.ingest(lung)
    assert cluster.numbers("s1") == {lung.version: [0, 1, 2, 3]}
    assert not cluster.pending()


@pytest.mark.parametrize("is_update", [False, True])
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("number", range(N_CALLS))
async def test_after_a_crash_at_any_call_the_janitor_leaves_the_slide_whole_or_as_it_was(
    cluster, model, lung, number, after, is_update
):
    old = model.slide_of("s1", [(7, 9), (170, 9)], site="lung")
    if is_update:
        await cluster.ingest(old)
    cluster.fail_at(number, Crash(), after=after)
    with pytest.raises(Crash):
        await cluster.ingest(lung)
    cluster.heal()
    cluster.restart()
    was_decided = any(
        held.is_home and held.slide.version == lung.version
        for shard in cluster.shards.values()
        for held in shard.committed.values()
    )
    await cluster.sweep(age_s=10_000.0)
    before = {old.version: [0, 1]} if is_update else {}
    assert cluster.numbers("s1") == ({lung.version: [0, 1, 2, 3]} if was_decided else before)
    assert not cluster.pending()


async def test_the_janitor_finishes_young_slides_that_are_decided_and_waits_for_the_others(
    cluster, lung, model
):
    cluster.fail_at(4, Crash(), after=False)
    with pytest.raises(Crash):
        await cluster.ingest(lung)
    cluster.heal()
    undecided = model.slide_of("s9", PATCHES, site="lung")
    cluster.fail_at(3, Crash(), after=False)
    with pytest.raises(Crash):
        await cluster.ingest(undecided)
    cluster.restart()
    sweep = await cluster.sweep(age_s=60.0)
    assert sweep.finished == {("demo", "s1", lung.version)}
    assert sweep.waiting == {("demo", "s9", undecided.version)}
    assert cluster.numbers("s1") == {lung.version: [0, 1, 2, 3]}


async def test_the_janitor_leaves_slides_alone_whose_home_cannot_be_reached(cluster, lung):
    cluster.fail_at(3, Crash(), after=False)
    with pytest.raises(Crash):
        await cluster.ingest(lung)
    cluster.heal()
    cluster.restart()
    home = cluster.topology.home_of("s1", cluster.topology.groups[LUNG]).name
    cluster.shards[home].is_down = True
    sweep = await cluster.sweep(age_s=10_000.0)
    assert sweep.waiting == {("demo", "s1", lung.version)}
    assert len(cluster.pending()) == 3
    cluster.shards[home].is_down = False
    assert (await cluster.sweep(age_s=10_000.0)).cancelled == {("demo", "s1", lung.version)}


async def test_a_slide_whose_labels_change_group_is_stored_once(cluster, model, lung):
    await cluster.ingest(lung)
    moved = model.slide_of("s1", PATCHES, site="brain")
    await cluster.ingest(moved)
    assert cluster.numbers("s1") == {moved.version: [0, 1, 2, 3]}
    await cluster.ingest(lung)
    assert cluster.numbers("s1") == {lung.version: [0, 1, 2, 3]}


async def test_an_update_leaves_no_row_of_the_older_version(cluster, model, lung):
    await cluster.ingest(lung)
    shorter = model.slide_of("s1", [(250, 9)], site="lung")
    await cluster.ingest(shorter)
    assert cluster.numbers("s1") == {shorter.version: [0]}


async def test_two_versions_ingested_at_once_follow_each_other(cluster, model, lung):
    other = model.slide_of("s1", [(7, 9), (170, 9)], site="lung")
    await asyncio.gather(cluster.ingest(lung), cluster.ingest(other))
    assert cluster.numbers("s1") == {other.version: [0, 1]}


async def test_locks_of_slides_exist_only_while_wanted_and_let_one_in_at_a_time():
    locks, inside, order = SlideLocks(), asyncio.Event(), []

    async def hold(name):
        async with locks.held("demo", "s1"):
            order.append(f"{name} in")
            inside.set()
            await asyncio.sleep(0)
            order.append(f"{name} out")

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(hold("a"))
        tasks.create_task(hold("b"))
        await inside.wait()
        assert len(locks) == 1
    assert order == ["a in", "a out", "b in", "b out"]
    assert len(locks) == 0
