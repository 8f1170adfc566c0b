"""Options that trainings on patches share."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from sish_cluster.cli.networks import FILE

if TYPE_CHECKING:
    from sish_cluster.cli.train import TrainingBar
    from sish_cluster.encoder.training.patch_run import PatchRun

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

FOLDER = click.Path(path_type=Path, file_okay=False, exists=True)
"""A folder that is there."""


def run_options(command: Decorated) -> Decorated:
    """Add ``--out``, ``--seed``, ``--threads``, ``--device``, ``--checkpoint-every`` and the workers."""
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
        click.option(
            "--threads",
            type=click.IntRange(1),
            help="Threads of torch, of each worker.  [default: all, shared evenly]",
        ),
        click.option("--device", default="auto", show_default=True, help="cpu, cuda, or auto."),
    ]
    return worker_options(_decorated(command, options))


def worker_options(command: Decorated) -> Decorated:
    """Add ``--workers``, ``--gpus-per-worker`` and ``--ray-address``."""
    options = [
        click.option(
            "--workers",
            type=click.IntRange(1),
            default=1,
            show_default=True,
            help="Processes that share every batch, under Ray Train; 1 trains here, without Ray.",
        ),
        click.option(
            "--gpus-per-worker",
            type=click.FloatRange(0),
            help="Below 1, workers share a GPU.  [default: 1 where there are GPUs]",
        ),
        click.option("--ray-address", help="A Ray cluster to train on.  [default: one of its own]"),
    ]
    return _decorated(command, options)


def trained(
    training: Callable[..., dict[str, object]],
    options: Mapping[str, Any],
    *,
    batch: int,
    bar: TrainingBar,
    prepare: Callable[[], object],
) -> dict[str, object]:
    """Run a training here or on ``--workers``, and return its metrics.

    Parameters
    ----------
    training
        Takes ``reporter`` and, of several workers, ``team``.
    options
        The command's.
    batch
        Examples a step, of all workers together.
    bar
        Shows the steps.
    prepare
        Does what is done once, before workers read it.
    """
    if options["workers"] == 1:
        for name in ("gpus_per_worker", "ray_address"):
            if options[name] is not None:
                raise click.UsageError(
                    f"--{name.replace('_', '-')} is about several workers: give --workers 2 or more"
                )
        prepare()
        return training(reporter=bar.report)
    from sish_cluster.encoder.training.distributed import WorkerSettings, ray_workers
    from sish_cluster.encoder.training.team import even_share

    even_share(batch, options["workers"])
    asked = WorkerSettings(
        options["workers"],
        gpus_per_worker=options["gpus_per_worker"],
        threads=options["threads"],
        device=options["device"],
        address=options["ray_address"],
    )
    bar.say("starting workers")
    with ray_workers(asked) as workers:
        prepare()
        return workers.run(training, options["out"], reporter=bar.report)


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
