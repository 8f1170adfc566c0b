"""Damage that a decoder does not notice: levels of one pyramid that do not show the same picture.

OpenSlide refuses tiles whose bytes break off or are no picture. Other damage decodes to noise, to black or to
nothing, and would become keys and codes like any tissue. But every level of a pyramid is the same picture:
what a finer one shows, averaged, is what a coarser one shows. Where they differ, one of them is damaged, and the
slide is refused rather than encoded wrongly. A file of one level cannot be checked so.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from sish_cluster.core.errors import BadSlide
from sish_cluster.core.geometry import Box
from sish_cluster.encoder.image_file import Rgb
from sish_cluster.encoder.slide import SlideReader

CELLS = 8
"""Cells a side whose mean colours are compared: details and sharpening even out in them."""

CELL_PX = 4
"""Pixels a side of a cell on the coarser level at least: fewer would compare single pixels."""

MAX_DIFFERENCE = 48
"""Difference taken for the same picture, 0..255; levels of real slides were up to 12 apart, noise and
black differ from stained tissue by about 100."""

SPOT_PX = 64
"""Side of the spots that every level is tried at, px of that level."""

SPOTS = ((0.5, 0.5), (0.3, 0.3), (0.7, 0.7), (0.3, 0.7), (0.7, 0.3))
"""Where they lie, as shares of width and height."""


def check_levels(reader: SlideReader) -> None:
    """Read a few spots of every level, those that nothing else reads too, and compare it with the finer one.

    Raises
    ------
    BadSlide
        If a level cannot be decoded there or shows another picture than the next finer level; names both.

    Notes
    -----
    Costs `SPOTS` reads a level, milliseconds each. A damaged tile elsewhere is found when it is read.
    """
    for level, downsample in enumerate(reader.downsamples):
        side_px = round(min(SPOT_PX * downsample, reader.size.width, reader.size.height))
        for x, y in SPOTS:
            left = round(x * (reader.size.width - side_px))
            top = round(y * (reader.size.height - side_px))
            box = Box(left, top, left + side_px, top + side_px)
            found = reader.level_region(box, level)
            if level:
                _check_same(reader, box, (level - 1, reader.level_region(box, level - 1)),
                            (level, found))  # fmt: skip


def check_patch(reader: SlideReader, box: Box, pixels: Rgb) -> None:
    """Compare a patch that was read with the coarsest level that still tells its cells apart.

    Parameters
    ----------
    reader
        Where it was read from.
    box
        Level-0 pixels.
    pixels
        What was read, uint8 (side, side, 3).

    Raises
    ------
    BadSlide
        If they show different pictures.
    """
    level = reader.level_for(box.size.width / len(pixels))
    other = reader.level_for(box.size.width / (CELLS * CELL_PX))
    if other > level:
        _check_same(reader, box, (level, pixels), (other, reader.level_region(box, other)))


def checked_region(reader: SlideReader, box: Box, *, side_px: int) -> Rgb:
    """Return a box of level-0 pixels as uint8 (side_px, side_px, 3), read once and looked at by `check_patch`."""
    pixels = reader.region(box, side_px=side_px)
    check_patch(reader, box, pixels)
    return pixels


def _check_same(
    reader: SlideReader, box: Box, fine: tuple[int, Rgb], coarse: tuple[int, Rgb]
) -> None:
    one, two = (_cells(pixels) for _, pixels in (fine, coarse))
    if min(coarse[1].shape[:2]) < CELLS or max(_outside(one, two), _outside(two, one)) <= 0:
        return
    colours = [
        f"({', '.join(f'{c:.0f}' for c in cells.mean(axis=(0, 1)))})" for cells in (one, two)
    ]
    raise BadSlide(
        f"{reader.path}: levels {fine[0]} and {coarse[0]} show different pictures of the square at"
        f" ({box.left}, {box.top}) of {box.size.width} px: mean colours {' and '.join(colours)}, parts of it"
        f" more than {MAX_DIFFERENCE} of 255 apart; one of the two levels is damaged, copy the file again"
    )


def _cells(pixels: Rgb) -> npt.NDArray[np.float32]:
    small = cv2.resize(pixels.astype(np.float32), (CELLS, CELLS), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.float32)


def _outside(cells: npt.NDArray[np.float32], other: npt.NDArray[np.float32]) -> float:
    """Return how far cells lie outside the colours around their place in ``other``, less what is taken.

    Around it, because levels of some scanners are a few pixels out of line.
    """
    around = np.ones((3, 3), np.uint8)
    above = cells - cv2.dilate(other, around)
    below = cv2.erode(other, around) - cells
    return float(max(above.max(), below.max())) - MAX_DIFFERENCE
