"""The janitor: finishes or cancels slides whose ingest nobody completed.

A router may die, or a caller give up, between the phases of an ingest (see `ingest`). What stays behind
are pending slides: never eligible, but not gone. The home shard decides each: where it has committed
the version, the others' shares are committed too; where it has not, and the slide is older than any
living ingest, the home's pending share goes first, which settles that the version can no longer be
committed, and then the others'. A home that cannot be reached decides nothing: the slide waits for the
next sweep.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Mapping, Sequence

from sish_cluster.core.clock import Deadline
from sish_cluster.core.errors import SishError
from sish_cluster.core.seams import PendingSlide, ShardCalls
from sish_cluster.core.topology import ShardSpec, Topology
from sish_cluster.router.ingest import Ingester, Placement
from sish_cluster.router.settings import RouterSettings
from sish_cluster.router.slide_locks import SlideLocks

_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class Sweep:
    """What one sweep did, as (collection, slide id, version), each once.

    Parameters
    ----------
    finished
        Decided at home, now committed everywhere.
    cancelled
        Not decided and too old, now gone.
    waiting
        Left alone: young, or a shard could not be reached.
    """

    finished: frozenset[tuple[str, str, str]]
    cancelled: frozenset[tuple[str, str, str]]
    waiting: frozenset[tuple[str, str, str]]


@dataclasses.dataclass(slots=True)
class _Found:
    """One version of a slide, pending on some shards."""

    placement: Placement
    age_s: float
    on: set[str]


class Janitor:
    """Sweeps pending slides.

    Parameters
    ----------
    topology, shards
        The cluster.
    ingester
        Finishes what a home has decided.
    locks
        Shared with the ingester: a slide being ingested by this router is left alone until it is done.
    settings
        Ages and the interval.
    """

    def __init__(
        self,
        topology: Topology,
        shards: Mapping[str, ShardCalls],
        ingester: Ingester,
        locks: SlideLocks,
        settings: RouterSettings,
    ) -> None:
        self._topology = topology
        self._shards = shards
        self._ingester = ingester
        self._locks = locks
        self._settings = settings

    async def run(self) -> None:
        """Sweep at intervals until cancelled; a sweep that fails is logged, and the next one tried."""
        while True:
            await asyncio.sleep(self._settings.janitor_interval_s)
            try:
                sweep = await self.sweep(deadline=Deadline.after(self._settings.call_cap_s))
            except Exception:
                _LOG.exception("the janitor's sweep failed")
                continue
            if sweep.finished or sweep.cancelled:
                _LOG.warning("janitor: finished %s, cancelled %s", sweep.finished, sweep.cancelled)

    async def sweep(self, *, deadline: Deadline) -> Sweep:
        """Decide every pending slide that can be decided now; safe to run at any time."""
        fates: dict[str, set[tuple[str, str, str]]] = {}
        for found in await self._pending(deadline):
            placement = found.placement
            async with self._locks.held(placement.collection, placement.slide_id):
                fate = await self._decided(found, deadline)
            version = (placement.collection, placement.slide_id, placement.version)
            fates.setdefault(fate, set()).add(version)
        return Sweep(
            *(frozenset(fates.get(fate, ())) for fate in ("finished", "cancelled", "waiting"))
        )

    async def _pending(self, deadline: Deadline) -> list[_Found]:
        """Return the pending versions of every collection on every shard that answers."""
        found: dict[tuple[str, str, str], _Found] = {}
        for spec in self._topology.shards:
            for collection, slide in await self._pending_on(spec, deadline):
                key = (collection, slide.slide_id, slide.version)
                placement = self._placement(collection, slide, spec)
                entry = found.setdefault(key, _Found(placement, slide.age_s, set()))
                entry.on.add(spec.name)
                entry.age_s = min(entry.age_s, slide.age_s)
        return list(found.values())

    async def _pending_on(
        self, spec: ShardSpec, deadline: Deadline
    ) -> Sequence[tuple[str, PendingSlide]]:
        shard = self._shards[spec.name]
        try:
            return [
                (collection.name, slide)
                for collection in await shard.list_collections(deadline=deadline)
                for slide in await shard.list_pending(collection.name, deadline=deadline)
            ]
        except SishError as error:
            _LOG.info("janitor: shard %s cannot be swept now: %s", spec.name, error)
            return []

    def _placement(self, collection: str, slide: PendingSlide, spec: ShardSpec) -> Placement:
        """Return where a pending slide belongs; a home that left the topology is decided afresh."""
        group = self._topology.groups[spec.selector]
        named = [member for member in group if member.name == slide.home]
        home = named[0] if named else self._topology.home_of(slide.slide_id, group)
        return Placement(collection, slide.slide_id, slide.version, group, home)

    async def _decided(self, found: _Found, deadline: Deadline) -> str:
        if found.age_s < self._settings.pending_grace_s:
            return "waiting"
        try:
            if await self._is_committed_at_home(found.placement, deadline):
                await self._ingester.finish(found.placement, deadline)
                return "finished"
            if found.age_s < self._settings.pending_limit_s:
                return "waiting"
            return await self._cancelled(found, deadline)
        except SishError as error:
            _LOG.info("janitor: slide %s waits: %s", found.placement.slide_id, error)
            return "waiting"

    async def _is_committed_at_home(self, placement: Placement, deadline: Deadline) -> bool:
        home = self._shards[placement.home.name]
        slides = home.list_slides(
            placement.collection, slide_id=placement.slide_id, deadline=deadline
        )
        return any([slide.version == placement.version async for slide in slides])

    async def _cancelled(self, found: _Found, deadline: Deadline) -> str:
        """Cancel at home first, so that no later commit there can find its other shares gone."""
        placement = found.placement
        await self._forgotten_on(placement.home.name, placement, deadline)
        if await self._is_committed_at_home(placement, deadline):
            return "waiting"
        for name in sorted(found.on - {placement.home.name}):
            await self._forgotten_on(name, placement, deadline)
        return "cancelled"

    async def _forgotten_on(self, name: str, placement: Placement, deadline: Deadline) -> None:
        await self._shards[name].forget(
            placement.collection,
            placement.slide_id,
            pending_version=placement.version,
            deadline=deadline,
        )
