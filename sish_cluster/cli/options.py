"""Options that several commands share, and commands whose help ends with examples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from sish_cluster.cli.networks import encoder_settings, network_options
from sish_cluster.client import Client
from sish_cluster.local import DEFAULT_HOME, encoded_folder, open_home
from sish_cluster.local.encoding import LocalEncoder, ServiceEncoder

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


def actor_options(command: Decorated) -> Decorated:
    """Add ``--actors``, ``--min-actors`` and ``--readers``: who encodes, and who reads for them."""
    options = [
        click.option(
            "--actors",
            type=click.IntRange(1),
            help="Encoder actors, the most there may be.  [default: one per core]",
        ),
        click.option(
            "--min-actors",
            type=click.IntRange(1),
            help="Actors there always are; more are added while patches wait.  [default: all]",
        ),
        click.option(
            "--readers", type=click.IntRange(1), help="Readers of slides.  [default: one per actor]"
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def collection_option(command: Decorated) -> Decorated:
    """Add ``--collection``."""
    return click.option(
        "--collection", "-c", required=True, metavar="NAME", help="Collection to use."
    )(command)


def encoder_options(command: Decorated) -> Decorated:
    """Add ``--encoder``, ``--encoder-folder``, ``--mpp`` and the networks: who encodes, and how."""
    service = click.option(
        "--encoder",
        metavar="HOST:PORT",
        envvar="SISH_ENCODER",
        help="An encoder service that reads the same files; without one, this machine encodes.",
    )
    folder = click.option(
        "--encoder-folder",
        type=click.Path(path_type=Path, file_okay=False),
        help="The folder that service reads, as this machine sees it.",
    )
    mpp = click.option(
        "--mpp",
        type=float,
        metavar="UM",
        help="Micrometres per pixel of slides that do not say it (0.5 for 20x, 0.25 for 40x).",
    )
    return service(folder(network_options(mpp(command))))


def open_encoder(
    options: Mapping[str, Any], *, folder: Path | None
) -> LocalEncoder | ServiceEncoder:
    """Return who encodes, as the options say; close it afterwards.

    Parameters
    ----------
    options
        Of a command with `encoder_options`; ``use_ray``, ``ray_address`` and those of `actor_options` where it has
        them.
    folder
        The folder an encoder service reads, unless ``--encoder-folder`` names another.
    """
    if options["encoder"]:
        return ServiceEncoder(options["encoder"], options["encoder_folder"] or folder or Path())
    return LocalEncoder(
        settings=encoder_settings(options),
        use_ray=options.get("use_ray", False),
        ray_address=options.get("ray_address"),
        n_actors=options.get("actors"),
        min_actors=options.get("min_actors"),
        n_readers=options.get("readers"),
        cache=encoded_folder(options["home"]),
    )


def open_cluster(router: str | None, home: Path | None) -> Client:
    """Return a client of the router, or of the embedded cluster in ``home``."""
    return Client(router) if router else open_home(home)
