"""A shard in the process, called from asyncio; and what callers see when it is busy or broken."""

import asyncio
import dataclasses
import threading

import pytest

from sish_cluster.core.clock import Deadline
from sish_cluster.core.errors import DeadlineExceeded, Internal, Unavailable
from sish_cluster.core.query import Mode
from sish_cluster.core.seams import SlideState
from sish_cluster.shard.direct import DirectShard
from sish_cluster.shard.shard import Shard

SOON = Deadline.after(3600.0)
PENDING, COMMITTED = SlideState.PENDING, SlideState.COMMITTED


@pytest.fixture
async def direct(settings, make):
    opened = DirectShard(Shard(settings))
    await opened.create_collection(make.collection, deadline=SOON)
    yield opened
    await opened.close()


async def stored(direct, encoded, state=COMMITTED):
    return await direct.ingest(
        "demo", encoded, state=state, is_home=True, home="shard", deadline=SOON
    )


async def test_every_call_of_the_protocol_does_what_the_shard_does(direct, make):
    encoded = make.slide("s", 1, site="lung")
    assert not (await stored(direct, encoded, PENDING)).was_stored
    assert [p.slide_id for p in await direct.list_pending("demo", deadline=SOON)] == ["s"]
    await direct.commit_slide("demo", "s", encoded.version, deadline=SOON)
    answer = await direct.search(
        "demo",
        make.query(encoded.patches, mode=Mode.GUIDED),
        wants_examined=True,
        deadline=SOON,
    )
    assert len(answer.candidates) == len(answer.examined.keys) == 5
    listed = [s.version async for s in direct.list_slides("demo", deadline=SOON)]
    assert listed == [encoded.version]
    assert await direct.list_collections(deadline=SOON) == [make.collection]
    assert (await direct.describe_collection("demo", deadline=SOON)).postings == 5
    assert (await direct.status(deadline=SOON)).collections[0].slides == 1
    assert (await direct.forget("demo", "s", deadline=SOON)).postings == 5


async def test_many_slides_at_once_share_durable_commits(direct, make):
    commits = []
    write = direct.shard._store.write
    direct.shard._store.write = lambda *args, **kwargs: commits.append(1) or write(*args, **kwargs)
    outcomes = await asyncio.gather(*(stored(direct, make.slide(f"s{i}", i)) for i in range(200)))
    assert [outcome.slide_id for outcome in outcomes] == [f"s{i}" for i in range(200)]
    assert len(commits) < 100


async def test_a_deadline_that_passed_stops_a_search_before_it_begins(direct, make):
    with pytest.raises(DeadlineExceeded):
        await direct.search(
            "demo",
            make.query(make.patches(1)),
            wants_examined=False,
            deadline=Deadline.after(-1.0),
        )


async def test_a_change_that_is_not_durable_in_time_says_that_repeating_is_safe(direct, make):
    held = threading.Event()
    write = direct.shard._store.write
    direct.shard._store.write = lambda *args, **kwargs: held.wait(30) and write(*args, **kwargs)
    encoded = make.slide("s", 1)
    with pytest.raises(DeadlineExceeded, match="same slide and version, which is safe"):
        await direct.ingest(
            "demo",
            encoded,
            state=COMMITTED,
            is_home=True,
            home="",
            deadline=Deadline.after(0.05),
        )
    held.set()
    await stored(direct, encoded)
    assert (await direct.describe_collection("demo", deadline=SOON)).slides == 1


async def test_reads_beyond_the_queue_are_sent_away(settings, make):
    tight = dataclasses.replace(settings, search_threads=1, search_queue=1)
    direct, held = DirectShard(Shard(tight)), threading.Event()
    waiting = [asyncio.ensure_future(direct.read(lambda _: held.wait(30), SOON)) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(Unavailable, match="1 reads waiting"):
        await direct.status(deadline=SOON)
    held.set()
    assert await asyncio.gather(*waiting) == [True, True]
    await direct.close()


def test_changes_beyond_the_queue_are_sent_away(settings, make):
    with Shard(dataclasses.replace(settings, queue_slides=1, group_slides=1)) as shard:
        shard.create_collection(make.collection)
        held = threading.Event()
        write = shard._store.write
        shard._store.write = lambda *args, **kwargs: held.wait(30) and write(*args, **kwargs)
        begun = []
        with pytest.raises(Unavailable, match="1 changes are waiting"):
            for i in range(5):
                begun.append(shard.begin_ingest("demo", make.slide(f"s{i}", i), timeout_s=0.0))
        held.set()
        assert all(not future.result().was_stored for future in begun)


def test_a_writer_that_fails_stops_serving_and_loses_nothing_durable(settings, make, monkeypatch):
    encoded = make.slide("s", 1)
    with Shard(settings) as shard:
        shard.create_collection(make.collection)
        shard.ingest("demo", encoded)
        index = shard._shelf["demo"].index
        monkeypatch.setattr(index, "insert", lambda **_: 1 / 0)
        more = [shard.begin_ingest("demo", make.slide(f"s{i}", 50 + i)) for i in range(3)]
        with pytest.raises(Internal, match="ZeroDivisionError"):
            more[0].result()
        assert {type(future.exception()) for future in more} == {Internal}
        with pytest.raises(Internal, match="restart the shard"):
            shard.status()
        with pytest.raises(Internal, match="restart the shard"):
            shard.search("demo", make.query(encoded.patches))
    with Shard(settings) as shard:
        assert make.found(shard, encoded) == ["s"]


def test_a_search_sees_one_version_of_a_slide_however_fast_it_changes(shard, make):
    patches = make.patches(1, 3)
    versions = [make.slide("s", patches=patches, diagnosis=name) for name in "ab"]
    shard.ingest("demo", versions[0])
    done = threading.Event()

    def update():
        for i in range(150):
            shard.ingest("demo", versions[i % 2])
        done.set()

    writing = threading.Thread(target=update, daemon=True)
    writing.start()
    searches = 0
    while not done.is_set():
        answer = shard.search("demo", make.query(patches))
        assert len(answer.slides) == 1
        assert (len(answer.candidates), answer.eligible) == (3, 3)
        assert sum(answer.label_counts.values()) == 1
        searches += 1
    writing.join()
    assert searches > 3


def test_headers_of_removed_slides_are_let_go(shard, make):
    for i in range(20):
        shard.ingest("demo", make.slide("s", i))
    entries = shard._shelf["demo"].ledger.entries
    assert len(entries) == 20
    assert sum(entry is not None for entry in entries) <= 3
