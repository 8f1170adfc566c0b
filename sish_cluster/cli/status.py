"""``sish status``: the cluster, its shards and collections, and what the encoder is."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from sish_cluster.cli.collection import state_as_json
from sish_cluster.cli.failures import UNAVAILABLE
from sish_cluster.cli.options import ExampleCommand, cluster_options, open_cluster
from sish_cluster.cli.output import bytes_text, collections_table, console, printed_json
from sish_cluster.client import EncoderClient, EncoderDescription
from sish_cluster.core.cluster import ClusterStatus, ShardHealth
from sish_cluster.core.collection import CollectionState
from sish_cluster.core.counting import counted
from sish_cluster.core.errors import SishError

NO_ENCODER = "not installed here (core install): pip install 'sish-cluster[encoder]'"
"""What stands for the encoder where torch is missing."""


@click.command(
    cls=ExampleCommand,
    examples=[
        "sish status",
        "sish status --router 127.0.0.1:7500 --encoder 127.0.0.1:7600 --json",
    ],
)
@click.option("--encoder", metavar="HOST:PORT", help="An encoder service to ask too.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@cluster_options
def status(encoder: str | None, as_json: bool, router: str | None, home: Path | None) -> None:
    """Show the cluster, its shards and collections, and the encoder.

    Ends with exit code 3 when a shard does not answer.
    """
    with open_cluster(router, home) as client:
        found = client.status()
        collections = _collections_of(client, found)
    about = _encoder_of(encoder)
    if as_json:
        printed_json(_as_json(found, collections, about))
    else:
        _print(console(), found, collections, about)
    if not all(shard.is_serving for shard in found.shards):
        raise SystemExit(UNAVAILABLE)


def _collections_of(client: Any, found: ClusterStatus) -> list[CollectionState]:
    """Return the collections as the whole cluster has them; none while a shard is missing."""
    if not all(shard.is_serving for shard in found.shards):
        return []
    return [client.describe_collection(made.name) for made in client.list_collections()]


def _encoder_of(address: str | None) -> EncoderDescription | str:
    """Return what encodes: the service at ``address``, or this machine's default encoder."""
    try:
        if address:
            return asyncio.run(_described(address))
        from sish_cluster.local.encoding import LocalEncoder

        return LocalEncoder().description
    except ModuleNotFoundError:
        return NO_ENCODER
    except SishError as error:
        return error.message


async def _described(address: str) -> EncoderDescription:
    async with EncoderClient(address) as client:
        return await client.describe()


def _print(
    out: Console,
    found: ClusterStatus,
    collections: list[CollectionState],
    encoder: EncoderDescription | str,
) -> None:
    serving = sum(shard.is_serving for shard in found.shards)
    out.print(
        f"[bold]cluster[/] sish {found.version}, topology epoch {found.epoch},"
        f" {serving} of {counted(len(found.shards), 'shard')} serving"
    )
    out.print(_shards_table(found))
    if collections:
        out.print(collections_table(collections))
    elif serving == len(found.shards):
        out.print("no collections yet: `sish index SLIDES_DIR --collection NAME` makes one")
    out.print("[bold]encoder[/]")
    for name, value in _encoder_lines(encoder):
        out.print(f"  {name:<12} {escape(value)}")


def _encoder_lines(encoder: EncoderDescription | str) -> list[tuple[str, str]]:
    if isinstance(encoder, str):
        return [("", encoder)]
    lines = [
        ("profile", encoder.profile),
        ("keys", encoder.key_weights),
        ("textures", encoder.texture_weights),
        ("fingerprint", encoder.fingerprint),
        ("code bits", str(encoder.code_bits)),
    ]
    if encoder.actors:
        lines.append(
            ("actors", f"{encoder.actors} alive, {counted(encoder.queued, 'slide')} waiting")
        )
    return lines


def _shards_table(found: ClusterStatus) -> Table:
    table = Table(title="shards", title_justify="left", header_style="bold")
    for heading in ("name", "address", "owns", "keys", "state"):
        table.add_column(heading, overflow="fold")
    for heading in ("slides", "patches", "store", "memory"):
        table.add_column(heading, justify="right")
    for shard in found.shards:
        table.add_row(*_shard_cells(shard))
    return table


def _shard_cells(shard: ShardHealth) -> list[str]:
    state = (
        "[green]serving[/]" if shard.is_serving else f"[red]{escape(shard.problem or 'down')}[/]"
    )
    cells = [
        escape(shard.name),
        escape(shard.address or "in this process"),
        escape(str(shard.selector)),
        str(shard.range),
        state,
    ]
    if not shard.is_serving:
        return [*cells, "-", "-", "-", "-"]
    slides = sum(held.slides for held in shard.collections)
    patches = sum(held.postings for held in shard.collections)
    sizes = (bytes_text(shard.store_used_bytes), bytes_text(shard.resident_bytes))
    return [*cells, f"{slides:,}", f"{patches:,}", *sizes]


def _as_json(
    found: ClusterStatus, collections: list[CollectionState], encoder: EncoderDescription | str
) -> dict[str, Any]:
    return {
        "version": found.version,
        "epoch": found.epoch,
        "uptime_s": found.uptime_s,
        "shards": [_shard_as_json(shard) for shard in found.shards],
        "collections": [state_as_json(state) for state in collections],
        "encoder": encoder if isinstance(encoder, str) else dataclasses.asdict(encoder),
    }


def _shard_as_json(shard: ShardHealth) -> dict[str, Any]:
    return {
        "name": shard.name,
        "address": shard.address,
        "selector": dict(shard.selector.labels),
        "range": [shard.range.start, shard.range.end],
        "is_serving": shard.is_serving,
        "problem": shard.problem,
        "collections": [state_as_json(state) for state in shard.collections],
        "store_used_bytes": shard.store_used_bytes,
        "resident_bytes": shard.resident_bytes,
    }
