"""A slide of any size in a small file: the same few tiles again and again.

A slide of 100,000 px a side has 150,000 tiles; nobody wants to draw or keep them in a test. Here the slide is
divided into blocks of 4096 px that hold one pattern, repeated, or glass; a level's tiles that show the same lie in the
file once, and the table of tiles points at them as often as it takes. To whoever reads it, it is a slide
like any other.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from sish_cluster.core.seams import Pixels
from sish_cluster.testing.histology import Drawing, drawn
from sish_cluster.testing.pyramid import LEVEL_STEP, TILE_PX, StoredLevel, tile_jpegs, write_levels

BLOCK_PX = TILE_PX * LEVEL_STEP**2
"""Side of a block, level-0 px: a tile of the third level shows one block."""

PATTERNS = ("glands", "fibres", "sheets")
"""What blocks of tissue hold, by turns."""


def vast_slide(
    path: Path, *, side_px: int = 100_000, mpp: float = 0.25, share: float = 0.5
) -> Path:
    """Write a square slide whose tissue is a disc, and return its path.

    Parameters
    ----------
    path
        Where it goes: about 8 bytes a tile, 1.3 MB for 100,000 px.
    side_px
        Side of the slide, px.
    mpp
        Micrometres per px.
    share
        Share of the slide that is tissue, 0..0.7.
    """
    blocks = _disc(-(-side_px // BLOCK_PX), share)
    tiles = [_tile(None, mpp), *(_tile(pattern, mpp) for pattern in PATTERNS)]
    levels, side, step = [], side_px, 1
    while step <= LEVEL_STEP**2:
        rows = np.arange(-(-side // TILE_PX)) * TILE_PX * step // BLOCK_PX
        jpegs = [tile_jpegs(_repeated(tile, step))[0] for tile in tiles]
        shown = blocks[np.ix_(rows, rows)].ravel().tolist()
        levels.append(StoredLevel(side, side, jpegs, shown))
        side, step = side // LEVEL_STEP, step * LEVEL_STEP
    return write_levels(path, levels, mpp=mpp)


def _disc(n_blocks: int, share: float) -> npt.NDArray[np.int64]:
    """Return which tile each block (n, n) repeats: 0 for glass."""
    places = np.arange(n_blocks) - (n_blocks - 1) / 2
    far = np.hypot(places[:, None], places[None])
    kinds = 1 + np.add.outer(np.arange(n_blocks), np.arange(n_blocks)) % len(PATTERNS)
    return np.where(far < n_blocks * np.sqrt(share / np.pi), kinds, 0)


def _tile(pattern: str | None, mpp: float) -> Pixels:
    if pattern is None:
        return np.full((TILE_PX, TILE_PX, 3), 246, np.uint8)
    whole = drawn(Drawing(pattern, 4 * TILE_PX, mpp * 4, tissue_share=0.9))
    start = (len(whole) - TILE_PX) // 2
    return np.ascontiguousarray(whole[start : start + TILE_PX, start : start + TILE_PX])


def _repeated(tile: Pixels, step: int) -> Pixels:
    """Return what a tile of a level ``step`` times coarser shows of a block of this tile."""
    side = TILE_PX // step
    small = np.asarray(cv2.resize(tile, (side, side), interpolation=cv2.INTER_AREA), np.uint8)
    return np.tile(small, (step, step, 1))
