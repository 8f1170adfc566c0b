"""Options that several commands share, and commands whose help ends with examples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from sish_cluster.client import Client
from sish_cluster.local import DEFAULT_HOME, open_home

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


class ExampleCommand(click.Command):
    """A command whose help ends with examples, one a line.

    Parameters
    ----------
    examples
        Complete command lines.
    """

    def __init__(self, *args: Any, examples: Sequence[str] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._examples = examples

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples as they are typed."""
        super().format_epilog(ctx, formatter)
        if self._examples:
            with formatter.section("Examples"):
                for example in self._examples:
                    formatter.write(f"{'':>{formatter.current_indent}}{example}\n")


def cluster_options(command: Decorated) -> Decorated:
    """Add ``--router`` and ``--home``: which cluster is meant."""
    home = click.option(
        "--home",
        type=click.Path(path_type=Path, file_okay=False),
        default=None,
        envvar="SISH_HOME",
        help=f"Folder of the embedded cluster, and of encoded slides.  [default: {DEFAULT_HOME}]",
    )
    router = click.option(
        "--router",
        metavar="HOST:PORT",
        default=None,
        envvar="SISH_ROUTER",
        help="A router's address; without one the embedded cluster in --home is used.",
    )
    return home(router(command))


def collection_option(command: Decorated) -> Decorated:
    """Add ``--collection``."""
    return click.option(
        "--collection", "-c", required=True, metavar="NAME", help="Collection to use."
    )(command)


def debug_of(context: click.Context) -> bool:
    """Return whether ``sish --debug`` was given."""
    return bool(context.find_root().params.get("debug"))


def open_cluster(router: str | None, home: Path | None) -> Client:
    """Return a client of the router, or of the embedded cluster in ``home``."""
    return Client(router) if router else open_home(home)
