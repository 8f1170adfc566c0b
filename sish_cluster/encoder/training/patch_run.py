"""``sish train retccl`` and ``sish train sslp`` without the terminal: patches, training, weights.

A run is a folder. Repeating it with the same options goes on where it stopped; when it is done, the
folder holds the backbone under torchvision's names (``retccl.safetensors`` or ``sslp.safetensors``) and
``metrics.json`` beside the patches, the checkpoint, the log and the plot.

Source
------
RetCCL and SSLP, "Implementation details".
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file

from sish_cluster.core.slide import canonical_bytes, digest_of
from sish_cluster.encoder.checkpoint import read_weights
from sish_cluster.encoder.networks.inputs import device_of
from sish_cluster.encoder.networks.resnet import ResNet
from sish_cluster.encoder.training.loop import LoopSettings, Reporter, train
from sish_cluster.encoder.training.loop_log import CLOCK
from sish_cluster.encoder.training.places import (
    PlacedPatches,
    PlaceSettings,
    Progress,
    cut_placed,
)
from sish_cluster.encoder.training.retccl import RetCclSettings, RetCclTask
from sish_cluster.encoder.training.sslp import SslpSettings, SslpTask
from sish_cluster.encoder.training.team import ALONE, Team

METRICS_FILE = "metrics.json"
"""What a finished run says of itself."""


@dataclasses.dataclass(frozen=True, slots=True)
class PatchRun:
    """One training on patches: what is read, and where it is kept."""

    out_dir: Path
    """Folder of the run."""
    slides: Path | None = None
    """Folder of slides, or None."""
    tiles: Path | None = None
    """Folder of tiles, or None."""
    labels: Path | None = None
    """Labels table of the slides, for their mpp."""
    places: PlaceSettings = dataclasses.field(default_factory=PlaceSettings)
    """Which patches are cut."""
    device: str = "auto"
    """``cpu``, ``cuda``, or ``auto``."""
    checkpoint_every: int = 200
    """Steps between checkpoints."""
    log_every: int = 20
    """Steps a row of the log is the mean of."""


def train_retccl(
    run: PatchRun,
    settings: RetCclSettings,
    *,
    team: Team = ALONE,
    reporter: Reporter | None = None,
    cutting_progress: Progress | None = None,
) -> dict[str, object]:
    """Train RetCCL's encoder, write its backbone and metrics, and return the metrics.

    Of several workers, which are a ``team``, each calls this; the first writes.

    Raises
    ------
    BadRequest
        If there are fewer patches than a batch takes.
    CheckpointMismatch
        If the folder holds another training.
    """
    patches = patches_of(run, cutting_progress)
    task = RetCclTask(patches, settings, device=device_of(run.device), team=team)
    loop = _loop(run, patches, "retccl", task.n_steps, settings)
    log = train(task, task.batch_at, loop, team=team, reporter=reporter)
    metrics: dict[str, object] = {
        "n_patches": len(patches),
        "workers": team.size,
        **log.rows[-1],
    }
    if team.rank:
        return metrics
    return _written(run, "retccl", task.query.backbone, settings, metrics)


def train_sslp(
    run: PatchRun,
    settings: SslpSettings,
    *,
    team: Team = ALONE,
    reporter: Reporter | None = None,
    cutting_progress: Progress | None = None,
) -> dict[str, object]:
    """Train SSLP's encoder, write its backbone and metrics, and return the metrics.

    Of several workers, which are a ``team``, each calls this; the first writes.

    Raises
    ------
    BadRequest
        If there are fewer patches than a batch takes.
    CheckpointMismatch
        If the folder holds another training.
    """
    patches = patches_of(run, cutting_progress)
    task = SslpTask(patches, settings, device=device_of(run.device), team=team)
    loop = _loop(run, patches, "sslp", task.n_steps, settings)
    log = train(task, task.batch_at, loop, team=team, reporter=reporter)
    metrics: dict[str, object] = {
        "n_patches": len(patches),
        "workers": team.size,
        "share_with_neighbours": round(task.share_with_neighbours, 4),
        **log.rows[-1],
    }
    if team.rank:
        return metrics
    return _written(run, "sslp", task.network.backbone, settings, metrics)


def patches_of(run: PatchRun, progress: Progress | None = None) -> PlacedPatches:
    """Return the patches of a run, cutting them unless that is done."""
    return cut_placed(
        run.out_dir / "patches",
        slides=run.slides,
        tiles=run.tiles,
        labels=run.labels,
        settings=run.places,
        progress=progress,
    )


def _loop(
    run: PatchRun,
    patches: PlacedPatches,
    name: str,
    n_steps: int,
    settings: RetCclSettings | SslpSettings,
) -> LoopSettings:
    what = {"settings": dataclasses.asdict(settings), "patches": patches.identity}
    return LoopSettings(
        run.out_dir,
        n_steps,
        checkpoint_every=run.checkpoint_every,
        log_every=run.log_every,
        rng_seed=settings.rng_seed,
        device=str(device_of(run.device)),
        identity=f"{name} {digest_of(canonical_bytes(what))}",
        title=f"{name}, {len(patches):,} patches",
    )


def _written(
    run: PatchRun,
    name: str,
    backbone: ResNet,
    settings: RetCclSettings | SslpSettings,
    found: Mapping[str, object],
) -> dict[str, object]:
    path = run.out_dir / f"{name}.safetensors"
    write_backbone(path, backbone, name=name)
    weights = read_weights(path)
    metrics: dict[str, object] = {
        "network": f"resnet{backbone.depth}",
        "weights": path.name,
        "digest": weights.digest,
        **{name: value for name, value in found.items() if name != CLOCK},
        "training_s": round(float(str(found.get(CLOCK, 0.0)))),
        "settings": dataclasses.asdict(settings),
    }
    (run.out_dir / METRICS_FILE).write_text(json.dumps(metrics, indent=1) + "\n", "utf-8")
    return metrics


def write_backbone(path: Path, backbone: ResNet, *, name: str) -> None:
    """Write a ResNet under torchvision's names, without a classifier; ``name`` stands in the header."""
    state = {
        k: torch.clone(v.detach().cpu()).contiguous() for k, v in backbone.state_dict().items()
    }
    # One entry only: safetensors writes several in an order of chance, and the digest with them.
    save_file(state, path, metadata={"network": f"resnet{backbone.depth} {name}"})
