"""K-means on the unit sphere: which embeddings point the same way.

RetCCL clusters each batch, SSLP its whole memory bank. Embeddings have length 1, so the nearest centre is
that of the largest dot product and a centre is the normalised sum of its members. Sums run over blocks of
rows, so a bank of a million rows takes the memory of one block.

Source
------
RetCCL, "Cluster-level discrimination"; SSLP, "Inter-image invariance".
"""

from __future__ import annotations

import dataclasses

import torch
from torch.nn import functional

from sish_cluster.core.errors import BadRequest

BLOCK_ROWS = 16_384
"""Rows compared with all centres at a time: 64 MiB for 1000 centres."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Clusters:
    """What k-means found.

    Parameters
    ----------
    labels
        int64 (n,): the nearest centre of each row.
    centres
        float32 (k, d), length 1.
    """

    labels: torch.Tensor
    centres: torch.Tensor


@torch.no_grad()
def clusters_of(
    embeddings: torch.Tensor, *, count: int, iterations: int, generator: torch.Generator
) -> Clusters:
    """Return the clusters of embeddings.

    Parameters
    ----------
    embeddings
        (n, d), length 1, n >= 1.
    count
        Clusters wanted; at most n are made.
    iterations
        Rounds of moving the centres, >= 1.
    generator
        Draws the rows that the centres start from.

    Notes
    -----
    A centre that loses all its rows stays where it was. Cost: ``n * count * d`` per iteration.
    """
    if len(embeddings) < 1 or count < 1 or iterations < 1:
        raise BadRequest(
            "k-means needs at least one row, one cluster and one iteration; got"
            f" {len(embeddings)}, {count} and {iterations}"
        )
    order = torch.randperm(len(embeddings), generator=generator, device=generator.device)
    centres = embeddings[order[:count].to(embeddings.device)].clone()
    for _ in range(iterations):
        centres = _moved(embeddings, nearest_of(embeddings, centres), centres)
    return Clusters(nearest_of(embeddings, centres), centres)


@torch.no_grad()
def nearest_of(embeddings: torch.Tensor, centres: torch.Tensor) -> torch.Tensor:
    """Return the number of the nearest centre (k, d) of each embedding (n, d), int64 (n,)."""
    if not len(embeddings):
        return torch.zeros(0, dtype=torch.int64, device=embeddings.device)
    blocks = [(block @ centres.t()).argmax(dim=1) for block in torch.split(embeddings, BLOCK_ROWS)]
    return torch.cat(blocks)


def _moved(embeddings: torch.Tensor, labels: torch.Tensor, centres: torch.Tensor) -> torch.Tensor:
    sums = torch.zeros_like(centres).index_add_(0, labels, embeddings)
    has_rows = torch.bincount(labels, minlength=len(centres)) > 0
    return torch.where(has_rows[:, None], functional.normalize(sums, dim=1), centres)
