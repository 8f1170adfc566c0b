"""``sish train vqvae``: the key network, its codebook and the codebook's order."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import click

from sish_cluster.cli.networks import FILE
from sish_cluster.cli.options import ExampleCommand
from sish_cluster.cli.output import printed_json
from sish_cluster.cli.train import TrainingBar
from sish_cluster.cli.train_options import FOLDER, trained, worker_options

SHOWN = ("loss", "mse", "line", "batch_perplexity", "held_out_psnr_db")
"""Values beside the bar."""


@click.command(
    "vqvae",
    cls=ExampleCommand,
    examples=[
        "sish train vqvae --slides slides/ --labels labels.csv --out runs/keys",
        "sish train vqvae --tiles tiles/ --out runs/keys --hold-out 'patient-7*'",
        "sish train vqvae --slides slides/ --out runs/keys --batch 64 --workers 4",
        "sish train vqvae --slides slides/ --out runs/keys --init runs/before/vqvae.safetensors",
        "sish index slides/ --collection mine --key-weights runs/keys/vqvae.safetensors",
    ],
)
@click.option("--slides", type=FOLDER, help="Slides whose tissue is trained on.")
@click.option("--tiles", type=FOLDER, help="Pictures to train on; labels.csv there names groups.")
@click.option("--labels", type=FILE, help="Labels of the slides: patients are held out whole.")
@click.option(
    "--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="Run's folder."
)
@click.option(
    "--profile",
    type=click.Choice(["compact", "published"]),
    default="compact",
    show_default=True,
    help="Whose key network.",
)
@click.option("--steps", type=click.IntRange(1), help="Optimiser steps.  [default: 5000]")
@click.option(
    "--batch", type=click.IntRange(1), help="Crops a step, four squares each.  [default: 8]"
)
@click.option(
    "--order",
    type=click.Choice(["similarity", "brightness"]),
    default="similarity",
    show_default=True,
    help="What codewords are ranked by: likeness of texture codes, or, with the published loss alone,"
    " the codebook's main direction.",
)
@click.option("--learning-rate", type=click.FloatRange(0, min_open=True), help="[default: 0.001]")
@click.option("--init", "initial", type=FILE, help="Weights to begin with.  [default: new ones]")
@click.option(
    "--hold-out",
    multiple=True,
    metavar="PATTERN",
    help="Groups kept for validation; repeatable.  [default: every tenth]",
)
@click.option("--seed", "rng_seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True)
@click.option(
    "--threads",
    type=click.IntRange(1),
    help="Threads of torch, of each worker.  [default: all, shared evenly]",
)
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, or auto.")
@worker_options
def vqvae(
    *,
    slides: Path | None,
    tiles: Path | None,
    profile: str,
    hold_out: tuple[str, ...],
    threads: int | None,
    **options: Any,
) -> None:
    """Train the key network on slides, tiles, or both.

    Squares are cut once into OUT/crops. The run writes checkpoint.pt, log.jsonl and loss.png as it
    goes, and vqvae.safetensors, metrics.json and model_card.md at its end; repeat the command after an
    interruption, and it goes on with the same loss curve.
    """
    if slides is None and tiles is None:
        raise click.UsageError("give --slides, --tiles, or both: there is nothing to train on")
    from sish_cluster.encoder.profile import profile_of
    from sish_cluster.encoder.training.vqvae_run import VqVaeRun, prepare, train_vqvae

    run = VqVaeRun(
        options["out"],
        slides,
        tiles,
        options["labels"],
        hold_out,
        profile_of(profile),
        options["initial"],
        _training(options, profile),
        rng_seed=options["rng_seed"],
        device=options["device"],
        threads=threads,
    )
    with TrainingBar("key network", shown=SHOWN) as bar:
        found = trained(
            functools.partial(train_vqvae, run),
            {**options, "threads": threads},
            batch=run.training.batch_crops,
            bar=bar,
            prepare=lambda: prepare(
                run, lambda what, done, total: bar.say(f"{done}/{total} {what[:60]}")
            ),
        )
    printed_json(found)


def _training(options: dict[str, Any], profile: str) -> Any:
    """Return the training's settings, those given replacing the defaults."""
    from sish_cluster.encoder.training.vqvae import VqVaeTrainingSettings

    names = {"steps": "n_steps", "batch": "batch_crops", "learning_rate": "learning_rate"}
    given = {field: options[name] for name, field in names.items() if options[name] is not None}
    # The published network halves once more: twice the side gives the same grid of codewords.
    given["crop_px"] = 256 if profile == "published" else 128
    if options["order"] == "brightness":
        given["line_weight"] = 0.0
    return VqVaeTrainingSettings(**given)
