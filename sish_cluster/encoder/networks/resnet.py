"""ResNet-18 and ResNet-50 with torchvision's parameter names, without the classifier.

Each block adds what its convolutions found to what it was given; four stages halve the grid and double
the channels. An embedding is the mean over the last grid, after the last ReLU, so no number of it is
negative. A bottleneck halves the grid in its 3x3 convolution (the "v1.5" that torchvision and RetCCL use),
not in its first 1x1. RetCCL's encoder is the 50 layers deep one, SSLP's the 18.

Source
------
He et al., "Deep residual learning for image recognition"; RetCCL and SSLP, "Implementation details".
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from sish_cluster.core.errors import BadRequest

STEM_CHANNELS = 64
"""Channels of the first convolution and of the first stage."""

EXPANSION = 4
"""Channels a bottleneck gives out, in multiples of those inside."""

BLOCKS_OF_STAGES = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3)}
"""Depth -> blocks in each of the four stages."""


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut: the block of ResNet-18."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _shortcut(channels, width, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the grid (n, width, h / stride, w / stride) of x (n, channels, h, w)."""
        hidden = functional.relu(self.bn1(self.conv1(x)))
        kept = x if self.downsample is None else self.downsample(x)
        return functional.relu(self.bn2(self.conv2(hidden)) + kept)


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions beside a shortcut: the block of ResNet-50."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, width * EXPANSION, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(width * EXPANSION)
        self.downsample = _shortcut(channels, width * EXPANSION, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the grid (n, 4 width, h / stride, w / stride) of x (n, channels, h, w)."""
        hidden = functional.relu(self.bn1(self.conv1(x)))
        hidden = functional.relu(self.bn2(self.conv2(hidden)))
        kept = x if self.downsample is None else self.downsample(x)
        return functional.relu(self.bn3(self.conv3(hidden)) + kept)


def _shortcut(channels: int, out_channels: int, stride: int) -> nn.Sequential | None:
    """Return the 1x1 convolution of a shortcut, or None where the input fits as it is."""
    if stride == 1 and channels == out_channels:
        return None
    return nn.Sequential(
        nn.Conv2d(channels, out_channels, 1, stride=stride, bias=False),
        nn.BatchNorm2d(out_channels),
    )


class ResNet(nn.Module):
    """The backbone: images (n, 3, side, side), ImageNet-normalised, to embeddings >= 0.

    Parameters
    ----------
    depth
        18 (embeddings of 512) or 50 (2048).
    width
        Channels of the first stage; every published network has 64, fewer are for trials and give shorter
        embeddings.

    Raises
    ------
    BadRequest
        If it is another.

    Attributes
    ----------
    dimensions
        Length of an embedding.
    """

    def __init__(self, depth: int = 50, *, width: int = STEM_CHANNELS) -> None:
        super().__init__()
        if depth not in BLOCKS_OF_STAGES:
            raise BadRequest(f"a ResNet here is 18 or 50 layers deep; got {depth}", field="depth")
        self.depth = depth
        self.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        widths = [width << stage for stage in range(4)]
        expansion = EXPANSION if depth == 50 else 1
        inputs = [width, *(inner * expansion for inner in widths)]
        stages = [
            _stage(depth, inputs[i], widths[i], BLOCKS_OF_STAGES[depth][i], 1 if i == 0 else 2)
            for i in range(4)
        ]
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.dimensions = inputs[-1]
        self.apply(_initialise)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the embeddings (n, dimensions) of x (n, 3, side, side): the mean over the grid."""
        return self.rest(self.stem(x))

    def stem(self, x: torch.Tensor) -> torch.Tensor:
        """Return the grid (n, width, side / 4, side / 4) the first stage begins with."""
        grid = functional.relu(self.bn1(self.conv1(x)))
        return functional.max_pool2d(grid, 3, stride=2, padding=1)

    def rest(self, grid: torch.Tensor) -> torch.Tensor:
        """Return the embeddings of what `stem` gives."""
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            grid = stage(grid)
        return grid.float().mean(dim=(2, 3))


def _stage(depth: int, channels: int, width: int, blocks: int, stride: int) -> nn.Sequential:
    block = Bottleneck if depth == 50 else BasicBlock
    out_channels = width * (EXPANSION if depth == 50 else 1)
    first = block(channels, width, stride)
    return nn.Sequential(first, *(block(out_channels, width, 1) for _ in range(blocks - 1)))


def _initialise(module: nn.Module) -> None:
    """Draw convolutions as He et al. do (fan out); batch normalisation starts at 1 and 0 already."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
