"""``sish encoder``: serve slide encoding, and say what the encoder is."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.markup import escape
from rich.table import Table

from sish_cluster.cli.networks import encoder_settings, network_options
from sish_cluster.cli.options import ExampleCommand, actor_options
from sish_cluster.cli.output import console, printed_json

if TYPE_CHECKING:
    from sish_cluster.encoder.settings import EncoderSettings


@click.group()
def encoder() -> None:
    """Encode slides for others: mosaics in, integer keys and texture codes out."""


@encoder.command(
    "serve",
    cls=ExampleCommand,
    examples=[
        "sish encoder serve --listen 127.0.0.1:7600 --slides-dir slides/",
        "sish encoder serve --listen 0.0.0.0:7600 --slides-dir /slides --ray ray-head:6379",
        "sish encoder serve --listen 127.0.0.1:7600 --no-ray --actors 1",
        "sish encoder serve --listen 127.0.0.1:7600 --profile published --key-weights model_9.pt"
        " --codeword-order codebook_semantic.pt",
    ],
)
@click.option("--listen", required=True, metavar="HOST:PORT", help="Port 0 takes a free one.")
@click.option(
    "--slides-dir",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Folder whose slides may be encoded by path; without it only patches can be sent.",
)
@click.option("--ray", "ray_address", metavar="ADDRESS", help="A Ray cluster to join.")
@click.option("--no-ray", is_flag=True, help="Run the actors as threads of this process.")
@actor_options
@click.option(
    "--max-waiting",
    type=click.IntRange(0),
    default=16,
    show_default=True,
    help="Calls that may wait for an actor; more are told to come later.",
)
@click.option("--port-file", type=click.Path(path_type=Path), help="Gets the bound HOST:PORT.")
@network_options
def serve_encoder(
    *,
    listen: str,
    slides_dir: Path | None,
    ray_address: str | None,
    no_ray: bool,
    actors: int | None,
    min_actors: int | None,
    readers: int | None,
    max_waiting: int,
    port_file: Path | None,
    **networks: Any,
) -> None:
    """Serve slide encoding until SIGTERM.

    Starts the actors (under Ray unless --no-ray), then prints one line with the bound address. Ray's own
    ports are open to the network and guarded by a random token.
    """
    from sish_cluster.encoder.pool import started_actors
    from sish_cluster.encoder.settings import ActorSettings, ServiceSettings

    if no_ray and ray_address:
        raise click.UsageError("--ray and --no-ray exclude each other")
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s %(message)s")
    settings, many = (
        encoder_settings(networks),
        ActorSettings(n_actors=actors, min_actors=min_actors, n_readers=readers),
    )
    allowed = ServiceSettings(slides_dir=slides_dir, max_waiting=max_waiting)
    with started_actors(settings, many, ray=not no_ray, ray_address=ray_address) as started:
        asyncio.run(_served(started, settings, allowed, listen=listen, port_file=port_file))


async def _served(
    started: Any, settings: EncoderSettings, allowed: Any, *, listen: str, port_file: Path | None
) -> None:
    from sish_cluster.encoder.pipeline import description_of
    from sish_cluster.encoder.server import encoder_server
    from sish_cluster.wire.serving import ServingSettings, serve

    about = await asyncio.to_thread(description_of, settings)
    server = encoder_server(started, settings, allowed, ServingSettings(listen, port_file))
    await serve(
        server,
        announce=lambda address: click.echo(
            f"encoder serving on {address} ({len(started)} actors; {about})"
        ),
    )


@encoder.command(
    "describe",
    cls=ExampleCommand,
    examples=[
        "sish encoder describe",
        "sish encoder describe --profile published --json",
    ],
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@network_options
def describe(*, as_json: bool, **networks: Any) -> None:
    """Say what the encoder of these options is: fingerprint, networks, whether they are trained."""
    import dataclasses

    from sish_cluster.encoder.pipeline import description_of

    found = description_of(encoder_settings(networks))
    if as_json:
        printed_json(dataclasses.asdict(found))
        return
    table = Table(show_header=False)
    for name, value in dataclasses.asdict(found).items():
        table.add_row(name.replace("_", " "), escape(str(value)))
    console().print(table)
