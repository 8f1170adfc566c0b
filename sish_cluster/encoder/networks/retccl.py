"""RetCCL's network in training: a ResNet, a hidden layer, and two heads on the unit sphere.

The instance head tells patches apart, the group head tells clusters apart. Only the backbone is kept
afterwards: its 2048 numbers per patch are what RetCCL searches with.

Source
------
RetCCL, "Clustering-guided contrastive learning".
"""

from __future__ import annotations

import dataclasses

import torch
from torch import nn
from torch.nn import functional

from sish_cluster.encoder.networks.resnet import ResNet


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class TwoHeads:
    """A batch's embeddings, (n, d) each, length 1.

    Parameters
    ----------
    instances
        Of the instance head.
    groups
        Of the group head.
    """

    instances: torch.Tensor
    groups: torch.Tensor


class ContrastiveNetwork(nn.Module):
    """Backbone -> linear and ReLU -> two L2-normalised linear heads.

    Parameters
    ----------
    backbone
        Whose ``dimensions`` numbers are kept after training.
    dimensions
        Length of either head's embedding (published: 128).
    """

    def __init__(self, backbone: ResNet, *, dimensions: int = 128) -> None:
        super().__init__()
        self.backbone = backbone
        self.fc = nn.Linear(backbone.dimensions, backbone.dimensions)
        self.instance = nn.Linear(backbone.dimensions, dimensions)
        self.group = nn.Linear(backbone.dimensions, dimensions)

    def forward(self, x: torch.Tensor) -> TwoHeads:
        """Return both embeddings of images (n, 3, side, side), ImageNet-normalised."""
        hidden = functional.relu(self.fc(self.backbone(x)))
        return TwoHeads(
            functional.normalize(self.instance(hidden), dim=1),
            functional.normalize(self.group(hidden), dim=1),
        )
