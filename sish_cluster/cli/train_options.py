"""Options that trainings on patches share."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from sish_cluster.cli.networks import FILE

if TYPE_CHECKING:
    from sish_cluster.encoder.training.patch_run import PatchRun

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

FOLDER = click.Path(path_type=Path, file_okay=False, exists=True)
"""A folder that is there."""


def run_options(command: Decorated) -> Decorated:
    """Add ``--out``, ``--seed``, ``--threads``, ``--device`` and ``--checkpoint-every``."""
    options = [
        click.option(
            "--out",
            required=True,
            type=click.Path(path_type=Path, file_okay=False),
            help="Run's folder; a run that is found there goes on.",
        ),
        click.option(
            "--seed", "rng_seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True
        ),
        click.option(
            "--checkpoint-every",
            type=click.IntRange(1),
            default=200,
            show_default=True,
            help="Steps between checkpoints.",
        ),
        click.option("--threads", type=click.IntRange(1), help="Threads of torch.  [default: all]"),
        click.option("--device", default="auto", show_default=True, help="cpu, cuda, or auto."),
    ]
    return _decorated(command, options)


def patch_options(command: Decorated) -> Decorated:
    """Add what is read, how patches are cut, and the optimiser's settings."""
    options = [
        click.option("--slides", type=FOLDER, help="Slides whose tissue is trained on."),
        click.option(
            "--tiles",
            type=FOLDER,
            help="Pictures to train on; labels.csv there or above it names slides and places.",
        ),
        click.option("--labels", type=FILE, help="Labels of the slides, for their mpp."),
        click.option(
            "--field-um",
            type=click.FloatRange(0, min_open=True),
            default=256.0,
            show_default=True,
            help="Side of a patch on a slide.",
        ),
        click.option(
            "--patch-px",
            type=click.IntRange(16),
            default=256,
            show_default=True,
            help="Stored side.",
        ),
        click.option(
            "--view-px", type=click.IntRange(16), default=224, show_default=True, help="Seen side."
        ),
        click.option(
            "--tile-step",
            type=click.FloatRange(0),
            default=0.0,
            help="Distance of neighbouring tiles in the px of their corners.  [default: a tile's width]",
        ),
        click.option("--depth", type=click.Choice(["18", "50"]), help="Layers of the ResNet."),
        click.option(
            "--width", type=click.IntRange(1), help="Its channels; fewer for trials.  [default: 64]"
        ),
        click.option("--passes", type=click.IntRange(1), help="Passes over the patches."),
        click.option("--batch", type=click.IntRange(2), help="Patches a step."),
        click.option("--learning-rate", type=click.FloatRange(0, min_open=True)),
    ]
    return _decorated(command, options)


def _decorated(command: Decorated, options: list[Callable[..., Any]]) -> Decorated:
    for option in reversed(options):
        command = option(command)
    return command


def patch_run_of(options: Mapping[str, Any]) -> PatchRun:
    """Return the run that a command's options describe, and set torch's threads."""
    if options["slides"] is None and options["tiles"] is None:
        raise click.UsageError("give --slides, --tiles, or both: there is nothing to train on")
    from sish_cluster.encoder.training.patch_run import PatchRun
    from sish_cluster.encoder.training.places import PlaceSettings

    set_threads(options)
    return PatchRun(
        options["out"],
        options["slides"],
        options["tiles"],
        options["labels"],
        PlaceSettings(
            side_px=options["patch_px"],
            field_um=options["field_um"],
            tile_step_px=options["tile_step"],
        ),
        device=options["device"],
        checkpoint_every=options["checkpoint_every"],
    )


def set_threads(options: Mapping[str, Any]) -> None:
    """Give torch as many threads as ``--threads`` says."""
    if options["threads"] is not None:
        from sish_cluster.encoder.training.threads import use_threads

        use_threads(options["threads"])


def given(settings: Any, options: Mapping[str, Any], *names: str) -> Any:
    """Return settings with the options that were given in the place of their defaults."""
    chosen = {name: options[name] for name in names if options[name] is not None}
    if "depth" in chosen:
        chosen["depth"] = int(chosen["depth"])
    return dataclasses.replace(settings, **chosen)
