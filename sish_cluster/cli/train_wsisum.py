"""``sish train wsisum``: a summary model for mosaics."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import click

from sish_cluster.cli.networks import FILE
from sish_cluster.cli.options import ExampleCommand
from sish_cluster.cli.output import printed_json
from sish_cluster.cli.train import TrainingBar
from sish_cluster.cli.train_options import (
    FOLDER,
    given,
    run_options,
    set_threads,
    trained,
)

SHOWN = ("loss", "masked", "slide")
"""Values beside the bar."""

SIZES = ("depth", "heads", "decoder_width", "decoder_depth", "decoder_heads")
"""Options that are sizes of the network."""


@click.command(
    "wsisum",
    cls=ExampleCommand,
    examples=[
        "sish train wsisum --features features/ --out runs/wsisum",
        "sish train wsisum --slides slides/ --labels labels.csv --out runs/wsisum",
        "sish train wsisum --features features/ --teacher model-a.h5 --teacher model-b.h5"
        " --out runs/wsisum",
        "sish summarise features/ --model runs/wsisum/wsisum.safetensors --out summaries/",
    ],
)
@click.option(
    "--features", type=FOLDER, help="Feature files: one h5 per slide with features and coords."
)
@click.option("--slides", type=FOLDER, help="Slides to embed instead, into OUT/features.")
@click.option("--labels", type=FILE, help="Labels of the slides, for their mpp.")
@click.option("--embedder", default="densenet121", show_default=True, help="Embeds the slides.")
@click.option("--weights", type=FILE, help="Of the embedder.  [default: those that ship with sish]")
@click.option(
    "--teacher",
    "teachers",
    multiple=True,
    type=FILE,
    help="h5 of slide vectors, one dataset per slide; repeatable.  [default: the mean embedding]",
)
@click.option("--passes", type=click.IntRange(1), help="Passes over the slides.  [default: 400]")
@click.option("--batch", type=click.IntRange(1), help="Slides a step.  [default: 32, or all]")
@click.option("--patches", type=click.IntRange(2), help="Patches of a slide.  [default: 500]")
@click.option("--mask-ratio", type=click.FloatRange(0, 1), help="[default: 0.875]")
@click.option(
    "--learning-rate",
    type=click.FloatRange(0, min_open=True),
    help="At 256 slides.  [default: 1.5e-4]",
)
@click.option("--depth", "--layers", "depth", type=click.IntRange(1), help="[default: 12]")
@click.option("--heads", type=click.IntRange(1), help="[default: width / 64]")
@click.option("--decoder-width", type=click.IntRange(2), help="[default: 384]")
@click.option("--decoder-depth", type=click.IntRange(1), help="[default: 4]")
@click.option("--decoder-heads", type=click.IntRange(1), help="[default: 6]")
@run_options
def wsisum(*, features: Path | None, teachers: tuple[Path, ...], **options: Any) -> None:
    """Train the network that summaries are chosen with, on feature files or on slides.

    The run writes checkpoint.pt, log.jsonl and loss.png as it goes, and wsisum.safetensors and
    metrics.json at its end; repeat the command after an interruption, and it goes on with the same loss curve.
    """
    if (features is None) == (options["slides"] is None):
        raise click.UsageError("give --features or --slides: there is one source to train on")
    from sish_cluster.encoder.networks.wsisum import shape_for
    from sish_cluster.encoder.summary_files import feature_files
    from sish_cluster.encoder.training.wsisum import WsisumSettings
    from sish_cluster.encoder.training.wsisum_run import WsisumRun, train_wsisum, width_of

    set_threads(options)
    features = features or _embedded(options)
    sizes = {name: options[name] for name in SIZES if options[name] is not None}
    batch = options.pop("batch") or _batch_of(
        min(WsisumSettings().batch, len(feature_files(features))), options["workers"]
    )
    settings = WsisumSettings(
        shape=shape_for(width_of(features), **sizes), batch=batch, rng_seed=options["rng_seed"]
    )
    settings = given(settings, options, "passes", "patches", "mask_ratio", "learning_rate")
    run = WsisumRun(
        options["out"],
        features,
        teachers,
        device=options["device"],
        checkpoint_every=options["checkpoint_every"],
    )
    with TrainingBar("wsisum", shown=SHOWN) as bar:
        found = trained(
            functools.partial(train_wsisum, run, settings),
            options,
            batch=batch,
            bar=bar,
            prepare=lambda: None,
        )
    printed_json(found)


def _batch_of(most: int, workers: int) -> int:
    """Return the largest batch of at most ``most`` slides that the workers share evenly."""
    return max(workers, most - most % workers)


def _embedded(options: dict[str, Any]) -> Path:
    """Return the folder of the slides' features, embedding those that are not there yet."""
    from sish_cluster.encoder.embedders import NetworkEmbedder
    from sish_cluster.encoder.training.slide_features import features_of_slides

    embedder = NetworkEmbedder(options["embedder"], options["weights"], device=options["device"])
    folder: Path = options["out"] / "features"
    with TrainingBar("features") as bar:
        features_of_slides(
            options["slides"],
            folder,
            embedder,
            labels=options["labels"],
            progress=lambda what, done, total: bar.say(f"{done}/{total} {what[:60]}"),
        )
    return folder
