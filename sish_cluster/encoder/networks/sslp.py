"""SSLP's network in training: a ResNet-18 and a head onto the unit sphere.

Source
------
SSLP, "Implementation details": 128 numbers per patch, from a linear layer (temperature 0.07) or from a
perceptron with one hidden layer (temperature 0.2).
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from sish_cluster.core.errors import BadRequest
from sish_cluster.encoder.networks.resnet import ResNet

TEMPERATURES = {"linear": 0.07, "mlp": 0.2}
"""Head -> temperature of its softmax (published)."""


class SpatialNetwork(nn.Module):
    """Backbone -> head -> length 1.

    Parameters
    ----------
    backbone
        What is kept after training.
    dimensions
        Length of an embedding (published: 128).
    head
        ``linear``, or ``mlp`` for one hidden layer of the backbone's width.
    """

    def __init__(self, backbone: ResNet, *, dimensions: int = 128, head: str = "linear") -> None:
        super().__init__()
        if head not in TEMPERATURES:
            raise BadRequest(f"a head is {' or '.join(TEMPERATURES)}; got {head!r}", field="head")
        self.backbone = backbone
        width = backbone.dimensions
        hidden = [] if head == "linear" else [nn.Linear(width, width), nn.ReLU()]
        self.head = nn.Sequential(*hidden, nn.Linear(width, dimensions))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return embeddings (n, dimensions) of images (n, 3, side, side), ImageNet-normalised."""
        return functional.normalize(self.head(self.backbone(x)), dim=1)
