"""Squares over tissue: the candidate patches of a slide.

Each tissue contour lays a grid of touching squares over its own bounding box and keeps those that
lie on tissue: at least one of four points around the square's centre inside the contour, and the centre
not in a hole.

Frames: corners are the upper left corners of patches, level-0 pixels; a patch may reach beyond the
slide, where it is read as white.

Source
------
SISH, Methods, "Segmentation and patching" (after CLAM). Deviation 1: a contour whose grid keeps nothing (a fragment
that lies between the points) gets one patch centred on it, so that no tissue found is lost.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from sish_cluster.core.geometry import Size
from sish_cluster.encoder.tissue import Contour, Tissue

Corners = npt.NDArray[np.int32]
"""Upper left corners, shape (n, 2), level-0 pixels (x, y)."""


def patch_corners(tissue: Tissue, *, slide_size: Size, side_px: int) -> Corners:
    """Return the corners of the candidate patches.

    Parameters
    ----------
    tissue
        Contours and holes, level-0 pixels.
    slide_size
        Size at level 0, px; every patch overlaps the slide.
    side_px
        Side of a patch and step of the grid, level-0 px.

    Returns
    -------
    int32 (n, 2), distinct, ordered by y and then x.
    """
    kept = [
        _corners_on(contour, holes, side_px)
        for contour, holes in zip(tissue.contours, tissue.holes, strict=True)
    ]
    corners = np.concatenate([np.zeros((0, 2), np.int32), *kept])
    inside = (corners < [slide_size.width, slide_size.height]).all(axis=1)
    distinct = np.unique(corners[inside][:, ::-1], axis=0)[:, ::-1]
    return np.ascontiguousarray(distinct, np.int32)


def _corners_on(contour: Contour, holes: tuple[Contour, ...], side_px: int) -> Corners:
    left, top, width, height = cv2.boundingRect(contour)
    xs = np.arange(left, left + width, side_px)
    ys = np.arange(top, top + height, side_px)
    grid = np.stack(np.meshgrid(xs, ys), axis=-1).reshape(-1, 2)
    kept = [corner for corner in grid if _lies_on(corner + side_px / 2, contour, holes, side_px)]
    if not kept:
        kept = [np.array([left + width // 2 - side_px // 2, top + height // 2 - side_px // 2])]
    return np.maximum(np.array(kept), 0).astype(np.int32)


def _lies_on(
    centre: npt.NDArray[np.floating], contour: Contour, holes: tuple[Contour, ...], side_px: int
) -> bool:
    """Whether any of four points a quarter side from the centre is on tissue, and no hole holds it."""
    x, y = float(centre[0]), float(centre[1])
    shift = side_px // 4
    points = [(x + dx, y + dy) for dx in (-shift, shift) for dy in (-shift, shift)]
    if not any(cv2.pointPolygonTest(contour, point, False) >= 0 for point in points):
        return False
    return not any(cv2.pointPolygonTest(hole, (x, y), False) > 0 for hole in holes)
