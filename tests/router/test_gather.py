"""Fan-out: deadlines, missing shards, refusals; no task outlives it."""

from __future__ import annotations

import asyncio

import pytest

from sish_cluster.core.clock import Deadline
from sish_cluster.core.errors import (
    BadRequest,
    Cancelled,
    Corrupt,
    DeadlineExceeded,
    ShardUnavailable,
    StoreFull,
)
from sish_cluster.router.gather import gathered

SOON = 0.05


async def answer(value):
    return value


async def fail(error):
    raise error


async def hang(ended=None):
    try:
        await asyncio.Event().wait()
    finally:
        if ended is not None:
            ended.append(True)


def nothing_left_running():
    return asyncio.all_tasks() == {asyncio.current_task()}


async def test_answers_come_back_by_name_in_the_order_asked():
    calls = {"b": answer(2), "a": answer(1)}
    result = await gathered(calls, asking="it", deadline=Deadline.after(5))
    assert list(result.answers.items()) == [("b", 2), ("a", 1)]
    assert not result.missing


async def test_a_missing_shard_is_named_in_the_error_with_what_it_said():
    calls = {"a": answer(1), "b": fail(ShardUnavailable("connection refused"))}
    with pytest.raises(ShardUnavailable, match=r"1 of 2 shards .*b: connection refused") as raised:
        await gathered(calls, asking="search", deadline=Deadline.after(5))
    assert raised.value.metadata["shards"] == "b"


async def test_a_missing_shard_is_part_of_a_partial_answer():
    calls = {"a": answer(1), "b": fail(Corrupt("checksum"))}
    result = await gathered(calls, asking="search", deadline=Deadline.after(5), allow_partial=True)
    assert result.answers == {"a": 1}
    assert list(result.missing) == ["b"]


async def test_a_partial_answer_of_no_shard_is_an_error():
    calls = {"a": fail(StoreFull("full")), "b": fail(StoreFull("full"))}
    with pytest.raises(StoreFull, match="2 of 2 shards"):
        await gathered(calls, asking="ingest", deadline=Deadline.after(5), allow_partial=True)


async def test_a_shard_that_does_not_answer_in_time_is_missing_and_its_call_is_cancelled():
    ended: list[bool] = []
    calls = {"a": answer(1), "b": hang(ended)}
    with pytest.raises(DeadlineExceeded, match="b: no answer before the deadline"):
        await gathered(calls, asking="search", deadline=Deadline.after(SOON))
    assert ended == [True]
    assert nothing_left_running()


async def test_a_refusal_ends_the_fan_out_at_once_even_where_partial_answers_are_allowed():
    calls = {"a": hang(), "b": fail(BadRequest("no")), "c": fail(ShardUnavailable("down"))}
    with pytest.raises(BadRequest, match="no"):
        await gathered(calls, asking="it", deadline=Deadline.after(60), allow_partial=True)
    assert nothing_left_running()


async def test_a_caller_that_goes_away_leaves_no_call_behind():
    ended: list[bool] = []
    fan_out = asyncio.ensure_future(
        gathered({"a": hang(ended)}, asking="it", deadline=Deadline.after(60))
    )
    while len(asyncio.all_tasks()) < 3:
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    fan_out.cancel()
    with pytest.raises(asyncio.CancelledError):
        await fan_out
    assert ended == [True]
    assert nothing_left_running()


async def test_a_call_cancelled_at_the_other_side_is_a_missing_shard():
    calls = {"a": fail(asyncio.CancelledError()), "b": answer(1)}
    result = await gathered(calls, asking="it", deadline=Deadline.after(5), allow_partial=True)
    assert isinstance(result.missing["a"], Cancelled)


async def test_a_bug_in_a_call_is_never_taken_for_a_missing_shard():
    calls = {"a": fail(ZeroDivisionError("bug")), "b": answer(1)}
    with pytest.raises(ZeroDivisionError):
        await gathered(calls, asking="it", deadline=Deadline.after(5), allow_partial=True)


async def test_no_call_gives_no_answer():
    result = await gathered({}, asking="it", deadline=Deadline.after(5))
    assert (result.answers, result.missing) == ({}, {})
