"""SSLP and RetCCL: a short training on atlas tiles, judged by neighbours among other tiles.

The judge is leave-group-out nearest-neighbour accuracy on the LC25000 tiles, by cosine of the backbone's
embedding: for each tile, is the nearest tile of another source of its class? The network never sees these
tiles in training, and the same network before its first step is judged the same way.
"""

import csv
import dataclasses
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from sish_cluster.encoder.networks.resnet import ResNet
from sish_cluster.encoder.training.loop import LoopSettings, train
from sish_cluster.encoder.training.places import PlaceSettings, cut_placed
from sish_cluster.encoder.training.retccl import RetCclSettings, RetCclTask
from sish_cluster.encoder.training.sslp import SslpSettings, SslpTask
from sish_cluster.encoder.training.views import ViewSettings, plain_views

ATLAS_STEP_PX = 256.5
"""Distance of neighbouring atlas tiles in the px of their names."""

BLOCK = 64
"""Tiles embedded at a time."""


@dataclasses.dataclass(frozen=True)
class Judge:
    """Tiles with labels and groups; a tile's neighbours are those of other groups."""

    pixels: np.ndarray
    labels: np.ndarray
    groups: np.ndarray

    def accuracy(self, network: ResNet, side_px: int) -> float:
        """Return the share of tiles whose nearest tile of another group has their label."""
        was_training = network.training
        network.eval()
        with torch.inference_mode():
            blocks = [
                network(
                    plain_views(torch.from_numpy(np.array(self.pixels[i : i + BLOCK])), side_px)
                )
                for i in range(0, len(self.labels), BLOCK)
            ]
        network.train(was_training)
        embeddings = functional.normalize(torch.cat(blocks), dim=1).numpy()
        similar = embeddings @ embeddings.T
        similar[self.groups[:, None] == self.groups[None]] = -np.inf
        return float((self.labels[similar.argmax(axis=1)] == self.labels).mean())


def judge_of(tiles: Path, folder: Path, side_px: int) -> Judge:
    """Return the LC25000 tiles as a judge; ``tiles`` holds ``labels.csv`` and ``lc25000/``."""
    with (tiles / "labels.csv").open(encoding="utf-8") as file:
        rows = {tiles / r["file"]: r for r in csv.DictReader(file) if r["set"] == "lc25000"}
    cut = cut_placed(
        folder / "lc25000", tiles=tiles / "lc25000", settings=PlaceSettings(side_px=side_px)
    )
    files = sorted(rows)
    if len(files) != len(cut):
        raise SystemExit(f"{tiles}: {len(files)} rows of lc25000, {len(cut)} tiles")
    pixels = np.array(cut.pixels)
    return Judge(
        pixels,
        np.array([rows[file]["label"] for file in files]),
        np.array([rows[file]["group"] for file in files]),
    )


def backbone_row(kind: str, flags, folder: Path) -> dict:
    """Return a row: accuracy of a short training's backbone, and of the same network untrained."""
    patches = cut_placed(
        folder / "atlas",
        tiles=flags.data / "tiles" / "atlas",
        settings=PlaceSettings(side_px=flags.patch_px, tile_step_px=ATLAS_STEP_PX),
    )
    judge = judge_of(flags.data / "tiles", folder, flags.patch_px)
    task, backbone, told = _task(kind, patches, flags)
    before = {side: judge.accuracy(backbone, side) for side in (flags.view_px, flags.patch_px)}
    print(f"{kind}: untrained {before}", flush=True)
    curve = []

    def evaluated(step):
        found = {side: judge.accuracy(backbone, side) for side in before}
        curve.append((step, found))
        print(f"{kind}: step {step} of {task.n_steps}: {found}", flush=True)
        return {f"accuracy_{side}_px": accuracy for side, accuracy in found.items()}

    settings = LoopSettings(
        folder / f"{kind}-{flags.seed}",
        task.n_steps,
        checkpoint_every=100,
        log_every=20,
        evaluate_every=flags.evaluate_every,
        rng_seed=flags.seed,
        identity=f"bench {kind} {told}",
        title=f"{kind}, atlas tiles",
    )
    log = train(task, task.batch_at, settings, evaluation=evaluated)
    after = {side: log.latest(f"accuracy_{side}_px") for side in before}
    return {
        "what": kind,
        "network": f"resnet{backbone.depth}, {flags.width} channels at first",
        "trained_on": f"{len(patches)} atlas tiles",
        "steps": task.n_steps,
        "batch": task.settings.batch,
        "view_px": flags.view_px,
        "judged_on": f"{len(judge.labels)} lc25000 tiles, leave-group-out",
        "untrained": {f"{side} px": round(v, 4) for side, v in before.items()},
        "trained": {f"{side} px": round(v, 4) for side, v in after.items()},
        "first_loss": log.curve()[0][1],
        "last_loss": log.curve()[-1][1],
        "training_s": round(log.latest("elapsed_s")),
        "settings": dataclasses.asdict(task.settings),
    }


def _views(flags):
    """Return views with colours changed ``--colour`` times as much as usual.

    Measured: with the usual colours a short training unlearns the stain, which a random network sees and
    which tells lung tissues apart, before it learns anything else.
    """
    usual = ViewSettings(side_px=flags.view_px)
    names = ("brightness", "contrast", "saturation", "hue", "greyed")
    changed = {name: getattr(usual, name) * flags.colour for name in names}
    return dataclasses.replace(usual, min_area=flags.min_area, **changed)


def _task(kind, patches, flags):
    views = _views(flags)
    passes = max(1, flags.steps // (len(patches) // flags.batch))
    same = {"batch": flags.batch, "passes": passes, "views": views, "rng_seed": flags.seed}
    same["width"] = flags.width
    cpu = torch.device("cpu")
    if kind == "sslp":
        settings = SslpSettings(**same)
        task = SslpTask(patches, settings, device=cpu)
        return task, task.network.backbone, settings
    # 18 layers and a queue shorter than the training set: 50 layers take four times as long, and
    # 65,536 keys would be every tile 47 times. A momentum of 0.999 follows over 1000 steps: as
    # many as a short run has.
    settings = RetCclSettings(
        **same,
        depth=18,
        queue=1024,
        clusters=24,
        learning_rate=flags.retccl_rate,
        momentum=flags.retccl_momentum,
    )
    task = RetCclTask(patches, settings, device=cpu)
    return task, task.query.backbone, settings
