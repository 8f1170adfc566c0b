"""``sish``: the command and its groups, each loaded when it is used.

``sish shard`` and ``sish router`` run where no torch is installed; ``sish --help`` imports nothing.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from typing import Any

import click

from sish_cluster.cli.failures import told_plainly

COMMANDS: dict[str, tuple[str, str]] = {
    "index": ("sish_cluster.cli.index:index", "Encode a folder of slides into a collection."),
    "search": ("sish_cluster.cli.search:search", "Find the slides that look like a slide."),
    "collection": (
        "sish_cluster.cli.collection:collection",
        "Create, list, describe; forget slides.",
    ),
    "evaluate": ("sish_cluster.cli.evaluate:evaluate", "Measure how good the answers are."),
    "calibrate": ("sish_cluster.cli.calibrate:calibrate", "Measure and propose search bounds."),
    "import": (
        "sish_cluster.cli.import_files:import_files",
        "Import published files, features, tables.",
    ),
    "export": (
        "sish_cluster.cli.export_files:export_files",
        "Write a collection as published files or a table.",
    ),
    "status": ("sish_cluster.cli.status:status", "Show the cluster, its shards and the encoder."),
    "shard": ("sish_cluster.cli.shard:shard", "Serve a part of every collection."),
    "router": ("sish_cluster.cli.router:router", "Serve one front for all shards."),
    "encoder": ("sish_cluster.cli.encoder:encoder", "Serve slide encoding (Ray actors)."),
    "train": ("sish_cluster.cli.train:train", "Make weights from your own slides and tiles."),
    "summarise": (
        "sish_cluster.cli.summarise:summarise",
        "Keep the few patches that tell a slide.",
    ),
}
"""Name -> (module:attribute, one line of help), in the order of ``sish --help``."""


class LazyGroup(click.Group):
    """A group that imports a command only when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order a newcomer needs them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command."""
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; a failure ends in one line and an exit code."""
        with told_plainly(is_debug=bool(ctx.params.get("debug"))):
            return super().invoke(ctx)


def _version() -> str:
    return importlib.metadata.version("sish-cluster")


EPILOG = """\b
On one machine (an embedded cluster in ~/.local/share/sish):
  sish index slides/ --labels labels.csv --collection demo
  sish search query.svs --collection demo -k 5

\b
On many (start these, then give --router to the two commands above):
  sish shard serve --data-dir /data/a --listen 0.0.0.0:7001 --range 0:4e14
  sish router serve --topology cluster.toml --listen 0.0.0.0:7500

\b
Exit codes: 0 done, 1 refused, 2 usage, 3 unavailable (try later),
4 some slides failed, 5 broken data or a bug, 130 interrupted.
"""
"""What stands below the list of commands: the two ways to run the product."""


@click.group(
    cls=LazyGroup,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(_version(), prog_name="sish")
@click.option("--debug", is_flag=True, help="Show the traceback of a failure.")
def main(debug: bool) -> None:
    """Find the slides that look like a slide.

    Every slide becomes a mosaic of representative patches, every patch an integer key and a texture
    code. A search looks up the query's keys, compares codes, and ranks slides by how sure it is.
    """
