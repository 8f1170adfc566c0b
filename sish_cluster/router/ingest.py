"""Ingest: a slide becomes durable and visible on every shard of its group, or on none.

A group of one shard needs one committed write. A group cut by key range spreads a slide over shards, so
its visibility has two phases:

1. the home shard stores its share PENDING; only then
2. the other shards store theirs PENDING (an empty share too: it replaces an older version's rows);
3. the home commits: **this is the decision**; then
4. the others commit, and shards outside the group forget the slide, in case it lived there before its
   labels changed.

Every step is idempotent by slide and version, so the caller's answer to any failure is to repeat the
ingest. If nobody does, the janitor (see `janitor`) finishes what was decided and cancels what was not.
The outcome is returned after the last step: acknowledged means durable everywhere and stored once.

Flaws, known: between steps 3 and 4 (milliseconds, or longer if a shard fails just then) a search may see
part of the new version; and while a shard outside the group is down, an ingest is stored but not
acknowledged, because nobody can say that the slide is not there too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from sish_cluster.core.clock import Deadline
from sish_cluster.core.posting import EncodedSlide
from sish_cluster.core.seams import IngestOutcome, ShardCalls, SlideState
from sish_cluster.core.topology import ShardSpec, Topology
from sish_cluster.router.gather import gathered
from sish_cluster.router.slide_locks import SlideLocks


@dataclasses.dataclass(frozen=True, slots=True)
class Placement:
    """Which version of a slide belongs on which shards.

    Parameters
    ----------
    collection, slide_id, version
        What.
    group
        The shards that share the slide, in key order.
    home
        The one of them that decides.
    """

    collection: str
    slide_id: str
    version: str
    group: Sequence[ShardSpec]
    home: ShardSpec

    @property
    def others(self) -> list[ShardSpec]:
        """The group without the home."""
        return [spec for spec in self.group if spec.name != self.home.name]


class Ingester:
    """Places slides on shards.

    Parameters
    ----------
    topology
        Who owns what.
    shards
        The shards by name.
    locks
        Shared with the janitor.
    """

    def __init__(
        self, topology: Topology, shards: Mapping[str, ShardCalls], locks: SlideLocks
    ) -> None:
        self._topology = topology
        self._shards = shards
        self._locks = locks

    async def ingest(
        self, collection: str, slide: EncodedSlide, *, deadline: Deadline
    ) -> IngestOutcome:
        """Store a slide durably on every shard concerned.

        Raises
        ------
        Moved
            If no group owns the slide's labels.
        SishError
            Whatever a shard raised; repeating the same version completes the ingest.
        """
        slide_id = slide.slide.slide_id
        group = self._topology.group_of(slide.slide)
        home = self._topology.home_of(slide_id, group)
        placement = Placement(collection, slide_id, slide.version, group, home)
        async with self._locks.held(collection, slide_id):
            if placement.others:
                return await self._in_two_phases(slide, placement, deadline)
            outcome = await self._stored(slide, home, placement, SlideState.COMMITTED, deadline)
            await self.finish(placement, deadline)
            return outcome

    async def _in_two_phases(
        self, slide: EncodedSlide, placement: Placement, deadline: Deadline
    ) -> IngestOutcome:
        pending, home = SlideState.PENDING, placement.home
        first = await self._stored(slide, home, placement, pending, deadline)
        shares = {
            spec.name: self._stored(slide, spec, placement, pending, deadline)
            for spec in placement.others
        }
        asking = f"ingest of slide {placement.slide_id!r}"
        stored = await gathered(shares, asking=asking, deadline=deadline)
        await self._shards[home.name].commit_slide(
            placement.collection, placement.slide_id, placement.version, deadline=deadline
        )
        await self.finish(placement, deadline)
        was_stored = all(outcome.was_stored for outcome in (first, *stored.answers.values()))
        return IngestOutcome(placement.slide_id, placement.version, was_stored)

    async def finish(self, placement: Placement, deadline: Deadline) -> None:
        """Complete what the home has decided: commit the other shares, forget the slide elsewhere."""
        slide = (placement.collection, placement.slide_id)
        commits = {
            spec.name: self._shards[spec.name].commit_slide(
                *slide, placement.version, deadline=deadline
            )
            for spec in placement.others
        }
        inside = {spec.name for spec in placement.group}
        forgets = {
            spec.name: self._shards[spec.name].forget(*slide, deadline=deadline)
            for spec in self._topology.shards
            if spec.name not in inside
        }
        asking = (
            f"slide {placement.slide_id!r} is stored, but not acknowledged: each other shard must"
            " commit its share, or forget an older one"
        )
        await gathered({**commits, **forgets}, asking=asking, deadline=deadline)

    async def _stored(
        self,
        slide: EncodedSlide,
        spec: ShardSpec,
        placement: Placement,
        state: SlideState,
        deadline: Deadline,
    ) -> IngestOutcome:
        return await self._shards[spec.name].ingest(
            placement.collection,
            share_of(slide, spec),
            state=state,
            is_home=spec.name == placement.home.name,
            home=placement.home.name,
            deadline=deadline,
        )


def share_of(slide: EncodedSlide, spec: ShardSpec) -> EncodedSlide:
    """Return the rows of a slide whose keys a shard owns, under the slide's version."""
    keys = slide.patches.keys
    inside = (keys >= np.uint64(spec.range.start)) & (keys < np.uint64(spec.range.end))
    return slide if inside.all() else slide.part(inside)
