"""Codebook arithmetic of the key network's training: where it begins, and how much of it is used.

Source
------
Lloyd's k-means; perplexity as in van den Oord et al., "Neural discrete representation learning".
"""

from __future__ import annotations

import torch

from sish_cluster.core.key import CODEBOOK_SIZE

LLOYD_STEPS = 20
"""Rounds of k-means: the codebook only begins there, and moves on with the training."""


def centres_of(places: torch.Tensor, *, n_centres: int = CODEBOOK_SIZE) -> torch.Tensor:
    """Return k-means centres (n_centres, channels) of vectors (n, channels), begun at drawn vectors.

    Draws from torch's generator. Sums are matrix products, so that they repeat to the bit; a centre
    nobody is nearest to stays where it is.
    """
    rows = torch.randint(len(places), (n_centres,)).to(places.device)
    centres = places[rows].clone()
    for _ in range(LLOYD_STEPS):
        nearest = torch.cdist(places, centres).argmin(1)
        members = torch.nn.functional.one_hot(nearest, n_centres).to(places.dtype)
        counts = members.sum(0)
        means = (members.t() @ places) / counts.clamp(min=1.0)[:, None]
        centres = torch.where(counts[:, None] > 0, means, centres)
    return centres


def perplexity_of(shares: torch.Tensor) -> torch.Tensor:
    """Return exp(entropy) of shares that sum to 1: how many codewords are in even use.

    Examples
    --------
    >>> round(float(perplexity_of(torch.full((128,), 1 / 128))), 3)
    128.0
    >>> float(perplexity_of(torch.tensor([1.0, 0.0])))
    1.0
    """
    entropy: torch.Tensor = torch.special.entr(shares).sum()
    return entropy.exp()
