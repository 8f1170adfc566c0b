"""The judge of a network that was trained without labels: neighbours among tiles of other sources.

For each LC25000 tile, is the nearest tile of another source of its class, by cosine of the backbone's
embedding? No network here sees these tiles in training. They are cut into two halves by a hash of their
source: settings are chosen on the *tuning* half alone, the *untouched* half gives the figures. A half is
judged within itself: neighbours come from the same half.
"""

import copy
import csv
import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from sish_cluster.encoder.networks.resnet import ResNet
from sish_cluster.encoder.training.places import PlacedPatches, PlaceSettings, cut_placed
from sish_cluster.encoder.training.views import plain_views

HALVES = ("tuning", "untouched")
"""By the lowest bit of the first byte of a source's SHA-256: 0 and 1."""

BLOCK = 64
"""Tiles embedded at a time."""

RESAMPLES = 10_000
"""Draws of a bootstrap."""


def half_of(group: str) -> str:
    """Return the half that a source belongs to."""
    return HALVES[hashlib.sha256(group.encode()).digest()[0] & 1]


@dataclasses.dataclass(frozen=True)
class Judge:
    """Tiles with labels and groups; a tile's neighbours are those of other groups."""

    pixels: np.ndarray
    labels: np.ndarray
    groups: np.ndarray

    def hits(self, network: ResNet, side_px: int) -> np.ndarray:
        """Return whether the nearest tile of another group has each tile's label, bool (n,)."""
        embeddings = functional.normalize(_embedded(network, self.pixels, side_px), dim=1).numpy()
        similar = embeddings @ embeddings.T
        similar[self.groups[:, None] == self.groups[None]] = -np.inf
        return self.labels[similar.argmax(axis=1)] == self.labels

    def half(self, name: str) -> "Judge":
        """Return the judge of one half alone."""
        rows = np.array([half_of(group) == name for group in self.groups])
        return Judge(self.pixels[rows], self.labels[rows], self.groups[rows])


def judge_of(tiles: Path, folder: Path, side_px: int) -> Judge:
    """Return all LC25000 tiles as a judge; ``tiles`` holds ``labels.csv`` and ``lc25000/``."""
    with (tiles / "labels.csv").open(encoding="utf-8") as file:
        rows = {tiles / r["file"]: r for r in csv.DictReader(file) if r["set"] == "lc25000"}
    cut = cut_placed(
        folder / "lc25000", tiles=tiles / "lc25000", settings=PlaceSettings(side_px=side_px)
    )
    files = sorted(rows)
    if len(files) != len(cut):
        raise SystemExit(f"{tiles}: {len(files)} rows of lc25000, {len(cut)} tiles")
    return Judge(
        np.array(cut.pixels),
        np.array([rows[file]["label"] for file in files]),
        np.array([rows[file]["group"] for file in files]),
    )


def with_statistics_of(network: ResNet, patches: PlacedPatches, side_px: int) -> ResNet:
    """Return a copy whose batch normalisation has the mean statistics of patches, weights untouched.

    What an untrained network gains by merely having looked at the training set: a fairer peer of a
    trained one than statistics of 0 and 1.
    """
    found = copy.deepcopy(network).train()
    for module in found.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None
    order = np.random.Generator(np.random.Philox(0)).permutation(len(patches))
    with torch.no_grad():
        for rows in np.array_split(order, max(1, len(order) // BLOCK)):
            found(plain_views(torch.from_numpy(np.array(patches.pixels[np.sort(rows)])), side_px))
    return found


def interval(
    gains: np.ndarray, groups: np.ndarray, *, digits: int = 4, rng_seed: int = 0
) -> list[float]:
    """Return the 95 % bootstrap interval of the mean of paired gains (seeds, n) over groups (n,).

    Groups are drawn with repetition, and their gains of all seeds with them; what is paired stays paired.
    """
    _, numbers = np.unique(groups, return_inverse=True)
    sums = np.bincount(numbers, weights=gains.mean(axis=0))
    sizes = np.bincount(numbers)
    rng = np.random.Generator(np.random.Philox(rng_seed))
    drawn = rng.integers(len(sums), size=(RESAMPLES, len(sums)))
    means = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    return [round(float(value), digits) for value in np.percentile(means, [2.5, 97.5])]


def _embedded(network: ResNet, pixels: np.ndarray, side_px: int) -> torch.Tensor:
    was_training = network.training
    network.eval()
    with torch.inference_mode():
        blocks = [
            network(plain_views(torch.from_numpy(np.array(pixels[i : i + BLOCK])), side_px))
            for i in range(0, len(pixels), BLOCK)
        ]
    network.train(was_training)
    return torch.cat(blocks)
