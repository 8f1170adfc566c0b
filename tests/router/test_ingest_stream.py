"""A stream of slides: bounded, each fate told at once, no slide stopping another."""

from __future__ import annotations

import asyncio

import pytest

from sish_cluster.core.errors import BadMessage, BadRequest, Internal, StoreFull
from sish_cluster.core.seams import IngestOutcome
from sish_cluster.router.ingest_stream import IngestFailure, IngestStream


def outcome_of(slide):
    return IngestOutcome(slide.slide.slide_id, slide.version, False)


async def stream_of(items):
    for item in items:
        yield item


@pytest.fixture
def slides(model):
    return [model.slide_of(f"s{n}", [(n, n)]) for n in range(6)]


async def test_one_bad_slide_never_stops_the_others(slides):
    async def ingest(slide):
        if slide is slides[1]:
            raise StoreFull("full")
        if slide is slides[2]:
            raise ZeroDivisionError("bug")
        return outcome_of(slide)

    damaged = IngestFailure("s9", "v", BadMessage("checksum"))
    stream = IngestStream(ingest, stream_of([damaged, *slides]), in_flight=2)
    fates = {fate.slide_id: fate async for fate in stream.fates()}
    errors = {i: type(f.error) for i, f in fates.items() if isinstance(f, IngestFailure)}
    assert errors == {"s9": BadMessage, "s1": StoreFull, "s2": Internal}
    assert len(fates) == 7


async def test_slides_are_read_only_as_fast_as_they_are_stored(slides):
    started, let_go = [], asyncio.Event()

    async def ingest(slide):
        started.append(slide)
        await let_go.wait()
        return outcome_of(slide)

    fates = IngestStream(ingest, stream_of(slides), in_flight=3).fates()
    first = asyncio.ensure_future(anext(fates))
    while len(started) < 3:
        await asyncio.sleep(0)
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(started) == 3
    let_go.set()
    assert len([await first, *[fate async for fate in fates]]) == 6


async def test_a_fate_is_told_before_the_next_slide_is_sent(slides):
    told = asyncio.Queue()

    async def one_by_one():
        for slide in slides:
            yield slide
            assert (await told.get()).slide_id == slide.slide.slide_id

    async def ingest(slide):
        return outcome_of(slide)

    count = 0
    async for fate in IngestStream(ingest, one_by_one(), in_flight=4).fates():
        told.put_nowait(fate)
        count += 1
    assert count == 6


async def test_a_stream_that_breaks_tells_the_caller_and_leaves_nothing_running(slides):
    async def broken():
        yield slides[0]
        raise BadRequest("another collection")

    async def ingest(slide):
        await asyncio.Event().wait()

    with pytest.raises(BadRequest, match="another collection"):
        async for _ in IngestStream(ingest, broken(), in_flight=4).fates():
            pass
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_reader_that_leaves_early_ends_what_is_on_its_way(slides):
    async def ingest(slide):
        if slide is not slides[0]:
            await asyncio.Event().wait()
        return outcome_of(slide)

    fates = IngestStream(ingest, stream_of(slides), in_flight=4).fates()
    assert (await anext(fates)).slide_id == "s0"
    await fates.aclose()
    assert asyncio.all_tasks() == {asyncio.current_task()}
