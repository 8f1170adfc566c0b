"""RetCCL's two losses, as functions of embeddings alone.

*Weighted InfoNCE*: an anchor should be near its own key and far from the keys of other patches; keys of
the anchor's own cluster probably show the same tissue and are pushed away less. *CLD* (cross-level
discrimination): an anchor of one view should be near the centre of its cluster in the other view.

Source
------
RetCCL, "Clustering-guided contrastive learning": ``L = 1/2 NCE(q1, k) + 1/2 NCE(q2, k) + lambda CLD``.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from sish_cluster.encoder.training.clustering import Clusters


def weighted_infonce(
    anchors: torch.Tensor,
    keys: torch.Tensor,
    negatives: torch.Tensor,
    weights: torch.Tensor,
    *,
    temperature: float,
) -> torch.Tensor:
    """Return ``-log(e^(a.k/T) / (e^(a.k/T) + sum_j w_j e^(a.n_j/T)))``, averaged over anchors.

    Parameters
    ----------
    anchors, keys
        (b, d), length 1: row i of both shows the same patch.
    negatives
        (n, d), length 1.
    weights
        (b, n), > 0: how much negative j counts for anchor i. All 1 is the plain InfoNCE.
    temperature
        T.
    """
    positive = (anchors * keys).sum(dim=1, keepdim=True) / temperature
    negative = anchors @ negatives.t() / temperature + weights.log()
    logits = torch.cat([positive, negative], dim=1)
    return -functional.log_softmax(logits, dim=1)[:, 0].mean()


def cluster_weights(
    anchor_labels: torch.Tensor, negative_labels: torch.Tensor, *, same_cluster_weight: float
) -> torch.Tensor:
    """Return the weights (b, n) of negatives: lowered where labels (b,) and (n,) are equal, else 1."""
    is_shared = anchor_labels[:, None] == negative_labels[None]
    return torch.where(is_shared, same_cluster_weight, 1.0)


def cross_level_loss(
    groups_a: torch.Tensor,
    groups_b: torch.Tensor,
    clusters: tuple[Clusters, Clusters],
    *,
    temperature: float,
) -> torch.Tensor:
    """Return CLD: each view's group embeddings against the other view's centres, both ways, halved.

    Parameters
    ----------
    groups_a, groups_b
        (b, d), length 1: row i of both shows the same patch.
    clusters
        Of ``groups_a`` and of ``groups_b``. The centres are constants: gradients reach the anchors only.
    temperature
        T of the softmax over centres.
    """
    of_a, of_b = clusters
    a_to_b = functional.cross_entropy(groups_a @ of_b.centres.t() / temperature, of_b.labels)
    b_to_a = functional.cross_entropy(groups_b @ of_a.centres.t() / temperature, of_a.labels)
    return (a_to_b + b_to_a) / 2
