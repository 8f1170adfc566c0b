"""One slide query, asked of every shard in one mode.

What AUTO runs depends on the eligible postings of the *whole* collection (see `choosing`), which only the
shards together know. So the router guesses the sum (the last one for what the filter keeps, else all the
collection holds), asks in the mode that the guess gives, and never believes it: the answers' own sum
decides, and where it says otherwise the shards are asked again. The mode therefore depends on the sum
alone, never on the cut.
"""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Mapping

from sish_cluster.core.candidate import ShardAnswer
from sish_cluster.core.clock import SYSTEM_CLOCK, Clock, Deadline
from sish_cluster.core.collection import Collection
from sish_cluster.core.errors import DeadlineExceeded
from sish_cluster.core.query import Filter, Mode, Query
from sish_cluster.core.seams import ShardCalls
from sish_cluster.router.choosing import Affordable, Choice, affordable, settled
from sish_cluster.router.gather import Gathered, gathered
from sish_cluster.router.scan_speed import ScanSpeed
from sish_cluster.router.settings import RouterSettings

_REMEMBERED = 1024
"""Sums remembered: a few hundred bytes each."""


@dataclasses.dataclass(frozen=True, slots=True)
class Asked:
    """One search of one collection.

    Parameters
    ----------
    definition
        The collection.
    query
        What is asked, perhaps in mode AUTO.
    allow_partial
        Whether missing shards are reported instead of raised.
    deadline
        For the shards.
    """

    definition: Collection
    query: Query
    allow_partial: bool
    deadline: Deadline


class FanOut:
    """Asks all shards.

    Parameters
    ----------
    shards
        By name.
    settings
        How fast a scan is taken to be, and what AUTO may pay.
    clock
        For measuring scans.
    """

    def __init__(
        self,
        shards: Mapping[str, ShardCalls],
        settings: RouterSettings,
        *,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._shards = shards
        self._settings = settings
        self._clock = clock
        self._speed = ScanSpeed(settings.scan_bytes_per_s, clock=clock)
        self._sums: OrderedDict[object, int] = OrderedDict()

    async def answers(self, asked: Asked) -> tuple[Gathered[ShardAnswer], Choice]:
        """Return the shards' answers, all of one mode, and why that mode.

        Raises
        ------
        SishError
            See `gathered`.
        """
        choice = settled(asked.definition, asked.query.settings.mode)
        budget = affordable(
            asked.query,
            time_left_s=asked.deadline.remaining_s(),
            bytes_per_s=self._speed.bytes_per_s,
            settings=self._settings,
        )
        if choice is not None:
            return await self._ask(asked, choice.mode, budget), choice
        about = (asked.definition.name, _kept_by(asked.query.where))
        guess = self._sums.get(about)
        if guess is None:
            guess = await self._held(asked)
        first = budget.choice(guess)
        began_s = self._clock.now_s()
        try:
            told = await self._ask(asked, first.mode, budget)
        except DeadlineExceeded:
            if first.mode is Mode.EXACT:
                # At most this fast: or every search would fail as this one did.
                elapsed_s = self._clock.now_s() - began_s
                self._speed.learn(budget.scan_bytes(guess), elapsed_s=elapsed_s)
            raise
        eligible = _eligible(told)
        self._remember(about, eligible)
        choice = budget.choice(eligible)
        if choice.mode is not first.mode:
            told = await self._ask(asked, choice.mode, budget)
        return told, choice

    async def _held(self, asked: Asked) -> int:
        """Return the postings of the collection, as last known: no filter leaves more eligible."""
        name = asked.definition.name
        everything = (name, _kept_by(Filter()))
        if everything in self._sums:
            return self._sums[everything]
        calls = {
            shard_name: shard.describe_collection(name, deadline=asked.deadline)
            for shard_name, shard in self._shards.items()
        }
        told = await gathered(
            calls,
            asking=f"search of {name!r}",
            deadline=asked.deadline,
            allow_partial=asked.allow_partial,
            hint=_HINT,
        )
        held = sum(state.postings for state in told.answers.values())
        self._remember(everything, held)
        return held

    async def _ask(self, asked: Asked, mode: Mode, budget: Affordable) -> Gathered[ShardAnswer]:
        query = _in_mode(asked.query, mode)
        began_s = self._clock.now_s()
        calls = {
            name: shard.search(
                asked.definition.name,
                query,
                wants_examined=len(self._shards) > 1,
                deadline=asked.deadline,
            )
            for name, shard in self._shards.items()
        }
        told = await gathered(
            calls,
            asking=f"search of {asked.definition.name!r}",
            deadline=asked.deadline,
            allow_partial=asked.allow_partial,
            hint=_HINT,
        )
        if mode is Mode.EXACT:
            scanned = budget.scan_bytes(_eligible(told))
            self._speed.learn(scanned, elapsed_s=self._clock.now_s() - began_s)
        return told

    def _remember(self, about: object, eligible: int) -> None:
        self._sums[about] = eligible
        self._sums.move_to_end(about)
        if len(self._sums) > _REMEMBERED:
            self._sums.popitem(last=False)


_HINT = ", or allow a partial answer (allow_partial)"
"""What a caller may do about missing shards."""


def _eligible(told: Gathered[ShardAnswer]) -> int:
    return sum(answer.eligible for answer in told.answers.values())


def _in_mode(query: Query, mode: Mode) -> Query:
    """Return the query in ``mode``, without embeddings where it does not compare them."""
    settings = dataclasses.replace(query.settings, mode=mode)
    patches = query.patches if mode is Mode.DIRECT else query.patches.without_embeddings()
    return dataclasses.replace(query, settings=settings, patches=patches)


def _kept_by(where: Filter) -> object:
    """Return what a filter keeps, as a dictionary key; what it leaves out is usually little."""
    return tuple(sorted((name, tuple(sorted(values))) for name, values in where.keep.items()))
