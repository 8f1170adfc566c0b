"""The texture network: DenseNet-121 with torchvision's parameter names, without the classifier.

Each layer reads everything computed before it in its block and adds 32 channels; transitions halve
channels and size. An embedding is the average over the last grid of ``norm5``, *before* the ReLU that
torchvision's classifier applies: signs matter, because the texture code looks at rises and falls.

Source
------
Huang et al., "Densely connected convolutional networks"; SISH, Methods, "Texture features".
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn
from torch.nn import functional

GROWTH = 32
"""Channels each layer adds."""

LAYERS_OF_BLOCKS = (6, 12, 24, 16)
"""Layers in each of the four dense blocks: DenseNet-121."""

STEM_CHANNELS = 64
"""Channels of the first convolution."""

STEM_LAYERS = 4
"""Layers before the first block: convolution, norm, ReLU, pooling."""

BOTTLENECK = 4
"""Channels of a layer's 1x1 convolution, in multiples of the growth."""


class DenseLayer(nn.Module):
    """BN, ReLU, 1x1 convolution to 128 channels, BN, ReLU, 3x3 convolution to 32."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        width = BOTTLENECK * GROWTH
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, GROWTH, 3, padding=1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the 32 channels this layer adds to x (n, channels, h, w)."""
        hidden = self.conv1(functional.relu(self.norm1(x)))
        added: torch.Tensor = self.conv2(functional.relu(self.norm2(hidden)))
        return added


class DenseBlock(nn.ModuleDict):
    """Layers that each read all before them."""

    def __init__(self, channels: int, layers: int) -> None:
        super().__init__(
            OrderedDict(
                (f"denselayer{i + 1}", DenseLayer(channels + i * GROWTH)) for i in range(layers)
            )
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return x (n, channels, h, w) with 32 channels more per layer."""
        for layer in self.values():
            x = torch.cat([x, layer(x)], 1)
        return x


def _transition(channels: int) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            norm=nn.BatchNorm2d(channels),
            relu=nn.ReLU(),
            conv=nn.Conv2d(channels, channels // 2, 1, bias=False),
            pool=nn.AvgPool2d(2, stride=2),
        )
    )


class DenseNet121(nn.Module):
    """The backbone: images (n, 3, side, side), ImageNet-normalised, to embeddings (n, 1024)."""

    dimensions = 1024
    """Length of an embedding."""

    def __init__(self) -> None:
        super().__init__()
        modules: OrderedDict[str, nn.Module] = OrderedDict(
            conv0=nn.Conv2d(3, STEM_CHANNELS, 7, stride=2, padding=3, bias=False),
            norm0=nn.BatchNorm2d(STEM_CHANNELS),
            relu0=nn.ReLU(),
            pool0=nn.MaxPool2d(3, stride=2, padding=1),
        )
        channels = STEM_CHANNELS
        for block, layers in enumerate(LAYERS_OF_BLOCKS, start=1):
            modules[f"denseblock{block}"] = DenseBlock(channels, layers)
            channels += layers * GROWTH
            if block < len(LAYERS_OF_BLOCKS):
                modules[f"transition{block}"] = _transition(channels)
                channels //= 2
        modules["norm5"] = nn.BatchNorm2d(channels)
        self.features = nn.Sequential(modules)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the embeddings (n, 1024): the mean over the grid, no final ReLU."""
        return self.rest(self.stem(x))

    def stem(self, x: torch.Tensor) -> torch.Tensor:
        """Return the grid (n, 64, side / 4, side / 4) the dense blocks begin with."""
        for layer in list(self.features)[:STEM_LAYERS]:
            x = layer(x)
        return x

    def rest(self, grid: torch.Tensor) -> torch.Tensor:
        """Return the embeddings of what `stem` gives."""
        *layers, last = list(self.features)[STEM_LAYERS:]
        for layer in layers:
            grid = layer(grid)
        # Signs of small differences count: the last norm and the mean are float32 in every precision.
        return last(grid.float()).mean(dim=(2, 3))  # type: ignore[no-any-return]
