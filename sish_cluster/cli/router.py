"""``sish router``: serve one front for all shards, and check a topology."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import click

from sish_cluster.core.topology import Topology
from sish_cluster.router.ranking.settings import RankingSettings
from sish_cluster.router.server import connected_router, router_server
from sish_cluster.router.settings import RouterSettings
from sish_cluster.router.topology_file import topology_from_file
from sish_cluster.wire.serving import ServingSettings, serve

TOPOLOGY_HELP = """\b
A topology (cluster.toml):
  epoch = 1
  [[shards]]
  name = "lung"
  address = "127.0.0.1:7001"
  select = { site = "lung" }    # absent: every slide
  range = "0:4e14"              # absent: every key
"""
"""What a topology file looks like, for the help."""

topology_option = click.option(
    "--topology",
    "topology_file",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="File that says which shards there are and what each owns.",
)
"""Which shards there are."""


def _epilog(*examples: str) -> str:
    lines = "\n".join(f"  {example}" for example in examples)
    return f"{TOPOLOGY_HELP}\n\b\nExamples:\n{lines}"


@click.group()
def router() -> None:
    """Serve one front for all shards: search, ingest, collections, status."""


@router.command(
    "serve",
    epilog=_epilog(
        "sish router serve --topology cluster.toml --listen 127.0.0.1:7500",
        "sish router serve --topology cluster.toml --listen 127.0.0.1:0 --port-file router.port",
    ),
)
@topology_option
@click.option("--listen", required=True, metavar="HOST:PORT", help="Port 0 takes a free one.")
@click.option("--port-file", type=click.Path(path_type=Path), help="Gets the bound HOST:PORT.")
@click.option("--exact-limit", "exact_limit_s", type=click.FloatRange(0), show_default=True,
              default=RouterSettings().exact_limit_s,
              help="Most seconds an exact search may be expected to take for mode auto to run it.")  # fmt: skip
@click.option("--retccl-order", type=click.Choice(["ascending", "descending"]), show_default=True,
              default="ascending", help="Order of RetCCL's query patches by entropy.")  # fmt: skip
def serve_router(
    *,
    topology_file: Path,
    listen: str,
    port_file: Path | None,
    exact_limit_s: float,
    retccl_order: str,
) -> None:
    """Serve the router until SIGTERM.

    Prints one line with the bound address once it is ready; it does not wait for its shards. On
    SIGTERM it reports NOT_SERVING and lets running calls finish.
    """
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s %(message)s")
    topology = topology_from_file(topology_file)
    ranking = RankingSettings(retccl_certain_first=retccl_order == "ascending")
    settings = RouterSettings(exact_limit_s=exact_limit_s, ranking=ranking)
    serving = ServingSettings(listen=listen, port_file=port_file)
    asyncio.run(_served(topology, settings, serving))


async def _served(topology: Topology, settings: RouterSettings, serving: ServingSettings) -> None:
    server, close = router_server(connected_router(topology, settings), serving)
    await serve(
        server,
        announce=lambda address: click.echo(
            f"router serves {len(topology.shards)} shards (epoch {topology.epoch}) on {address}"
        ),
        on_stop=close,
    )


@router.command("check-topology", epilog=_epilog("sish router check-topology cluster.toml"))
@click.argument("topology_file", type=click.Path(path_type=Path, dir_okay=False))
def check_topology(*, topology_file: Path) -> None:
    """Check a topology file without starting anything, and print what each shard owns."""
    topology = topology_from_file(topology_file)
    click.echo(f"epoch {topology.epoch}: {len(topology.shards)} shards")
    for selector, group in topology.groups.items():
        click.echo(f"{selector}:")
        for shard in group:
            click.echo(f"  {shard.name} at {shard.address}, keys {shard.range}")
