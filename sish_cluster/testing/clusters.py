"""Real clusters for tests: processes on loopback that a test may kill and start again.

Examples
--------
::

    with ProcessCluster(tmp_path, [ShardPlan("a")]) as cluster, Client(cluster.address) as client:
        ...
        cluster.kill("a")
        cluster.restart("a")
"""

from __future__ import annotations

from sish_cluster.core.topology import KeyRange, Selector
from sish_cluster.local.loopback import LoopbackCluster, ShardPlan
from sish_cluster.testing.synthetic import KEYS_BELOW

__all__ = [
    "ProcessCluster",
    "ShardPlan",
    "cut_by_label",
    "cut_by_range",
    "cut_nowhere",
]


class ProcessCluster(LoopbackCluster):
    """A loopback cluster whose processes can be killed and restarted one by one."""

    def kill(self, shard: str) -> None:
        """SIGKILL a shard, as a power cut would."""
        self.shards[shard].kill()

    def restart(self, shard: str) -> str:
        """Start a killed shard on the same address and data, and return once it serves."""
        return self.shards[shard].start()


def cut_nowhere() -> list[ShardPlan]:
    """Return one shard that owns everything."""
    return [ShardPlan("all")]


def cut_by_label(label: str, values: list[str]) -> list[ShardPlan]:
    """Return a shard per value of a label, and one for the rest."""
    named = [ShardPlan(f"{label}-{n}", Selector.of({label: v})) for n, v in enumerate(values)]
    return [*named, ShardPlan("rest")]


def cut_by_range(count: int, *, below: int = KEYS_BELOW) -> list[ShardPlan]:
    """Return ``count`` shards that cut the keys below ``below`` evenly; the last takes the rest."""
    borders = [round(n * below / count) for n in range(count)]
    ends = [*borders[1:], KeyRange().end]
    pairs = zip(borders, ends, strict=True)
    return [ShardPlan(f"keys-{n}", range=KeyRange(*pair)) for n, pair in enumerate(pairs)]
