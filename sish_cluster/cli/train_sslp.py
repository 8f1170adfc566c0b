"""``sish train sslp``: an embedding by spatial neighbours."""

from __future__ import annotations

import functools
from typing import Any

import click

from sish_cluster.cli.options import ExampleCommand
from sish_cluster.cli.output import printed_json
from sish_cluster.cli.train import TrainingBar
from sish_cluster.cli.train_options import (
    given,
    patch_options,
    patch_run_of,
    run_options,
    trained,
)

SHOWN = ("loss", "self", "intra", "inter")
"""Values beside the bar."""


@click.command(
    "sslp",
    cls=ExampleCommand,
    examples=[
        "sish train sslp --slides slides/ --labels labels.csv --out runs/sslp",
        "sish train sslp --slides slides/ --out runs/sslp --workers 4 --gpus-per-worker 1",
        "sish train sslp --tiles tiles/ --out runs/trial --patch-px 128 --view-px 64 --batch 64"
        " --passes 30",
    ],
)
@patch_options
@click.option(
    "--head", type=click.Choice(["linear", "mlp"]), help="T 0.07 or 0.2.  [default: linear]"
)
@click.option("--reach", type=click.FloatRange(0, min_open=True), help="Of neighbours, grid steps.")
@click.option("--clusters", type=click.IntRange(1), help="Of the bank.  [default: 1000]")
@run_options
def sslp(**options: Any) -> None:
    """Train SSLP's encoder on slides, tiles, or both.

    Patches and their places are cut once into OUT/patches. The run writes checkpoint.pt, log.jsonl and
    loss.png as it goes, and sslp.safetensors (the backbone, torchvision's names) and metrics.json at its end;
    repeat the command after an interruption, and it goes on with the same loss curve.
    """
    run = patch_run_of(options)
    from sish_cluster.encoder.training.patch_run import patches_of, train_sslp
    from sish_cluster.encoder.training.sslp import SslpSettings
    from sish_cluster.encoder.training.views import ViewSettings

    settings = SslpSettings(
        views=ViewSettings(side_px=options["view_px"]), rng_seed=options["rng_seed"]
    )
    names = ("depth", "width", "passes", "batch", "learning_rate", "head", "reach", "clusters")
    settings = given(settings, options, *names)
    with TrainingBar("sslp", shown=SHOWN) as bar:
        found = trained(
            functools.partial(train_sslp, run, settings),
            options,
            batch=settings.batch,
            bar=bar,
            prepare=lambda: patches_of(
                run, lambda what, done, total: bar.say(f"{done}/{total} {what[:60]}")
            ),
        )
    printed_json(found)
