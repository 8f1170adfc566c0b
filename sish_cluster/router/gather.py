"""Fan-out: the same question to several shards, within one deadline.

Every call is a task of this fan-out and ends with it: when the answer is complete, when a call is
refused (asking the others further would change nothing), when time is up, or when the caller goes away.
A shard that fails otherwise is *missing*; whether that is an error is the caller's choice.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Coroutine, Mapping
from typing import Any, Generic, TypeVar

from sish_cluster.core.clock import Deadline
from sish_cluster.core.errors import (
    Cancelled,
    Corrupt,
    DeadlineExceeded,
    Internal,
    Moved,
    Refused,
    ShardUnavailable,
    SishError,
    StoreFull,
)

T = TypeVar("T")

_KEPT_CLASSES = (DeadlineExceeded, Corrupt, Internal, StoreFull)
"""Errors that say more than "unavailable" when all missing shards share them."""


@dataclasses.dataclass(frozen=True, slots=True)
class Gathered(Generic[T]):
    """What the shards said, by shard name in the order they were asked.

    Parameters
    ----------
    answers
        Of those that answered.
    missing
        Why the others did not.
    """

    answers: Mapping[str, T]
    missing: Mapping[str, SishError]


async def gathered(
    calls: Mapping[str, Coroutine[Any, Any, T]],
    *,
    asking: str,
    deadline: Deadline,
    allow_partial: bool = False,
    hint: str = "",
) -> Gathered[T]:
    """Return the answers of all calls.

    Parameters
    ----------
    calls
        One call per shard name.
    asking
        What is asked, for messages: ``"search of 'demo'"``.
    deadline
        Calls still running then are cancelled and their shards missing.
    allow_partial
        Whether missing shards are reported instead of raised; at least one must answer.
    hint
        What else the caller may do about missing shards, for the message.

    Raises
    ------
    Refused, Moved
        The first that any shard raises, at once.
    ShardUnavailable, DeadlineExceeded, Corrupt, Internal, StoreFull
        If shards are missing and that is not allowed; the message and ``metadata['shards']`` name them.
    """
    tasks = {name: asyncio.ensure_future(call) for name, call in calls.items()}
    try:
        await _settled(set(tasks.values()), deadline)
        result = _collected(tasks)
    finally:
        await _ended(tasks.values())
    if result.missing and not (allow_partial and result.answers):
        raise missing_error(result.missing, asking=asking, asked=len(tasks), hint=hint)
    return result


async def _settled(pending: set[asyncio.Future[T]], deadline: Deadline) -> None:
    """Return when all calls are done, one is refused, or time is up."""
    while pending:
        remaining_s = max(deadline.remaining_s(), 0.0)
        done, pending = await asyncio.wait(
            pending, timeout=remaining_s, return_when=asyncio.FIRST_EXCEPTION
        )
        if not done or any(_is_final(_error_of(task)) for task in done):
            return


def _error_of(task: asyncio.Future[T]) -> BaseException | None:
    if task.cancelled():
        return Cancelled("the call was cancelled at the shard's side")
    return task.exception()


def _is_final(error: BaseException | None) -> bool:
    """Whether an error ends the fan-out: refused, or not one of ours (a bug)."""
    return error is not None and (
        isinstance(error, Refused | Moved) or not isinstance(error, SishError)
    )


def _collected(tasks: Mapping[str, asyncio.Future[T]]) -> Gathered[T]:
    answers: dict[str, T] = {}
    missing: dict[str, SishError] = {}
    errors = {name: _error_of(task) for name, task in tasks.items() if task.done()}
    for error in errors.values():
        if error is not None and _is_final(error):
            raise error
    for name, task in tasks.items():
        error = errors.get(name)
        if not task.done():
            missing[name] = DeadlineExceeded("no answer before the deadline")
        elif isinstance(error, SishError):
            missing[name] = error
        else:
            answers[name] = task.result()
    return Gathered(answers, missing)


async def _ended(tasks: Any) -> None:
    """Cancel what still runs and wait until it has ended, so that no task outlives its caller."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def missing_error(
    missing: Mapping[str, SishError], *, asking: str, asked: int, hint: str = ""
) -> SishError:
    """Return the error that names the missing shards and what each said."""
    said = "; ".join(f"{name}: {error.message}" for name, error in missing.items())
    message = (
        f"{asking}: {len(missing)} of {asked} shards did not answer ({said});"
        f" repeat the call once they are back{hint}"
    )
    classes = {type(error) for error in missing.values()}
    cls = classes.pop() if len(classes) == 1 else ShardUnavailable
    names = {"shards": ",".join(missing)}
    return (cls if issubclass(cls, _KEPT_CLASSES) else ShardUnavailable)(message, metadata=names)
