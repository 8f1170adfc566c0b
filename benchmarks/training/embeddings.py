"""SSLP and RetCCL: short trainings on atlas tiles, each beside its own network before the first step.

A row is one method on one half of the judge's tiles, over several seeds. A seed decides the initial
network and everything its training draws. The gain is paired: the same tiles, the same initial
network, before and after.
"""

import dataclasses
import hashlib
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from benchmarks.training.judging import Judge, interval, judge_of, with_statistics_of
from benchmarks.training.kept import Kept
from sish_cluster.encoder.networks.resnet import ResNet
from sish_cluster.encoder.training.loop import LoopSettings, train
from sish_cluster.encoder.training.places import PlacedPatches, PlaceSettings, cut_placed
from sish_cluster.encoder.training.retccl import RetCclSettings, RetCclTask
from sish_cluster.encoder.training.sslp import SslpSettings, SslpTask
from sish_cluster.encoder.training.views import ViewSettings

ATLAS_STEP_PX = 256.5
"""Distance of neighbouring atlas tiles in the px of their names."""

PATCH_PX = 128
"""Side at which tiles are kept: 1 um per px, as RetCCL reads slides."""

COLOURS = ("brightness", "contrast", "saturation", "hue", "greyed")
"""What of a view ``colour`` scales."""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """The free settings of a short training."""

    steps: int = 500
    """Optimiser steps, rounded to whole passes."""
    batch: int = 64
    """Patches a step."""
    width: int = 16
    """Channels of the ResNet-18's first stage: a quarter of the published ones, for a CPU."""
    view_px: int = 64
    """Side of a view."""
    colour: float = 0.25
    """Change of colours in views, times the usual."""
    min_area: float = 0.4
    """Least share of a crop."""
    blurred: float = 0.5
    """Share of blurred views."""
    more: dict = dataclasses.field(default_factory=dict)
    """Settings of the method itself."""

    def with_(self, changes: dict) -> "Recipe":
        """Return it with settings changed, the recipe's own or the method's, by name."""
        own = {field.name for field in dataclasses.fields(self)} - {"more"}
        mine = {name: value for name, value in changes.items() if name in own}
        others = {name: value for name, value in changes.items() if name not in own}
        return dataclasses.replace(self, **mine, more={**self.more, **others})


CHOSEN = {
    # Four times as many steps of a quarter of the patches: at 483 steps the embeddings are still
    # where hard negatives throw them together at first, and the backbone is below its untrained self.
    # The self term ends near chance either way: of 1,398 tiles of seven cases the most similar 5 %
    # are as like a view as its own memory is.
    "sslp": Recipe(steps=2000, batch=16),
    # 18 layers and a queue shorter than the training set: 50 layers take four times as long, and
    # 65,536 keys would be every tile 47 times. A momentum of 0.999 follows over 1000 steps: more
    # than a short run has.
    "retccl": Recipe(
        more={
            "depth": 18,
            "queue": 1024,
            "clusters": 24,
            "learning_rate": 0.12,
            "momentum": 0.99,
        }
    ),
}
"""What the table's rows are trained with, chosen on the tuning half."""

JUDGED_PX = (64, 96, 128)
"""Sides at which tiles are judged; the first is the views' own."""

BEST_PX = {"untrained": 128, "sslp": 128, "retccl": 64}
"""The side at which each did best on the tuning half: the hardest comparison is at these."""


def backbone_row(kind: str, flags, folder: Path) -> dict:
    """Return a row: accuracy of short trainings' backbones, and of the same networks untrained."""
    patches = cut_placed(
        folder / "atlas",
        tiles=flags.data / "tiles" / "atlas",
        settings=PlaceSettings(side_px=PATCH_PX, tile_step_px=ATLAS_STEP_PX),
    )
    judge = judge_of(flags.data / "tiles", folder, PATCH_PX).half(flags.half)
    recipe = CHOSEN[kind].with_(flags.set)
    runs = [_run(kind, patches, judge, recipe.with_({"rng_seed": s}), folder) for s in flags.seeds]
    return {
        "what": kind,
        "half": flags.half,
        "tiles": len(judge.labels),
        "seeds": list(flags.seeds),
        "network": f"resnet18, {recipe.width} channels at first",
        "trained_on": f"{len(patches)} atlas tiles",
        "steps": runs[0]["steps"],
        "accuracy": {
            f"{BEST_PX[kind]} px, untrained at {BEST_PX['untrained']} px": _compared(
                runs, judge, BEST_PX[kind], BEST_PX["untrained"]
            ),
            **{f"{side} px": _compared(runs, judge, side, side) for side in JUDGED_PX},
        },
        "losses": [run["losses"] for run in runs],
        "training_s": [run["training_s"] for run in runs],
        "recipe": asdict(recipe),
        "settings": runs[0]["settings"],
    }


def _compared(runs: list[dict], judge: Judge, side: int, untrained_side: int) -> dict:
    """Return means, each seed, and gains over both untrained peers with their intervals."""
    sides = {
        "untrained": untrained_side,
        "untrained_with_statistics": untrained_side,
        "trained": side,
    }
    hits = {
        name: np.array([run["hits"][f"{name} {px}"] for run in runs], float)
        for name, px in sides.items()
    }
    found = {
        name: {"mean": round(float(h.mean()), 4), "seeds": h.mean(axis=1).round(4).tolist()}
        for name, h in hits.items()
    }
    for peer in ("untrained", "untrained_with_statistics"):
        gains = hits["trained"] - hits[peer]
        found[f"gain_over_{peer}"] = {
            "mean": round(float(gains.mean()), 4),
            "interval_95": interval(gains, judge.groups),
        }
    return found


def _run(kind: str, patches: PlacedPatches, judge: Judge, recipe: Recipe, folder: Path) -> dict:
    """Train one seed and return the hits before and after, or return what is kept of that."""
    told = json.dumps(asdict(recipe), sort_keys=True)
    out = folder / f"{kind}-{hashlib.sha256(told.encode()).hexdigest()[:12]}"
    kept = Kept(out / "judged.json", f"{told} {patches.identity}")
    sources = hashlib.sha256(" ".join(judge.groups).encode()).hexdigest()
    run = kept.value(f"tiles of {sources}", lambda: _judged(kind, patches, judge, recipe, out))
    shares = {name: round(float(np.mean(hits)), 4) for name, hits in run["hits"].items()}
    print(f"{kind}, seed {recipe.more['rng_seed']}: {shares}", flush=True)
    return run


def _judged(kind: str, patches: PlacedPatches, judge: Judge, recipe: Recipe, out: Path) -> dict:
    """Return hits (0 or 1 per tile) by "peer side", and what the training was."""
    task, backbone = _task(kind, patches, recipe)
    found = {f"untrained {side}": judge.hits(backbone, side) for side in JUDGED_PX}
    for side in JUDGED_PX:
        looked = with_statistics_of(backbone, patches, side)
        found[f"untrained_with_statistics {side}"] = judge.hits(looked, side)
    settings = LoopSettings(
        out,
        task.n_steps,
        checkpoint_every=100,
        rng_seed=recipe.more["rng_seed"],
        identity=f"bench {kind} {json.dumps(asdict(recipe), sort_keys=True)}",
        title=f"{kind}, atlas tiles",
    )
    log = train(task, task.batch_at, settings)
    found |= {f"trained {side}": judge.hits(backbone, side) for side in JUDGED_PX}
    return {
        "hits": {name: hits.astype(int).tolist() for name, hits in found.items()},
        "steps": task.n_steps,
        "losses": [round(log.curve()[0][1], 4), round(log.curve()[-1][1], 4)],
        "training_s": round(log.latest("elapsed_s")),
        "settings": asdict(task.settings),
    }


def _views(recipe: Recipe) -> ViewSettings:
    """Return views with colours changed ``colour`` times as much as usual.

    Measured: with the usual colours a short training unlearns the stain, which a random network sees and
    which tells lung tissues apart, before it learns anything else.
    """
    usual = ViewSettings(side_px=recipe.view_px, min_area=recipe.min_area, blurred=recipe.blurred)
    changed = {name: getattr(usual, name) * recipe.colour for name in COLOURS}
    return dataclasses.replace(usual, **changed)


def _task(
    kind: str, patches: PlacedPatches, recipe: Recipe
) -> tuple[SslpTask | RetCclTask, ResNet]:
    passes = max(1, recipe.steps // (len(patches) // recipe.batch))
    same = {"batch": recipe.batch, "passes": passes, "views": _views(recipe)}
    same |= {"width": recipe.width, **recipe.more}
    cpu = torch.device("cpu")
    if kind == "sslp":
        task = SslpTask(patches, SslpSettings(**same), device=cpu)
        return task, task.network.backbone
    task = RetCclTask(patches, RetCclSettings(**same), device=cpu)
    return task, task.query.backbone
