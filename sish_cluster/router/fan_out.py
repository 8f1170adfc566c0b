"""One slide query, asked of every shard in one mode.

AUTO means EXACT while the eligible postings of the *whole* collection are few, GUIDED beyond. A shard
knows only its own; so it answers as if it were alone, and where the sum says otherwise it is asked
again. The mode therefore depends on the sum alone, never on the cut. To avoid asking twice each time,
the last sum is remembered (by collection and by what the filter keeps) and tried first; it is never
believed: the answers' own sum decides.
"""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Iterable, Mapping

from sish_cluster.core.candidate import ShardAnswer
from sish_cluster.core.clock import Deadline
from sish_cluster.core.query import AUTO_EXACT_POSTINGS, Filter, Mode, Query
from sish_cluster.core.seams import ShardCalls
from sish_cluster.router.gather import Gathered, gathered

_REMEMBERED = 1024
"""Sums remembered: a few hundred bytes each."""


class FanOut:
    """Asks all shards.

    Parameters
    ----------
    shards
        By name.
    """

    def __init__(self, shards: Mapping[str, ShardCalls]) -> None:
        self._shards = shards
        self._sums: OrderedDict[object, int] = OrderedDict()

    async def answers(
        self, collection: str, query: Query, *, allow_partial: bool, deadline: Deadline
    ) -> Gathered[ShardAnswer]:
        """Return the shards' answers, all of one mode.

        Raises
        ------
        SishError
            See `gathered`.
        """
        asked = _Asked(collection, query, allow_partial, deadline)
        if query.settings.mode is not Mode.AUTO or len(self._shards) == 1:
            return await self._ask(asked, self._shards, query.settings.mode)
        about = (collection, _kept_by(query.where))
        is_large = self._sums.get(about, 0) > AUTO_EXACT_POSTINGS
        first = await self._ask(asked, self._shards, Mode.GUIDED if is_large else Mode.AUTO)
        eligible = sum(answer.eligible for answer in first.answers.values())
        self._remember(about, eligible)
        mode = Mode.EXACT if eligible <= AUTO_EXACT_POSTINGS else Mode.GUIDED
        return await self._in_mode(asked, first, mode)

    async def _in_mode(
        self, asked: _Asked, first: Gathered[ShardAnswer], mode: Mode
    ) -> Gathered[ShardAnswer]:
        """Return the answers with those of another mode asked again."""
        others = [name for name, answer in first.answers.items() if answer.mode is not mode]
        if not others:
            return first
        again = await self._ask(asked, others, mode)
        right = {name: first.answers[name] for name in first.answers if name not in others}
        return Gathered({**right, **again.answers}, {**first.missing, **again.missing})

    async def _ask(self, asked: _Asked, names: Iterable[str], mode: Mode) -> Gathered[ShardAnswer]:
        settings = dataclasses.replace(asked.query.settings, mode=mode)
        query = dataclasses.replace(asked.query, settings=settings)
        calls = {
            name: self._shards[name].search(
                asked.collection,
                query,
                wants_examined=len(self._shards) > 1,
                deadline=asked.deadline,
            )
            for name in names
        }
        return await gathered(
            calls,
            asking=f"search of {asked.collection!r}",
            deadline=asked.deadline,
            allow_partial=asked.allow_partial,
            hint=", or allow a partial answer (allow_partial)",
        )

    def _remember(self, about: object, eligible: int) -> None:
        self._sums[about] = eligible
        self._sums.move_to_end(about)
        if len(self._sums) > _REMEMBERED:
            self._sums.popitem(last=False)


@dataclasses.dataclass(frozen=True, slots=True)
class _Asked:
    collection: str
    query: Query
    allow_partial: bool
    deadline: Deadline


def _kept_by(where: Filter) -> object:
    """Return what a filter keeps, as a dictionary key; what it leaves out is usually little."""
    return tuple(sorted((name, tuple(sorted(values))) for name, values in where.keep.items()))
