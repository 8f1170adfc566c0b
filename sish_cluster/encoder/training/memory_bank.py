"""One remembered embedding per patch of the training set: what SSLP compares with.

A patch's row is half its past and half its newest embedding, back on the unit sphere. Three runs of
k-means over the whole bank, refitted at each pass, tell which patches of different slides belong
together; two patches count as alike only where all three agree.

Source
------
SSLP, "Memory bank" and "Inter-image invariance".
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from sish_cluster.encoder.training.clustering import clusters_of

KMEANS_ITERATIONS = 10
"""Rounds of each k-means run: assignments hardly move after these (ours; not published)."""


class MemoryBank(nn.Module):
    """An embedding and ``runs`` cluster numbers for each of N patches; buffers saved with the network.

    Parameters
    ----------
    count
        Patches, N.
    dimensions
        Length of an embedding.
    runs
        K-means runs.
    rng_seed
        Draws the unit vectors that it starts with.
    """

    embeddings: torch.Tensor
    labels: torch.Tensor

    def __init__(self, count: int, dimensions: int, *, runs: int, rng_seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(rng_seed)
        drawn = functional.normalize(torch.randn(count, dimensions, generator=generator), dim=1)
        self.register_buffer("embeddings", drawn)
        self.register_buffer("labels", torch.zeros(runs, count, dtype=torch.int64))

    def __len__(self) -> int:
        return len(self.embeddings)

    @torch.no_grad()
    def remember(self, rows: torch.Tensor, embeddings: torch.Tensor, *, keep: float) -> None:
        """Move rows (b,) towards new embeddings (b, d): ``m <- norm(keep m + (1 - keep) f)``."""
        mixed = keep * self.embeddings[rows] + (1.0 - keep) * embeddings.detach()
        self.embeddings[rows] = functional.normalize(mixed, dim=1)

    def refit(self, *, count: int, generator: torch.Generator) -> None:
        """Cluster the bank anew, once per run, into at most ``count`` clusters."""
        for run in range(len(self.labels)):
            found = clusters_of(
                self.embeddings, count=count, iterations=KMEANS_ITERATIONS, generator=generator
            )
            self.labels[run] = found.labels

    def agree(self, rows: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
        """Return whether rows (b,) and others (b, k) share the cluster in every run, bool (b, k)."""
        return (self.labels[:, rows][:, :, None] == self.labels[:, others]).all(dim=0)
