"""A whole cluster on loopback: shard processes, one router process, the topology between them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from sish_cluster.core.topology import KeyRange, Selector, ShardSpec, Topology
from sish_cluster.local.processes import FREE_PORT, ServerProcess, Servers
from sish_cluster.router.topology_file import topology_text


@dataclasses.dataclass(frozen=True, slots=True)
class ShardPlan:
    """A shard to start: its name, what it owns, more of its command line."""

    name: str
    selector: Selector = dataclasses.field(default_factory=Selector)
    range: KeyRange = dataclasses.field(default_factory=KeyRange)
    options: tuple[str, ...] = ()


class LoopbackCluster:
    """Shards and a router, each a process of its own, on ports the system picks.

    Parameters
    ----------
    folder
        Data directories, logs, port files and ``cluster.toml``; kept, so that the same folder later
        serves the same slides.
    plans
        The shards.
    environment
        Variables beside this process's own.

    Examples
    --------
    ::

        low, high = ShardPlan("low", range=KeyRange(0, 4 * 10**14)), ...
        with LoopbackCluster(Path("state"), [low, high]) as cluster, Client(cluster.address) as client:
            client.list_collections()
    """

    def __init__(
        self,
        folder: Path,
        plans: Sequence[ShardPlan],
        *,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self.plans = tuple(plans)
        self._environment = dict(environment or {})
        self._servers = Servers()
        self.shards = {plan.name: self._shard(plan, FREE_PORT) for plan in self.plans}
        self.router = self._router(FREE_PORT)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    @property
    def address(self) -> str:
        """The router's ``host:port``."""
        return self.router.address

    @property
    def topology(self) -> Topology:
        """Who owns what, and where it listens; complete once the cluster has started."""
        return Topology(
            tuple(
                ShardSpec(plan.name, self.shards[plan.name].address, plan.selector, plan.range)
                for plan in self.plans
            )
        )

    def start(self) -> str:
        """Start the shards, then the router; return the router's address."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._servers.started(list(self.shards.values()))
        self._topology_file.write_text(topology_text(self.topology), encoding="utf-8")
        self._servers.started([self.router])
        return self.address

    def stop(self) -> None:
        """Drain and end every process."""
        self._servers.stop()

    def logs(self) -> str:
        """Return the end of every server's log."""
        servers = [*self.shards.values(), self.router]
        return "\n".join(f"--- {server.name}\n{server.log_tail()}" for server in servers)

    @property
    def _topology_file(self) -> Path:
        return self.folder / "cluster.toml"

    def _shard(self, plan: ShardPlan, listen: str) -> ServerProcess:
        arguments = ["shard", "serve", "--name", plan.name]
        arguments += ["--data-dir", str(self.folder / plan.name), "--range", str(plan.range)]
        for label, value in plan.selector.labels:
            arguments += ["--select", f"{label}={value}"]
        arguments += plan.options
        return self._server(plan.name, arguments, listen)

    def _router(self, listen: str) -> ServerProcess:
        arguments = ["router", "serve", "--topology", str(self._topology_file)]
        return self._server("router", arguments, listen)

    def _server(self, name: str, arguments: list[str], listen: str) -> ServerProcess:
        return ServerProcess(
            name, arguments, self.folder, listen=listen, environment=self._environment
        )
