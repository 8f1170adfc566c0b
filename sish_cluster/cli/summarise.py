"""``sish summarise``: a folder of feature files becomes a folder of summaries."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.markup import escape
from rich.table import Table

from sish_cluster.cli.failures import PARTLY_DONE
from sish_cluster.cli.networks import FILE
from sish_cluster.cli.options import ExampleCommand
from sish_cluster.cli.output import console, failures_table
from sish_cluster.cli.train_options import FOLDER

if TYPE_CHECKING:
    from sish_cluster.encoder.summarising import Choose, SlideSummarised

METHODS = ("wsisum", "random", "cluster", "entropy", "location")
"""Ways to choose; named here so that the help needs no torch."""


@click.command(
    "summarise",
    cls=ExampleCommand,
    examples=[
        "sish summarise features/ --model runs/wsisum/wsisum.safetensors --out summaries/",
        "sish summarise features/ --method location --patches 32 --out summaries/",
    ],
)
@click.argument("features", type=FOLDER)
@click.option(
    "--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="Gets NAME.h5."
)
@click.option("--model", type=FILE, help="What `sish train wsisum` wrote; wsisum needs it.")
@click.option(
    "--teacher",
    "teachers",
    multiple=True,
    type=FILE,
    help="h5 of slide vectors, the same files in the same order as in training; repeatable.",
)
@click.option(
    "--method",
    type=click.Choice(METHODS),
    default="wsisum",
    show_default=True,
    help="Who chooses: the model, or a baseline to compare it with.",
)
@click.option(
    "--patches",
    type=click.IntRange(1),
    help="Patches to keep.  [default: one in eight, at most 63]",
)
@click.option("--tries", type=click.IntRange(1), help="Most masks tried.  [default: 1000]")
@click.option("--seed", "rng_seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True)
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, or auto.")
def summarise(*, features: Path, out: Path, method: str, **options: Any) -> None:
    """Write a summary of every feature file: the few patches from which the slide is told best.

    FEATURES holds one h5 per slide with features (n, d) and coords (n, 2), as CLAM and TRIDENT write them. A
    summary has features, coords, indices (rows of the input) and score. Summaries that are there
    already are left alone.
    """
    from sish_cluster.encoder.summarising import summarised_folder

    done = []
    for found in summarised_folder(features, out, _choose(method, options), method=method):
        done.append(found)
        click.echo(_line(found), err=True)
    console().print(_table(done, method))
    failed = [(found.name, found.problem) for found in done if found.problem]
    if failed:
        console().print(failures_table(failed))
        raise SystemExit(PARTLY_DONE)


def _choose(method: str, options: dict[str, Any]) -> Choose:
    """Return what chooses, as the options say."""
    from sish_cluster.encoder.networks.inputs import device_of
    from sish_cluster.encoder.summarising import ByBaseline, ByModel
    from sish_cluster.encoder.summary_files import read_vectors
    from sish_cluster.encoder.summary_model import read_summary_model
    from sish_cluster.encoder.summary_search import SelectionSettings

    if method != "wsisum":
        return ByBaseline(method, options["patches"], rng_seed=options["rng_seed"])
    if options["model"] is None:
        raise click.UsageError("--method wsisum needs --model: `sish train wsisum` writes one")
    settings = SelectionSettings()
    if options["tries"] is not None:
        most = options["tries"]
        settings = SelectionSettings(min_tries=min(settings.min_tries, most), max_tries=most)
    return ByModel(
        read_summary_model(options["model"], device=device_of(options["device"])),
        [read_vectors(file) for file in options["teachers"]],
        options["patches"],
        settings,
        options["rng_seed"],
    )


def _line(found: SlideSummarised) -> str:
    if found.problem:
        return f"{found.name}: failed"
    if found.was_done:
        return f"{found.name}: there already"
    score = "" if found.score != found.score else f", cosine {found.score:.4f}"
    return f"{found.name}: {found.patches} patches{score}"


def _table(done: list[SlideSummarised], method: str) -> Table:
    table = Table(title=f"summaries by {escape(method)}", title_justify="left")
    table.add_column("slide", overflow="fold")
    for heading in ("patches", "cosine", "tries"):
        table.add_column(heading, justify="right")
    for found in done:
        if not found.was_done and not found.problem:
            score = "-" if found.score != found.score else f"{found.score:.4f}"
            table.add_row(escape(found.name), str(found.patches), score, str(found.tries or "-"))
    return table
