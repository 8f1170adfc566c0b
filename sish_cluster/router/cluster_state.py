"""What all shards hold, and how each of them is."""

from __future__ import annotations

import importlib.metadata
from collections import Counter
from collections.abc import Mapping

from sish_cluster.core.clock import Deadline
from sish_cluster.core.cluster import ClusterStatus, ShardHealth
from sish_cluster.core.collection import CollectionState
from sish_cluster.core.errors import SishError
from sish_cluster.core.seams import ShardCalls, ShardStatus
from sish_cluster.core.topology import ShardSpec, Topology
from sish_cluster.router.gather import gathered


def summed_state(states: Mapping[str, CollectionState], topology: Topology) -> CollectionState:
    """Return a collection's state over all shards, by shard name.

    A slide is counted at its home, its postings where they are. A slide pending on several shards of
    a group counts once there: the group's largest number is taken.
    """
    counts: dict[str, Counter[str]] = {}
    for state in states.values():
        for label, values in state.label_counts.items():
            counts.setdefault(label, Counter()).update(values)
    return CollectionState(
        collection=next(iter(states.values())).collection,
        slides=sum(state.slides for state in states.values()),
        postings=sum(state.postings for state in states.values()),
        pending=sum(
            max(states[spec.name].pending for spec in group) for group in topology.groups.values()
        ),
        label_counts={label: dict(values) for label, values in counts.items()},
    )


async def cluster_status(
    topology: Topology,
    shards: Mapping[str, ShardCalls],
    *,
    uptime_s: float,
    deadline: Deadline,
) -> ClusterStatus:
    """Return how every shard of the topology is; this never fails because of a shard."""
    calls = {spec.name: _health(spec, shards[spec.name], deadline) for spec in topology.shards}
    told = await gathered(calls, asking="status", deadline=deadline, allow_partial=True)
    health = [
        told.answers.get(spec.name) or _ill(spec, told.missing[spec.name])
        for spec in topology.shards
    ]
    version = importlib.metadata.version("sish-cluster")
    return ClusterStatus(version, topology.epoch, uptime_s, tuple(health))


async def _health(spec: ShardSpec, shard: ShardCalls, deadline: Deadline) -> ShardHealth:
    try:
        status = await shard.status(deadline=deadline)
    except SishError as error:
        return _ill(spec, error)
    return ShardHealth(
        name=spec.name,
        address=spec.address,
        selector=spec.selector,
        range=spec.range,
        is_serving=True,
        problem=_mismatch(spec, status),
        collections=tuple(status.collections),
        store_used_bytes=status.store_used_bytes,
        resident_bytes=status.resident_bytes,
    )


def _ill(spec: ShardSpec, error: SishError) -> ShardHealth:
    return ShardHealth(
        spec.name, spec.address, spec.selector, spec.range, is_serving=False, problem=error.message
    )


def _mismatch(spec: ShardSpec, status: ShardStatus) -> str:
    """Return what is wrong when a shard owns something else than the topology says."""
    if (status.selector, status.range) == (spec.selector, spec.range):
        return ""
    return (
        f"the topology gives this shard {spec.selector} in {spec.range}; it was started with"
        f" {status.selector} in {status.range}: start it with matching --select and --range, or"
        " correct the topology"
    )
