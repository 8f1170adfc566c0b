"""The cluster's status as a message and back."""

from __future__ import annotations

from sish_cluster.core.cluster import ClusterStatus, ShardHealth
from sish_cluster.core.topology import KeyRange, Selector
from sish_cluster.wire.sish.v1 import router_pb2 as pb
from sish_cluster.wire.values import pack_collection_state, unpack_collection_state


def pack_cluster_status(status: ClusterStatus) -> pb.RouterServiceStatusResponse:
    """Return a cluster's status as a message."""
    return pb.RouterServiceStatusResponse(
        version=status.version,
        epoch=status.epoch,
        uptime_s=status.uptime_s,
        shards=map(_pack_shard_health, status.shards),
    )


def unpack_cluster_status(message: pb.RouterServiceStatusResponse) -> ClusterStatus:
    """Return the cluster's status of a message."""
    return ClusterStatus(
        version=message.version,
        epoch=message.epoch,
        uptime_s=message.uptime_s,
        shards=tuple(map(_unpack_shard_health, message.shards)),
    )


def _pack_shard_health(health: ShardHealth) -> pb.ShardHealth:
    return pb.ShardHealth(
        name=health.name,
        address=health.address,
        selector=dict(health.selector.labels),
        range_start=health.range.start,
        range_end=health.range.end,
        is_serving=health.is_serving,
        problem=health.problem,
        collections=map(pack_collection_state, health.collections),
        store_used_bytes=health.store_used_bytes,
        resident_bytes=health.resident_bytes,
    )


def _unpack_shard_health(message: pb.ShardHealth) -> ShardHealth:
    return ShardHealth(
        name=message.name,
        address=message.address,
        selector=Selector.of(message.selector),
        range=KeyRange(message.range_start, message.range_end),
        is_serving=message.is_serving,
        problem=message.problem,
        collections=tuple(map(unpack_collection_state, message.collections)),
        store_used_bytes=message.store_used_bytes,
        resident_bytes=message.resident_bytes,
    )
