"""Views of a patch: the same tissue cropped, turned, coloured and blurred differently.

Contrastive training learns what views of one patch share, so what a view changes is what the network
is told to ignore: place, direction, stain, focus. Everything is drawn from one generator and computed with
torch alone, for a whole batch at once.

Source
------
He et al., "Momentum contrast" v2 (crop, colour, grey, blur); RetCCL, "Implementation details". Deviation: turns by
90 degrees, because tissue has no up.
"""

from __future__ import annotations

import dataclasses
import math

import torch
from torch.nn import functional

from sish_cluster.core.errors import BadRequest
from sish_cluster.encoder.networks.inputs import IMAGENET

GREY = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in a grey value (ITU-R BT.601)."""

BLUR_REACH = 3.0
"""Reach of the blur's kernel, in multiples of the largest sigma drawn."""


@dataclasses.dataclass(frozen=True, slots=True)
class ViewSettings:
    """How far views may differ."""

    side_px: int = 224
    """Side of a view, px."""
    min_area: float = 0.2
    """Smallest share of the patch's area that a crop covers (MoCo v2)."""
    max_aspect: float = 4 / 3
    """Largest ratio of a crop's sides."""
    brightness: float = 0.4
    """Factor drawn from 1 +- this (MoCo v2); contrast and saturation likewise."""
    contrast: float = 0.4
    """See ``brightness``."""
    saturation: float = 0.4
    """See ``brightness``."""
    hue: float = 0.1
    """Turn of the colours, drawn from +- this share of the circle (MoCo v2)."""
    jittered: float = 0.8
    """Share of views whose colours change (MoCo v2)."""
    greyed: float = 0.2
    """Share of views without colour (MoCo v2)."""
    blurred: float = 0.5
    """Share of views that are blurred (MoCo v2)."""
    max_sigma: float = 2.0
    """Largest sigma of the blur, for views of 224 px; smaller views are blurred in proportion."""

    def __post_init__(self) -> None:
        if self.side_px < 8 or not 0 < self.min_area <= 1 or self.max_aspect < 1:
            raise BadRequest(
                "views need side_px >= 8, 0 < min_area <= 1 and max_aspect >= 1; got"
                f" {self.side_px}, {self.min_area} and {self.max_aspect}"
            )


def views_of(
    patches: torch.Tensor,
    settings: ViewSettings,
    generator: torch.Generator,
    *,
    among: tuple[int, int] | None = None,
) -> torch.Tensor:
    """Return one random view of each patch.

    Parameters
    ----------
    patches
        uint8 (n, side, side, 3), RGB, on any device.
    settings
        How far views may differ.
    generator
        On the CPU; draws everything, so equal states give equal views.
    among
        (first, n_all): the patches are those from ``first`` on of a batch of ``n_all``, and get the views
        they get in it; None for a batch of their own.

    Returns
    -------
    float32 (n, 3, side_px, side_px), ImageNet-normalised, on the patches' device.
    """
    views = patches.permute(0, 3, 1, 2).float() / 255.0
    first, total = among or (0, len(patches))
    draw = _Draw(total, slice(first, first + len(patches)), patches.device, generator)
    views = _cropped(views, settings, draw)
    jittered = _coloured(views, settings, draw)
    views = torch.where(draw.chosen(settings.jittered), jittered, views)
    views = torch.where(draw.chosen(settings.greyed), grey_of(views), views)
    views = torch.where(draw.chosen(settings.blurred), _blurred(views, settings, draw), views)
    return normalised(views)


def plain_views(patches: torch.Tensor, side_px: int) -> torch.Tensor:
    """Return patches uint8 (n, side, side, 3) as they are, float32 (n, 3, side_px, side_px)."""
    views = patches.permute(0, 3, 1, 2).float() / 255.0
    if views.shape[-1] != side_px:
        views = functional.interpolate(views, size=side_px, mode="area")
    return normalised(views)


def normalised(views: torch.Tensor) -> torch.Tensor:
    """Return images (n, 3, h, w) in [0, 1] with ImageNet's means and deviations."""
    mean = views.new_tensor(IMAGENET.mean).view(1, 3, 1, 1)
    deviation = views.new_tensor(IMAGENET.deviation).view(1, 3, 1, 1)
    return (views - mean) / deviation


def grey_of(views: torch.Tensor) -> torch.Tensor:
    """Return images (n, 3, h, w) with one value in all three channels."""
    weights = views.new_tensor(GREY).view(1, 3, 1, 1)
    return (views * weights).sum(dim=1, keepdim=True).expand_as(views)


class _Draw:
    """Random numbers per view, drawn for a whole batch and on the CPU, so that shares and devices agree."""

    def __init__(
        self, total: int, own: slice, device: torch.device, generator: torch.Generator
    ) -> None:
        self._total = total
        self._own = own
        self._device = device
        self._generator = generator

    def uniform(self, low: float, high: float) -> torch.Tensor:
        """Return (n,) numbers of [low, high)."""
        drawn = torch.rand(self._total, generator=self._generator)[self._own]
        return (low + (high - low) * drawn).to(self._device)

    def whole(self, below: int) -> torch.Tensor:
        """Return (n,) whole numbers of 0..below-1."""
        drawn = torch.randint(below, (self._total,), generator=self._generator)
        return drawn[self._own].to(self._device)

    def chosen(self, share: float) -> torch.Tensor:
        """Return (n, 1, 1, 1) booleans, true with probability ``share``."""
        return (self.uniform(0.0, 1.0) < share).view(-1, 1, 1, 1)

    def factor(self, spread: float) -> torch.Tensor:
        """Return (n, 1, 1, 1) numbers of 1 +- spread, at least 0."""
        return self.uniform(max(0.0, 1.0 - spread), 1.0 + spread).view(-1, 1, 1, 1)


def _cropped(views: torch.Tensor, settings: ViewSettings, draw: _Draw) -> torch.Tensor:
    """Return a turned, perhaps mirrored crop of each image, (n, 3, side_px, side_px)."""
    area = draw.uniform(settings.min_area, 1.0)
    log_aspect = draw.uniform(-math.log(settings.max_aspect), math.log(settings.max_aspect))
    width = (area * log_aspect.exp()).sqrt().clamp(max=1.0)
    height = (area / log_aspect.exp()).sqrt().clamp(max=1.0)
    across = draw.uniform(-1.0, 1.0) * (1.0 - width)
    down = draw.uniform(-1.0, 1.0) * (1.0 - height)
    turn = draw.whole(4).to(views.dtype) * (math.pi / 2)
    mirror = 1.0 - 2.0 * draw.whole(2).to(views.dtype)
    cosine, sine = turn.cos(), turn.sin()
    top = torch.stack([width * cosine * mirror, -width * sine, across], dim=1)
    bottom = torch.stack([height * sine * mirror, height * cosine, down], dim=1)
    shape = [len(views), 3, settings.side_px, settings.side_px]
    grid = functional.affine_grid(torch.stack([top, bottom], dim=1), shape, align_corners=False)
    return functional.grid_sample(views, grid, padding_mode="border", align_corners=False)


def _coloured(views: torch.Tensor, settings: ViewSettings, draw: _Draw) -> torch.Tensor:
    """Return images with other brightness, contrast, saturation and hue, in [0, 1]."""
    views = (views * draw.factor(settings.brightness)).clamp(0.0, 1.0)
    mean = grey_of(views).mean(dim=(1, 2, 3), keepdim=True)
    views = (mean + (views - mean) * draw.factor(settings.contrast)).clamp(0.0, 1.0)
    grey = grey_of(views)
    views = (grey + (views - grey) * draw.factor(settings.saturation)).clamp(0.0, 1.0)
    return _turned_hue(views, draw.uniform(-settings.hue, settings.hue)).clamp(0.0, 1.0)


def _turned_hue(views: torch.Tensor, turns: torch.Tensor) -> torch.Tensor:
    """Return images with colours turned about the grey axis by ``turns`` (n,) of a full circle."""
    angle = turns * (2.0 * math.pi)
    cosine, third = angle.cos(), (1.0 - angle.cos()) / 3.0
    side = angle.sin() / math.sqrt(3.0)
    same, next_, last = cosine + third, third - side, third + side
    rows = [
        torch.stack(row, dim=1)
        for row in ((same, next_, last), (last, same, next_), (next_, last, same))
    ]
    return torch.einsum("nij,njhw->nihw", torch.stack(rows, dim=1), views)


def _blurred(views: torch.Tensor, settings: ViewSettings, draw: _Draw) -> torch.Tensor:
    """Return images under a Gaussian of a drawn sigma each."""
    largest = settings.max_sigma * settings.side_px / 224.0
    sigma = draw.uniform(0.05 * largest, largest).view(-1, 1)
    reach = min(math.ceil(BLUR_REACH * largest), settings.side_px // 2 - 1)
    offsets = torch.arange(-reach, reach + 1, device=views.device, dtype=views.dtype)
    kernel = torch.exp(-(offsets**2) / (2.0 * sigma**2))
    kernel = (kernel / kernel.sum(dim=1, keepdim=True)).repeat_interleave(3, dim=0)
    count, channels, height, width = views.shape
    flat = views.reshape(1, count * channels, height, width)
    for shape, pad in (
        ((-1, 1, 1, 2 * reach + 1), (reach, reach, 0, 0)),
        ((-1, 1, 2 * reach + 1, 1), (0, 0, reach, reach)),
    ):
        flat = functional.pad(flat, pad, mode="reflect")
        flat = functional.conv2d(flat, kernel.view(shape), groups=count * channels)
    return flat.view(count, channels, height, width)
