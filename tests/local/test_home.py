import asyncio
import os

import pytest

from sish_cluster import open_home
from sish_cluster.core.errors import HomeInUse, NotPermitted
from sish_cluster.local import open_home_async
from sish_cluster.testing.synthetic import SyntheticSlides

SLIDES = SyntheticSlides(patches=3)


def fill(client, count):
    client.create_collection(SLIDES.collection)
    assert all(o.is_durable for o in client.ingest("synthetic", SLIDES.slides(count)))


def test_a_home_keeps_its_slides_when_it_is_opened_again(tmp_path):
    with open_home(tmp_path / "new" / "home") as client:
        fill(client, 5)
    with open_home(tmp_path / "new" / "home") as client:
        assert client.describe_collection("synthetic").postings == 15
        first = client.search("synthetic", SLIDES.slide(4)).results[0]
    assert (first.slide.slide_id, first.distance) == ("slide-0004", 0)


def test_a_home_serves_one_process_at_a_time_and_says_which(tmp_path):
    with open_home(tmp_path), pytest.raises(HomeInUse, match=rf"open in process {os.getpid()}"):
        open_home(tmp_path)
    open_home(tmp_path).close()


def test_a_home_that_cannot_be_made_is_refused_with_what_to_do(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(NotPermitted, match="--home"):
        open_home(tmp_path / "file" / "home")


async def test_a_home_opens_inside_a_running_event_loop(tmp_path):
    async with await open_home_async(tmp_path) as client:
        await client.create_collection(SLIDES.collection)
        outcomes = [o async for o in client.ingest("synthetic", SLIDES.slides(3))]
        answers = await asyncio.gather(
            *(client.search("synthetic", SLIDES.slide(n), k=1) for n in range(3))
        )
    assert all(o.is_durable for o in outcomes)
    assert [a.results[0].slide.slide_id for a in answers] == [f"slide-000{n}" for n in range(3)]


def test_an_updated_slide_replaces_its_older_version(tmp_path):
    other = SyntheticSlides(rng_seed=1, patches=2).slide(0)
    with open_home(tmp_path) as client:
        fill(client, 2)
        assert not client.ingest_slide("synthetic", other).was_stored
        state = client.describe_collection("synthetic")
    assert (state.slides, state.postings) == (2, 3 + 2)


async def test_a_homes_janitor_runs_while_it_is_open(tmp_path):
    before = asyncio.all_tasks()
    async with await open_home_async(tmp_path):
        (sweeping,) = asyncio.all_tasks() - before
        assert sweeping.get_coro().__qualname__ == "Janitor.run"
    assert sweeping.cancelled()
