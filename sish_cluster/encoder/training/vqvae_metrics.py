"""How good a key network is: what it keeps of a picture, and how its keys spread.

A reconstruction says whether codewords mean anything; perplexity says how many of them work; the spread
of keys says whether an index built on them can tell patches apart. A key is dominated by the sum of
ranks, so its correlation with brightness is reported too, and how many of a crop's nearest neighbours by
texture code lie near it in the order of keys.

Source
------
Ours.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt
import torch

from sish_cluster.core.code import Codes, distances_between
from sish_cluster.core.key import COARSE_UNIT, CODEBOOK_SIZE, Keys, keys_of
from sish_cluster.encoder.networks.inputs import SYMMETRIC
from sish_cluster.encoder.networks.vqvae import VqVae
from sish_cluster.encoder.training.crops import Crops
from sish_cluster.encoder.training.vqvae import FINE_BELOW, halved
from sish_cluster.encoder.training.vqvae_codebook import perplexity_of

PEAK = 2.0
"""Range of a value in [-1, 1], the peak of PSNR."""

MOST_KEYS = 1024
"""Crops whose keys are looked at: enough for the spread and their neighbours, a minute on one core."""

NEAREST, COVERAGE = 10, 0.1
"""Neighbours a crop has, and the share of the other groups' crops that a search looks at for them."""


def reconstruction_metrics(
    network: VqVae, crops: Crops, rows: npt.ArrayLike, *, mpp: float = 1.0
) -> dict[str, float]:
    """Return PSNR and codebook use on crops the network was not trained on.

    Parameters
    ----------
    network
        Any mode; used in inference mode and put back.
    crops
        Stored squares.
    rows
        Those looked at; at least one.
    mpp
        The network's um per px.

    Returns
    -------
    dict
        ``held_out_psnr_db``, of the mean squared error over all pixels, and ``held_out_perplexity``
        of 128 codewords.
    """
    squared, n_crops = 0.0, 0
    counts = torch.zeros(CODEBOOK_SIZE)
    with _inferring(network):
        for picture in _pictures(crops, rows, mpp=mpp):
            x = SYMMETRIC.tensor_of(picture, _device_of(network))
            codewords = network.latents_of(x)
            squared += float((network.decoded(codewords) - x).square().mean())
            counts += torch.bincount(codewords.flatten().cpu(), minlength=CODEBOOK_SIZE)
            n_crops += 1
    return {
        "held_out_psnr_db": 10 * math.log10(PEAK**2 * n_crops / max(squared, 1e-12)),
        "held_out_perplexity": float(perplexity_of(counts / counts.sum())),
    }


def keys_of_crops(
    network: VqVae,
    ranks: npt.NDArray[np.int64],
    crops: Crops,
    rows: npt.ArrayLike,
    *,
    mpp: float = 1.0,
) -> Keys:
    """Return the keys (n,) of crops by their codewords' ranks (128,).

    Each crop fills a patch by reflection, which keeps its scale and its mixture of codewords.
    """
    latents = []
    with _inferring(network):
        for picture in _pictures(crops, rows, mpp=mpp):
            patch = filled(picture, network.size.side_px)
            latent = network.latents_of(SYMMETRIC.tensor_of(patch, _device_of(network)))
            latents.append(latent[0].cpu().numpy())
    return keys_of(ranks[np.stack(latents)])


def key_metrics(keys: Keys, crops: Crops, rows: npt.ArrayLike) -> dict[str, float]:
    """Return how the keys (n,) of some crops, the n ``rows``, spread.

    Returns
    -------
    dict
        ``keys_looked_at``; ``distinct_keys``; ``distinct_coarse``, different values of s3, and their
        ``coarse_entropy_bits``; ``coarse_spread``, standard deviation of s3; and
        ``key_brightness_correlation``, Pearson's, of key and mean pixel value.
    """
    brightness = np.array([crops.pixels[row].mean() for row in np.asarray(rows)])
    coarse = keys // COARSE_UNIT
    return {"keys_looked_at": float(len(keys)), **_spread(keys, coarse, brightness)}


def neighbour_recall(
    keys: Keys, codes: Codes, groups: npt.NDArray[np.str_], asking: npt.ArrayLike
) -> float:
    """Return the share of crops' nearest neighbours that lie near them in the order of keys.

    Parameters
    ----------
    keys, codes, groups
        Of n crops.
    asking
        Rows of the crops that ask, each for its 10 nearest by texture code among the crops of other
        groups; it looks at the tenth of these whose keys are nearest, half below and half above.

    Returns
    -------
    float
        0.1 for keys that mean nothing; 0 where nobody asks.
    """
    shares = []
    for row in np.asarray(asking, dtype=np.int64):
        others = np.flatnonzero(groups != groups[row])
        if not len(others):
            continue
        distances = distances_between(codes[row], codes[others])
        wanted = others[np.argsort(distances, kind="stable")[:NEAREST]]
        order = others[np.argsort(keys[others], kind="stable")]
        place = int(np.searchsorted(keys[order], keys[row]))
        half = max(1, round(COVERAGE * len(others) / 2))
        shares.append(np.isin(wanted, order[max(0, place - half) : place + half]).mean())
    return float(np.mean(shares)) if shares else 0.0


def _spread(
    keys: npt.NDArray[np.uint64],
    coarse: npt.NDArray[np.uint64],
    brightness: npt.NDArray[np.float64],
) -> dict[str, float]:
    _, counts = np.unique(coarse, return_counts=True)
    shares = counts / counts.sum()
    both_vary = keys.std() > 0 and brightness.std() > 0
    correlation = np.corrcoef(keys.astype(np.float64), brightness)[0, 1] if both_vary else 0.0
    return {
        "distinct_keys": float(len(np.unique(keys))),
        "distinct_coarse": float(len(counts)),
        "coarse_entropy_bits": float(-(shares * np.log2(shares)).sum()),
        "coarse_spread": float(coarse.astype(np.float64).std()),
        "key_brightness_correlation": float(correlation),
    }


def filled(picture: npt.NDArray[np.uint8], side_px: int) -> npt.NDArray[np.uint8]:
    """Return a patch (side_px, side_px, 3) of a smaller picture, continued by reflection."""
    missing = [(0, side_px - length) for length in picture.shape[:2]]
    return np.pad(picture, [*missing, (0, 0)], mode="symmetric")


def _pictures(crops: Crops, rows: npt.ArrayLike, *, mpp: float) -> Iterable[npt.NDArray[np.uint8]]:
    """Yield crops at about ``mpp`` um per px."""
    for row in np.asarray(rows, dtype=np.int64):
        pixels = crops.pixels[row]
        yield halved(pixels) if crops.mpps[row] < FINE_BELOW * mpp else np.asarray(pixels)


def _device_of(network: VqVae) -> torch.device:
    return network.codebook.embedding.weight.device


@contextlib.contextmanager
def _inferring(network: VqVae) -> Iterator[None]:
    """Hold a network in inference mode, without gradients."""
    was_training = network.training
    network.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        network.train(was_training)
