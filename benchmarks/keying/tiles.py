"""Labelled tiles with their texture codes, and their keys by several networks, kept between runs."""

import csv
import dataclasses
import sys
from pathlib import Path

import cv2
import numpy as np
import torch

from sish_cluster.core.code import codes_of
from sish_cluster.core.key import keys_of
from sish_cluster.core.slide import digest_of
from sish_cluster.encoder.embedders import NetworkEmbedder
from sish_cluster.encoder.keying import KeyNetwork
from sish_cluster.encoder.networks.codeword_order import ranks_of
from sish_cluster.encoder.networks.inputs import SYMMETRIC, repeatable
from sish_cluster.encoder.networks.seeding import seeded
from sish_cluster.encoder.networks.vqvae import COMPACT, VqVae
from sish_cluster.encoder.training.vqvae_metrics import filled

TILE_MPP, KEY_MPP = 0.5, 1.0
"""Micrometres per px of the tiles, and of what the compact key network is trained on."""


@dataclasses.dataclass(frozen=True)
class Tiles:
    """Tiles in the table's order.

    Parameters
    ----------
    files
        n paths.
    sets, labels, groups
        n names each.
    """

    files: tuple[Path, ...]
    sets: np.ndarray
    labels: np.ndarray
    groups: np.ndarray

    def __len__(self) -> int:
        return len(self.files)


def read_tiles(folder, *, every=1):
    """Return the tiles of ``labels.csv`` (columns file, set, label, group), each ``every``-th."""
    with (folder / "labels.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))[::every]
    columns = [np.array([row[name] for row in rows]) for name in ("set", "label", "group")]
    return Tiles(tuple(folder / row["file"] for row in rows), *columns)


def codes_by_texture(tiles, cache, *, fit="resize"):
    """Return the 1024-bit codes (n, 128) of the default texture network.

    Parameters
    ----------
    fit
        ``resize``: the tile enlarged to a patch, as the product encodes tile folders; ``own``: the tile
        at its own size.
    """

    def made():
        embedder = NetworkEmbedder("densenet121", None, device="cpu")
        shown = (p if fit == "own" else fitted(p, fit) for p in pictures(tiles))
        return [codes_of(embedder.embeddings_of(picture[None]))[0] for picture in shown]

    return _kept(cache, tiles, "codes" if fit == "own" else f"codes-{fit}", made)


def keys_by(name, tiles, cache, *, fit, weights):
    """Return the keys (n,) of tiles by ``random``, ``seeded`` or ``trained``.

    Parameters
    ----------
    fit
        ``resize``: the tile enlarged to the network's side, as the product encodes tile folders;
        ``reflect``: the tile at the network's own scale, continued by reflection.
    weights
        File of the trained network; None for the one that ships.
    """

    def made():
        key_of = _keying(name, weights)
        return [key_of(fitted(picture, fit)) for picture in pictures(tiles)]

    suffix = digest_of(weights.read_bytes())[:12] if name == "trained" and weights else ""
    return _kept(cache, tiles, f"{name}-{fit}-{suffix}", made)


def _keying(name, weights):
    """Return what turns a patch (512, 512, 3) into a key."""
    if name == "trained":
        keying = KeyNetwork(COMPACT.name, weights, device="cpu")
        return lambda patch: keying.keys_of(patch[None])[0]
    network, ranks = seeded(COMPACT) if name == "seeded" else _initial()
    network = network.to(memory_format=torch.channels_last)

    def key_of(patch):
        with repeatable():
            latent = network.latents_of(SYMMETRIC.tensor_of(patch, torch.device("cpu")))
        return keys_of(ranks[latent.numpy()])[0]

    return key_of


def _initial():
    """Return the network that training began with, and its codeword ranks."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = VqVae(COMPACT).eval().requires_grad_(False)
    return network, ranks_of(network)


def fitted(picture, fit):
    """Return a tile as a patch of the compact network, (512, 512, 3)."""
    side = COMPACT.side_px
    if fit == "resize":
        return cv2.resize(picture, (side, side), interpolation=cv2.INTER_CUBIC)
    own = round(picture.shape[0] * TILE_MPP / KEY_MPP)
    patch = cv2.resize(picture, (own, own), interpolation=cv2.INTER_AREA)
    while patch.shape[0] < side:
        patch = filled(patch, min(side, 2 * patch.shape[0]))
    return patch


def pictures(tiles):
    """Yield the tiles (side, side, 3), RGB."""
    for number, path in enumerate(tiles.files):
        if number % 200 == 0:
            print(f"... tile {number} of {len(tiles)}", file=sys.stderr, flush=True)
        picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
        yield np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB))


def _kept(cache, tiles, name, made):
    """Return an array from the cache folder, or make and keep it."""
    if cache is None:
        return np.stack(made())
    cache.mkdir(parents=True, exist_ok=True)
    which = digest_of("\n".join(map(str, tiles.files)).encode())[:12]
    path = cache / f"{name}-{which}.npy"
    if not path.exists():
        np.save(path, np.stack(made()))
    return np.load(path, allow_pickle=False)
