"""EfficientNet-Lite0: sixteen inverted bottlenecks that a CPU runs several times faster than DenseNet-121.

A block widens the channels, filters each on its own (depthwise), and narrows them again; where nothing
changes size the input is added. "Lite" means ReLU6 everywhere and no squeeze-and-excitation. Edges are
padded as TensorFlow does ("same": the odd pixel goes right and below), because the weights were
trained there. Parameter names are those of the published torch conversion.

Source
------
Tan and Le, "EfficientNet"; the Lite0 variant of TensorFlow's TPU models.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
"""Blocks, kernel, stride of the first block, widening, channels given out: one row a stage."""

STEM_CHANNELS = 32
"""Channels of the first convolution."""

HEAD_CHANNELS = 1280
"""Channels of the last convolution: numbers of an embedding."""

EPSILON = 1e-3
"""Added to variances by batch normalisation, as the weights were trained."""


class SameConv(nn.Conv2d):
    """A convolution whose output has ceil(size / stride) pixels a side, padded as TensorFlow pads."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the convolution of x (n, c, h, w)."""
        pads = []
        for axis in (1, 0):  # functional.pad takes the last axis first.
            size, stride, kernel = x.shape[2 + axis], self.stride[axis], self.kernel_size[axis]
            missing = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            pads += [missing // 2, missing - missing // 2]
        return super().forward(functional.pad(x, pads))


def _conv(channels: int, out_channels: int, kernel: int, stride: int = 1) -> SameConv:
    return SameConv(channels, out_channels, kernel, stride=stride, bias=False)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=EPSILON)


class InvertedBottleneck(nn.Module):
    """Widen, filter each channel, narrow; the input is added where sizes allow."""

    def __init__(
        self, channels: int, out_channels: int, *, kernel: int, stride: int, widening: int
    ) -> None:
        super().__init__()
        width = channels * widening
        self._expand_conv = _conv(channels, width, 1) if widening > 1 else None
        self._bn0 = _norm(width) if widening > 1 else None
        self._depthwise_conv = SameConv(
            width, width, kernel, stride=stride, groups=width, bias=False
        )
        self._bn1 = _norm(width)
        self._project_conv = _conv(width, out_channels, 1)
        self._bn2 = _norm(out_channels)
        self._adds = stride == 1 and channels == out_channels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the grid (n, out_channels, h / stride, w / stride) of x (n, channels, h, w)."""
        hidden = x
        if self._expand_conv is not None and self._bn0 is not None:
            hidden = functional.relu6(self._bn0(self._expand_conv(x)))
        hidden = functional.relu6(self._bn1(self._depthwise_conv(hidden)))
        found: torch.Tensor = self._bn2(self._project_conv(hidden))
        return found + x if self._adds else found


class EfficientNetLite0(nn.Module):
    """The backbone: images (n, 3, side, side), scaled by `inputs.LITE`, to embeddings (n, 1280)."""

    dimensions = HEAD_CHANNELS
    """Length of an embedding."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = _conv(3, STEM_CHANNELS, 3, 2)
        self._bn0 = _norm(STEM_CHANNELS)
        blocks = []
        channels = STEM_CHANNELS
        for count, kernel, stride, widening, out_channels in STAGES:
            for number in range(count):
                blocks.append(
                    InvertedBottleneck(
                        channels,
                        out_channels,
                        kernel=kernel,
                        stride=1 if number else stride,
                        widening=widening,
                    )
                )
                channels = out_channels
        self._blocks = nn.ModuleList(blocks)
        self._conv_head = _conv(channels, HEAD_CHANNELS, 1)
        self._bn1 = _norm(HEAD_CHANNELS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the embeddings (n, 1280): the mean over the last grid, after the last ReLU6."""
        return self.rest(self.stem(x))

    def stem(self, x: torch.Tensor) -> torch.Tensor:
        """Return the grid (n, 32, side / 2, side / 2) the blocks begin with."""
        return functional.relu6(self._bn0(self._conv_stem(x)))

    def rest(self, grid: torch.Tensor) -> torch.Tensor:
        """Return the embeddings of what `stem` gives."""
        for block in self._blocks:
            grid = block(grid)
        grid = functional.relu6(self._bn1(self._conv_head(grid)))
        return grid.float().mean(dim=(2, 3))
