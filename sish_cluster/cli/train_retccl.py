"""``sish train retccl``: an embedding by clustered contrast."""

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

SHOWN = ("loss", "contrast", "groups")
"""Values beside the bar."""


@click.command(
    "retccl",
    cls=ExampleCommand,
    examples=[
        "sish train retccl --slides slides/ --labels labels.csv --out runs/retccl",
        "sish train retccl --slides slides/ --out runs/retccl --workers 4 --gpus-per-worker 1",
        "sish train retccl --tiles tiles/ --out runs/trial --depth 18 --patch-px 128 --view-px 64"
        " --batch 64 --queue 1024 --clusters 24 --passes 20",
    ],
)
@patch_options
@click.option("--queue", type=click.IntRange(1), help="Keys remembered.  [default: 65536]")
@click.option("--clusters", type=click.IntRange(1), help="Clusters of a batch.  [default: 120]")
@click.option("--temperature", type=click.FloatRange(0, min_open=True), help="[default: 0.2]")
@run_options
def retccl(**options: Any) -> None:
    """Train RetCCL's encoder on slides, tiles, or both.

    Patches are cut once into OUT/patches. The run writes checkpoint.pt, log.jsonl and loss.png as it
    goes, and retccl.safetensors (the backbone, torchvision's names) and metrics.json at its end; repeat the
    command after an interruption, and it goes on with the same loss curve.
    """
    run = patch_run_of(options)
    from sish_cluster.encoder.training.patch_run import patches_of, train_retccl
    from sish_cluster.encoder.training.retccl import RetCclSettings
    from sish_cluster.encoder.training.views import ViewSettings

    settings = RetCclSettings(
        views=ViewSettings(side_px=options["view_px"]), rng_seed=options["rng_seed"]
    )
    names = (
        "depth",
        "width",
        "passes",
        "batch",
        "learning_rate",
        "queue",
        "clusters",
        "temperature",
    )
    settings = given(settings, options, *names)
    with TrainingBar("retccl", shown=SHOWN) as bar:
        found = trained(
            functools.partial(train_retccl, run, settings),
            options,
            batch=settings.batch,
            bar=bar,
            prepare=lambda: patches_of(
                run, lambda what, done, total: bar.say(f"{done}/{total} {what[:60]}")
            ),
        )
    printed_json(found)
