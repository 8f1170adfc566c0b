"""A VQ-VAE nobody has trained: the same on every machine, and with keys that differ.

With torch's usual initialisation every codeword lies near the origin and real tissue falls on three
of them, so all keys are alike. Here the convolutions are drawn by a seeded generator (uniform, so
that the numbers are exact everywhere), and the codewords are latents of drawn images: smooth stain
in H&E colours, nuclei and bare glass. The codewords depend on floating-point sums, which differ in
their last bits between processors; they are therefore kept in a small file, and a test compares it
with a fresh calculation. ``python -m sish_cluster.encoder.networks.seeding`` writes it again.

Source
------
He et al., "Delving deep into rectifiers" (the bound); the rest is ours.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from sish_cluster.core.key import CODEBOOK_SIZE
from sish_cluster.encoder.networks.codeword_order import ranks_of
from sish_cluster.encoder.networks.inputs import repeatable
from sish_cluster.encoder.networks.vqvae import SIZES, VqVae, VqVaeSize

SEED = 20_220_917
"""Seed of the initialisation; another seed is another network and another fingerprint."""

CODEBOOKS = Path(__file__).parents[1] / "weights" / "seeded-codebooks.safetensors"
"""Codewords and ranks of the seeded networks, by size."""

N_DRAWN = 24
"""Drawn images the codewords are sampled from: several of each kind of tissue."""

DISTINCT_DECIMALS = 2
"""Latents that agree to this many decimals count as one; they are of the order of 1."""

HAEMATOXYLIN = (0.65, 0.70, 0.29)
"""Optical density of haematoxylin in red, green and blue (unit vector)."""

EOSIN = (0.07, 0.99, 0.11)
"""Optical density of eosin in red, green and blue (unit vector)."""


def seeded(size: VqVaeSize, *, rng_seed: int = SEED) -> tuple[VqVae, npt.NDArray[np.int64]]:
    """Return the untrained network of a size, in inference mode, and its codeword ranks (128,).

    With the default seed the codewords and ranks come from `CODEBOOKS`; with another they are
    calculated, which takes some seconds for ``large``.
    """
    network = drawn_network(size, rng_seed=rng_seed)
    if rng_seed == SEED:
        stored = load_file(CODEBOOKS)
        words, ranks = stored[f"{size.name}.codewords"], stored[f"{size.name}.ranks"]
        network.codebook.embedding.weight.data.copy_(words)
        return network, ranks.numpy().astype(np.int64)
    network.codebook.embedding.weight.data.copy_(sampled_codewords(network, rng_seed=rng_seed))
    return network, ranks_of(network)


def drawn_network(size: VqVaeSize, *, rng_seed: int) -> VqVae:
    """Return a network whose convolutions are drawn by ``rng_seed`` alone, biases 0."""
    generator = torch.Generator().manual_seed(rng_seed)
    with torch.random.fork_rng(devices=[]):
        network = VqVae(size).eval().requires_grad_(False)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            fan_in = module.in_channels * module.kernel_size[0] * module.kernel_size[1]
            bound = (6.0 / fan_in) ** 0.5
            module.weight.data.uniform_(-bound, bound, generator=generator)
            assert module.bias is not None
            module.bias.data.zero_()
    return network


def sampled_codewords(network: VqVae, *, rng_seed: int) -> torch.Tensor:
    """Return 128 different latent vectors (128, channels) of drawn images, in a drawn order."""
    rng = np.random.Generator(np.random.Philox(rng_seed))
    latents = []
    with repeatable():
        for _ in range(N_DRAWN):
            image = torch.from_numpy(drawn_image(network.size.side_px, rng))[None]
            places = network.encoder(image * 2.0 - 1.0)[0].flatten(1).t()
            latents.append(places[rng.integers(0, len(places), CODEBOOK_SIZE)])
    pool = torch.cat(latents)
    # Glass gives the same latent everywhere: one codeword of each value is enough.
    _, first = np.unique(pool.numpy().round(DISTINCT_DECIMALS), axis=0, return_index=True)
    chosen = rng.permutation(np.sort(first))[:CODEBOOK_SIZE]
    return pool[torch.from_numpy(chosen)].clone()


def drawn_image(side_px: int, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Return a drawn piece of stained tissue, (3, side_px, side_px) in [0, 1]."""
    tissue = _smooth(side_px, 4, rng) > rng.uniform(-0.2, 0.6)
    stroma = rng.uniform(0.1, 0.9) * (0.6 + 0.8 * _smooth(side_px, 32, rng))
    nuclei = _smooth(side_px, 64, rng) > rng.uniform(0.55, 0.85)
    haematoxylin = 0.15 + nuclei * rng.uniform(0.3, 1.2)
    grain = 0.05 * _smooth(side_px, side_px // 2, rng)
    density = np.multiply.outer(HAEMATOXYLIN, haematoxylin) + np.multiply.outer(EOSIN, stroma)
    image = np.where(tissue, np.exp(-np.maximum(density + grain, 0.0)), 0.95)
    return np.asarray(np.clip(image, 0.0, 1.0), dtype=np.float32)


def _smooth(side_px: int, cells: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Return smooth noise in [0, 1], (side_px, side_px), with ``cells`` bumps a side."""
    grid = torch.from_numpy(rng.random((1, 1, cells, cells)))
    field = nn.functional.interpolate(grid, size=(side_px, side_px), mode="bilinear")
    return np.asarray(field[0, 0].numpy())


def _write_codebooks() -> None:
    tensors: dict[str, torch.Tensor] = {}
    for size in SIZES.values():
        network = drawn_network(size, rng_seed=SEED)
        words = sampled_codewords(network, rng_seed=SEED)
        network.codebook.embedding.weight.data.copy_(words)
        tensors[f"{size.name}.codewords"] = words
        tensors[f"{size.name}.ranks"] = torch.from_numpy(ranks_of(network))
    save_file(tensors, CODEBOOKS)


if __name__ == "__main__":
    _write_codebooks()
