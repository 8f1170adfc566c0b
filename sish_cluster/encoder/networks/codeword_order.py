"""The semantic order of codewords: like ones get ranks close together.

Keys add up ranks, so two patches are near each other on the key axis only if codewords that mean
similar things have similar ranks. How the published order was made was never told. Ours: the place of
a codeword along the first principal component of the codebook, dark to bright, brightness being that
of the codeword decoded on its own. A network trained along a similarity line has another one: its
codewords are ranked by their first channel, which the training gave that meaning, and the ranks are
stored with its weights.

Source
------
Ours; the published order is loaded from ``codebook_semantic.pt`` where there is one.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from sish_cluster.core.errors import BadWeights
from sish_cluster.core.key import CODEBOOK_SIZE
from sish_cluster.encoder.networks.inputs import repeatable
from sish_cluster.encoder.networks.vqvae import VqVae

DECODED_SIDE = 4
"""Grid places a side that a lone codeword is decoded on: more than the decoder's reach needs."""


def ranks_of(network: VqVae) -> npt.NDArray[np.int64]:
    """Return the rank of each codeword, int64 (128,): a permutation of 0..127.

    Parameters
    ----------
    network
        A VQ-VAE with its decoder. Computed in float64, so that the order does not depend on the
        machine; equal projections keep the order of the codewords.
    """
    words = network.codebook.embedding.weight.detach().double().numpy()
    centred = words - words.mean(axis=0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    projection = centred @ axes[0]
    if np.dot(projection, _brightness(network)) < 0:
        projection = -projection
    ranks = np.empty(CODEBOOK_SIZE, dtype=np.int64)
    ranks[np.argsort(projection, kind="stable")] = np.arange(CODEBOOK_SIZE)
    return ranks


def line_ranks(words: torch.Tensor) -> npt.NDArray[np.int64]:
    """Return the rank of each codeword (128, channels) by its first channel, int64 (128,)."""
    first = words.detach()[:, 0].double().cpu().numpy()
    ranks = np.empty(CODEBOOK_SIZE, dtype=np.int64)
    ranks[np.argsort(first, kind="stable")] = np.arange(CODEBOOK_SIZE)
    return ranks


def _brightness(network: VqVae) -> npt.NDArray[np.float64]:
    """Return the mean decoded brightness of each codeword less their average, (128,)."""
    ids = torch.arange(CODEBOOK_SIZE)
    grids = ids[:, None, None].expand(-1, DECODED_SIDE, DECODED_SIDE)
    with repeatable():
        decoded = torch.stack([network.decoded(grid[None])[0].mean() for grid in grids])
    brightness = decoded.double().numpy()
    return np.asarray(brightness - brightness.mean())


def checked_ranks(ranks: npt.NDArray[np.generic], *, source: str) -> npt.NDArray[np.int64]:
    """Return ranks as int64 (128,), or raise `BadWeights` unless they are a permutation of 0..127."""
    array = np.asarray(ranks)
    if array.shape != (CODEBOOK_SIZE,) or not np.array_equal(
        np.sort(array), np.arange(CODEBOOK_SIZE)
    ):
        raise BadWeights(
            f"{source}: a codeword order gives each of {CODEBOOK_SIZE} codewords one rank of"
            f" 0..{CODEBOOK_SIZE - 1}; found shape {array.shape}, {len(np.unique(array))} different"
            " ranks. Use the codebook_semantic.pt that belongs to the checkpoint"
        )
    return array.astype(np.int64)
