"""SSLP's three losses: a patch is like itself, like what lies beside it, and like its kind elsewhere.

All three have one form: of the weight that lies on positives and negatives together, the share on the
positives. They differ in who the positives are. A patch without positives of a kind contributes nothing
to that kind's loss.

Source
------
SSLP, "Spatially guided self-supervised learning", equations of the self, intra and inter terms, and
of the schedule w(t).
"""

from __future__ import annotations

import math

import torch

from sish_cluster.core.errors import BadRequest

RAMP_PASSES = 10
"""Passes over which the spatial terms grow to full weight (published)."""

RAMP_STEEPNESS = 5.0
"""Steepness of that growth (published)."""


def share_loss(
    positives: torch.Tensor, is_positive: torch.Tensor, negatives: torch.Tensor
) -> torch.Tensor:
    """Return ``-log(sum_P s / (sum_P s + sum_Neg s))``, summed over anchors, divided by all of them.

    Parameters
    ----------
    positives
        (b, p): q.m / T of each anchor with its possible positives.
    is_positive
        bool (b, p): which of them count. An anchor without any contributes 0.
    negatives
        (b, n): q.m / T with its negatives, n >= 1.

    Notes
    -----
    Computed from logarithms, so no ``exp`` overflows: s = exp(q.m / T) reaches e^14 at T = 0.07.
    """
    if not positives.shape[1]:
        return negatives.sum() * 0.0
    has_positives = is_positive.any(dim=1)
    # A placeholder keeps the gradient of anchors without positives finite; they are masked below.
    is_counted = is_positive | ~has_positives[:, None]
    on_positives = positives.masked_fill(~is_counted, -math.inf).logsumexp(dim=1)
    on_all = torch.logaddexp(on_positives, negatives.logsumexp(dim=1))
    return ((on_all - on_positives) * has_positives).sum() / len(positives)


def self_loss(own: torch.Tensor, negatives: torch.Tensor) -> torch.Tensor:
    """Return the self term of q.m_i / T (b,) and of the negatives' (b, n)."""
    own = own[:, None]
    return share_loss(own, torch.ones_like(own, dtype=torch.bool), negatives)


def spatial_weight(pass_number: float) -> float:
    """Return w(t) = exp(-5 (1 - min(t, 10) / 10)^2), the weight of the intra and inter terms.

    Parameters
    ----------
    pass_number
        t, >= 0: passes over the training set that are done.

    Examples
    --------
    >>> [round(spatial_weight(t), 4) for t in (0, 5, 10, 50)]
    [0.0067, 0.2865, 1.0, 1.0]
    """
    if pass_number < 0:
        raise BadRequest(f"passes are counted from 0; got {pass_number}", field="pass_number")
    left = 1.0 - min(pass_number, RAMP_PASSES) / RAMP_PASSES
    return math.exp(-RAMP_STEEPNESS * left**2)
