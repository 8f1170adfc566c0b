"""WSISum's loss: give back the patches that were masked, and the vector of the slide.

Source
------
WSISum, "Masked reconstruction" and "Knowledge distillation".
"""

from __future__ import annotations

import torch
from torch.nn import functional

from sish_cluster.encoder.networks.wsisum import Decoded


def drawn_visible(
    slides: int, patches: int, visible: int, generator: torch.Generator
) -> torch.Tensor:
    """Return which patches stay visible, int64 (slides, visible), distinct, ascending in each row."""
    order = torch.rand(slides, patches, generator=generator).argsort(dim=1)
    return order[:, :visible].sort(dim=1).values


def masked_loss(
    decoded: torch.Tensor, patches: torch.Tensor, visible: torch.Tensor
) -> torch.Tensor:
    """Return the mean squared error over the numbers of masked patches; 0 where none is masked.

    Parameters
    ----------
    decoded, patches
        (n, p, d): given back, and true.
    visible
        int64 (n, v): patches that were seen and do not count.
    """
    is_masked = torch.ones(patches.shape[:2], device=patches.device).scatter_(1, visible, 0.0)
    errors = ((decoded - patches) ** 2).mean(dim=2)
    return (errors * is_masked).sum() / is_masked.sum().clamp(min=1.0)


def summary_losses(
    decoded: Decoded, patches: torch.Tensor, visible: torch.Tensor, teachers: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Return MSE(masked) + MSE(decoded cls, teacher) as ``loss``, and its parts.

    Parameters
    ----------
    decoded
        Of the visible patches.
    patches, visible
        (n, p, d) and int64 (n, v).
    teachers
        (n, d): the slides' vectors.
    """
    masked = masked_loss(decoded.patches, patches, visible)
    slide = functional.mse_loss(decoded.slides, teachers)
    return {"loss": masked + slide, "masked": masked, "slide": slide}
