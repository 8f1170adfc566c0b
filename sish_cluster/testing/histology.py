"""Pictures that look a little like stained tissue, drawn from a seed.

Four patterns a person tells apart at a glance: glands, sheets of cells, fibres and fat. They
are drawings: nothing here claims to be a disease. Every length is in micrometres, so that the same
tissue can be drawn at any mpp; two slides of one pattern differ in outline, places and stain.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt

from sish_cluster.core.seams import Pixels

NUCLEUS = (92, 62, 140)
"""Colour of nuclei, RGB: haematoxylin."""

GLASS = 244
"""Grey of empty glass."""

MOTTLE = 14.0
"""Unevenness of the stain, RGB steps (standard deviation)."""

MOTTLE_UM = 2.5
"""Width of its grains, um."""

GRAIN = 1.5
"""Sensor noise, RGB steps (standard deviation)."""


@dataclasses.dataclass(frozen=True, slots=True)
class Drawing:
    """What is drawn on one slide.

    Parameters
    ----------
    pattern
        A key of `PATTERNS`.
    side_px
        Side of the slide, px.
    mpp
        Micrometres per px.
    rng_seed
        Fixes every pixel.
    stain
        Shift of the stain, RGB steps: what one laboratory does unlike another.
    tissue_share
        Diameter of the tissue over the side of the slide; 0 draws empty glass.
    """

    pattern: str
    side_px: int = 4096
    mpp: float = 0.5
    rng_seed: int = 0
    stain: tuple[int, int, int] = (0, 0, 0)
    tissue_share: float = 0.7


class _Canvas:
    """A picture under the brush, with lengths in micrometres."""

    def __init__(self, drawing: Drawing, background: tuple[int, int, int]) -> None:
        self.rng = np.random.default_rng(drawing.rng_seed)
        self.side_px = drawing.side_px
        self.mpp = drawing.mpp
        self.side_um = drawing.side_px * drawing.mpp
        self.pixels = np.full((self.side_px, self.side_px, 3), background, np.uint8)

    def places(self, per_mm2: float) -> npt.NDArray[np.float64]:
        """Return random places (n, 2), um."""
        count = int(per_mm2 * (self.side_um / 1000) ** 2)
        return self.rng.uniform(0, self.side_um, (count, 2))

    def dot(
        self,
        place: npt.NDArray[np.float64],
        radius_um: float,
        colour: tuple[int, ...],
        width_um: float = 0,
    ) -> None:
        """Draw a disc, or a ring of a width."""
        centre = (int(place[0] / self.mpp), int(place[1] / self.mpp))
        radius = max(1, round(radius_um / self.mpp))
        width = max(1, round(width_um / self.mpp)) if width_um else -1
        cv2.circle(self.pixels, centre, radius, colour, width)

    def nuclei(self, places: npt.NDArray[np.float64], radius_um: float) -> None:
        """Draw nuclei of about a radius."""
        shades = self.rng.integers(-22, 22, len(places))
        radii = self.rng.uniform(0.75, 1.3, len(places)) * radius_um
        for place, shade, radius in zip(places, shades.tolist(), radii.tolist(), strict=True):
            self.dot(place, radius, tuple(channel + shade for channel in NUCLEUS))


def _glands(canvas: _Canvas) -> None:
    canvas.nuclei(canvas.places(600), 3.0)
    for place in canvas.places(70):
        radius = canvas.rng.uniform(28, 50)
        canvas.dot(place, radius + 12, (206, 140, 190))
        canvas.dot(place, radius * 0.55, (238, 226, 238))
        angles = np.arange(0, 2 * math.pi, 8.0 / radius)
        ring = place + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        canvas.nuclei(ring, 4.0)


def _sheets(canvas: _Canvas) -> None:
    canvas.nuclei(canvas.places(5200), 5.0)


def _fibres(canvas: _Canvas) -> None:
    steps = np.arange(0, canvas.side_um + 40, 20.0)
    for height in np.arange(0, canvas.side_um, 9.0):
        wave = height + 22 * np.sin(steps / 90 + height / 140) + canvas.rng.normal(0, 2, len(steps))
        line = (np.stack([steps, wave], axis=1) / canvas.mpp).astype(np.int32)
        shade = int(canvas.rng.integers(-25, 25))
        colour = (226 + shade // 2, 142 + shade, 172 + shade)
        cv2.polylines(canvas.pixels, [line], False, colour, max(1, round(4 / canvas.mpp)))
    canvas.nuclei(canvas.places(350), 3.0)


def _fat(canvas: _Canvas) -> None:
    for place in canvas.places(260):
        radius = canvas.rng.uniform(26, 44)
        canvas.dot(place, radius, (240, 232, 238))
        canvas.dot(place, radius, (196, 120, 168), 4.0)
    canvas.nuclei(canvas.places(220), 3.0)


PATTERNS: dict[str, tuple[tuple[int, int, int], Callable[[_Canvas], None]]] = {
    "glands": ((222, 168, 204), _glands),
    "sheets": ((198, 150, 204), _sheets),
    "fibres": ((232, 160, 186), _fibres),
    "fat": ((226, 176, 206), _fat),
}
"""Background colour and brush of every pattern."""


def drawn(drawing: Drawing) -> Pixels:
    """Return a slide's level 0, uint8 (side_px, side_px, 3)."""
    background, brush = PATTERNS[drawing.pattern]
    canvas = _Canvas(drawing, background)
    inside = _outline(canvas, drawing.tissue_share)
    brush(canvas)
    shift = canvas.rng.integers(-4, 5, 3) + drawing.stain  # no two cuts are equally thick
    stained = canvas.pixels + shift.astype(np.int16) + _mottle(canvas)
    picture = np.where(inside[..., None] > 0, stained, np.int16(GLASS)) + _grain(canvas)
    return np.clip(picture, 0, 255).astype(np.uint8)


def _outline(canvas: _Canvas, share: float) -> npt.NDArray[np.uint8]:
    """Return the tissue's mask: a round shape with a wavy edge, 255 inside."""
    mask = np.zeros((canvas.side_px, canvas.side_px), np.uint8)
    if share <= 0:
        return mask
    angles = np.linspace(0, 2 * math.pi, 240, endpoint=False)
    waves = sum(
        canvas.rng.uniform(0, 0.12 / n) * np.sin(n * angles + canvas.rng.uniform(0, 2 * math.pi))
        for n in range(2, 7)
    )
    radius = canvas.side_px * share / 2 * (1 + np.asarray(waves))
    points = canvas.side_px / 2 + radius[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1)
    cv2.fillPoly(mask, [points.astype(np.int32)], (255,))
    return mask


def _mottle(canvas: _Canvas) -> npt.NDArray[np.int16]:
    """Return the unevenness of stained cells (side, side, 1), a few um wide."""
    width_px = max(1.0, MOTTLE_UM / canvas.mpp)
    coarse = canvas.rng.normal(0, MOTTLE, (256, 256))
    block = cv2.resize(coarse, None, fx=width_px, fy=width_px, interpolation=cv2.INTER_CUBIC)
    return _repeated(np.asarray(block, np.float64), canvas.side_px)


def _grain(canvas: _Canvas) -> npt.NDArray[np.int16]:
    """Return sensor noise (side, side, 1)."""
    return _repeated(canvas.rng.normal(0, GRAIN, (512, 512)), canvas.side_px)


def _repeated(block: npt.NDArray[np.floating], side_px: int) -> npt.NDArray[np.int16]:
    """Return a block repeated to (side_px, side_px, 1): noise is dear to draw."""
    repeats = -(-side_px // len(block))
    whole = np.tile(block.round().astype(np.int16), (repeats, repeats))
    return whole[:side_px, :side_px, None]
