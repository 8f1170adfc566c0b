"""``sish shard``: serve a part of every collection, and look after its store."""

from __future__ import annotations

import asyncio
import logging
import re
import sys
from pathlib import Path
from typing import Any

import click

from sish_cluster.core.topology import KeyRange, Selector
from sish_cluster.shard import check
from sish_cluster.shard.backup import backed_up, restored
from sish_cluster.shard.data_dir import DataDir
from sish_cluster.shard.server import shard_server
from sish_cluster.shard.settings import CHECKPOINT_POSTINGS, SMALLEST_MAP_BYTES, ShardSettings
from sish_cluster.shard.shard import Shard
from sish_cluster.shard.warming import load_compiler, warm_kernels
from sish_cluster.wire.serving import ServingSettings, serve

SWITCH_INTERVAL_S = 0.0002
"""Seconds a Python thread may keep the interpreter while another waits. A search takes it back after every
kernel; at Python's own 5 ms each of these waits for a whole message being ingested."""

_UNITS = {"": 1, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30, "TIB": 1 << 40}


class ByteSize(click.ParamType):  # type: ignore[type-arg]
    """A size such as ``64GiB`` or ``1048576``, as bytes."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the bytes, or fail with the spelling that is wanted."""
        if isinstance(value, int):
            return value
        parsed = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]iB)?", value.strip(), re.IGNORECASE)
        if parsed is None:
            self.fail(f"{value!r} is no size: write bytes, or KiB, MiB, GiB, TiB (64GiB)")
        size = int(float(parsed[1]) * _UNITS[(parsed[2] or "").upper()])
        if size < SMALLEST_MAP_BYTES:
            self.fail(f"{value!r} is too small: a store needs at least {SMALLEST_MAP_BYTES} bytes")
        return size


FOLDER = click.Path(path_type=Path, file_okay=False)
"""A folder, existing or not."""

data_dir_option = click.option(
    "--data-dir", required=True, type=FOLDER, help="The shard's folder, on a local disk."
)
"""Which shard is meant."""


def _examples(*lines: str) -> str:
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


@click.group()
def shard() -> None:
    """Serve a part of every collection, and look after its store.

    A shard owns the slides that have the labels given with --select, and of these the keys given
    with --range. Its data directory holds everything; a kill at any moment loses nothing that was
    acknowledged.
    """


@shard.command(
    "serve",
    epilog=_examples(
        "sish shard serve --data-dir /data/a --listen 127.0.0.1:7001",
        "sish shard serve --data-dir /data/lung --listen 0.0.0.0:7001 --select site=lung",
        "sish shard serve --data-dir /data/low --listen 0.0.0.0:7001 --range 0:4e14",
    ),
)
@data_dir_option
@click.option("--listen", required=True, metavar="HOST:PORT", help="Port 0 takes a free one.")
@click.option("--name", default="shard", show_default=True, help="Its name in the topology.")
@click.option(
    "--select", multiple=True, metavar="LABEL=VALUE", help="A label slides here must have."
)
@click.option(
    "--range", "key_range", default=":", metavar="START:END", help="Keys owned, half-open."
)
@click.option("--map-size", type=ByteSize(), help="What the store may grow to.  [default: 1TiB]")
@click.option(
    "--checkpoint-postings",
    type=click.IntRange(min=1),
    default=CHECKPOINT_POSTINGS,
    show_default=True,
    help="Postings that come or go before a checkpoint is worth writing.",
)
@click.option("--port-file", type=click.Path(path_type=Path), help="Gets the bound HOST:PORT.")
def serve_shard(
    *,
    data_dir: Path,
    listen: str,
    name: str,
    select: tuple[str, ...],
    key_range: str,
    map_size: int | None,
    checkpoint_postings: int,
    port_file: Path | None,
) -> None:
    """Serve a shard until SIGTERM.

    Prints one line with the bound address once it is ready. On SIGTERM it reports NOT_SERVING, lets
    running calls finish, writes a checkpoint where that makes the next start faster, and closes the
    store.
    """
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s %(message)s")
    settings = ShardSettings(
        data_dir=data_dir,
        name=name,
        selector=Selector.parsed(select),
        range=KeyRange.parsed(key_range),
        map_bytes=map_size,
        checkpoint_postings=checkpoint_postings,
    )
    load_compiler()
    with Shard(settings) as opened:
        warm_kernels()
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        asyncio.run(_served(opened, ServingSettings(listen=listen, port_file=port_file)))


async def _served(opened: Shard, serving: ServingSettings) -> None:
    server, direct = shard_server(opened, serving)
    owned = opened.settings
    await serve(
        server,
        announce=lambda address: click.echo(
            f"shard {owned.name} serves {owned.selector}, keys {owned.range}, on {address}"
        ),
        on_stop=direct.close,
    )


@shard.command(
    "check",
    epilog=_examples(
        "sish shard check --data-dir /data/a",
        "sish shard check --data-dir /data/a --json",
        "sish shard check --data-dir /data/a --drop-damaged",
    ),
)
@data_dir_option
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.option(
    "--drop-damaged",
    is_flag=True,
    help="Remove damaged slides (the shard must be stopped), so that they can be ingested again.",
)
def check_shard(*, data_dir: Path, as_json: bool, drop_damaged: bool) -> None:
    """Read every record again and compare the index and the checkpoint with them.

    May run while the shard serves. Exits with 5 when something is damaged, naming it.
    """
    folder = DataDir(data_dir)
    folder.check_layout()
    checked = check.drop_damaged if drop_damaged else check.check_in_another_process
    report = checked(folder)
    _print(report, as_json=as_json)
    if not drop_damaged:
        report.raise_damage()


@shard.command(
    "backup",
    epilog=_examples("sish shard backup --data-dir /data/a --to /backups/a-2026-11-21"),
)
@data_dir_option
@click.option("--to", "target", required=True, type=FOLDER, help="A new folder.")
def back_up(*, data_dir: Path, target: Path) -> None:
    """Copy the store as of now, while the shard serves or not, and check the copy."""
    _print(backed_up(data_dir, target), as_json=False)
    click.echo(f"backup written to {target}")


@shard.command(
    "restore",
    epilog=_examples("sish shard restore --from /backups/a-2026-11-21 --data-dir /data/a"),
)
@click.option("--from", "backup", required=True, type=FOLDER, help="A folder `backup` wrote.")
@click.option("--data-dir", required=True, type=FOLDER, help="The shard's new folder.")
def restore(*, backup: Path, data_dir: Path) -> None:
    """Make a new data directory from a backup, checking every record; never overwrites one."""
    _print(restored(backup, data_dir), as_json=False)
    click.echo(f"{data_dir} restored: start it with `sish shard serve --data-dir {data_dir} ...`")


@shard.command("grow", epilog=_examples("sish shard grow --data-dir /data/a --map-size 2TiB"))
@data_dir_option
@click.option("--map-size", required=True, type=ByteSize(), help="What the store may grow to.")
def grow(*, data_dir: Path, map_size: int) -> None:
    """Let a full store grow, while it serves: refused writes go on without a restart."""
    folder = DataDir(data_dir)
    folder.check_layout()
    folder.set_limit(map_size)
    click.echo(f"{data_dir} may grow to {map_size} bytes; a running shard takes it up when full")


def _print(report: check.Report, *, as_json: bool) -> None:
    if as_json:
        click.echo(report.to_json())
        return
    for found in report.collections:
        click.echo(f"{found.name}: {found.slides} slides, {found.postings} postings sound")
    problems = [*report.damage, *report.checkpoint_damage]
    for problem in problems:
        click.echo(f"damaged: {problem}")
    if report.dropped:
        click.echo(f"{report.dropped} damaged slides dropped: ingest them again")
    click.echo("all sound" if not problems else f"{len(problems)} damaged")
