"""Where the tissue is: contours with holes, found on a coarse overview.

Stained tissue is coloured and glass is not, so the saturation of a slide at 8 um per pixel, smoothed
and thresholded, is the tissue; contours too small to matter and small holes are dropped. The
published area bounds suit resections and drop every biopsy, so there are two presets, and a slide
on which the first finds nothing is looked at again with the second.

Frames: contours and holes are level-0 pixels.

Source
------
SISH, Methods, "Segmentation and patching" (after CLAM); deviations: the overview is chosen by mpp, areas are
micrometres squared whatever the magnification, and a slide without tissue is a `BadSlide`.
"""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import numpy.typing as npt

from sish_cluster.core.errors import BadSlide
from sish_cluster.core.geometry import Size
from sish_cluster.encoder.image_file import Rgb
from sish_cluster.encoder.slide import SlideReader

Contour = npt.NDArray[np.int32]
"""A closed polygon, shape (n, 2), level-0 pixels (x, y)."""

AREA_UNIT_UM2 = 256.0 * 256.0
"""The published unit of area, 512 x 512 base px, at 0.5 um per px."""


@dataclasses.dataclass(frozen=True, slots=True)
class TissueSettings:
    """How tissue is found."""

    preset: str = "resection"
    """Name of these settings, for messages and records."""
    overview_mpp: float = 8.0
    """Micrometres per overview pixel: 16x of a 20x base, fine enough for a needle core."""
    median_px: int = 7
    """Side of the median filter on saturation, overview px (published)."""
    saturation_above: int = 8
    """Saturation, 0..255, above which a pixel is tissue (published); ignored with ``uses_otsu``."""
    uses_otsu: bool = False
    """Whether the threshold is Otsu's instead (the published alternative)."""
    close_px: int = 4
    """Side of the morphological closing, overview px (published)."""
    min_tissue_um2: float = 100 * AREA_UNIT_UM2
    """Smallest contour kept, holes taken off, um2 (published: 100 units, 6.6 mm2)."""
    min_hole_um2: float = 16 * AREA_UNIT_UM2
    """Smallest hole kept, um2 (published: 16 units, 1.0 mm2)."""
    max_holes: int = 8
    """Most holes kept per contour, largest first (published)."""


RESECTION = TissueSettings()
"""Large pieces of tissue, as published."""

BIOPSY = TissueSettings(
    preset="biopsy", min_tissue_um2=0.5 * AREA_UNIT_UM2, min_hole_um2=4 * AREA_UNIT_UM2
)
"""Needle cores and fragments: from about 0.18 mm square upwards."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Tissue:
    """The tissue of a slide.

    Parameters
    ----------
    contours
        Outer contours, largest first, level-0 pixels.
    holes
        For each contour, its holes, largest first, level-0 pixels.
    area_um2
        Area of the contours without their holes.
    preset
        The settings that found it, ``biopsy`` after a fall-back.
    """

    contours: tuple[Contour, ...]
    holes: tuple[tuple[Contour, ...], ...]
    area_um2: float
    preset: str

    def mask_at(self, size: Size, *, slide_size: Size) -> npt.NDArray[np.uint8]:
        """Return the tissue as a picture.

        Parameters
        ----------
        size
            Size of the picture, px.
        slide_size
            Size of the slide at level 0, px.

        Returns
        -------
        uint8 (size.height, size.width): 255 in tissue, 0 elsewhere.
        """
        scale = np.array([size.width / slide_size.width, size.height / slide_size.height])
        mask = np.zeros((size.height, size.width), np.uint8)
        for contour, holes in zip(self.contours, self.holes, strict=True):
            cv2.fillPoly(mask, [np.round(contour * scale).astype(np.int32)], (255,))
            for hole in holes:
                cv2.fillPoly(mask, [np.round(hole * scale).astype(np.int32)], (0,))
        return mask


def tissue_of(reader: SlideReader, settings: TissueSettings = RESECTION) -> Tissue:
    """Return the tissue of a slide, falling back to `BIOPSY` where ``settings`` find none.

    Raises
    ------
    BadSlide
        If neither finds tissue, or the slide cannot be read.
    """
    overview = reader.at_mpp(settings.overview_mpp)
    tissue = tissue_in(overview, slide_size=reader.size, mpp=reader.mpp, settings=settings)
    if not tissue.contours and settings.min_tissue_um2 > BIOPSY.min_tissue_um2:
        smaller = dataclasses.replace(
            settings,
            preset=BIOPSY.preset,
            min_tissue_um2=BIOPSY.min_tissue_um2,
            min_hole_um2=BIOPSY.min_hole_um2,
        )
        tissue = tissue_in(overview, slide_size=reader.size, mpp=reader.mpp, settings=smaller)
    if not tissue.contours:
        share = (saturated(overview, settings) > 0).mean()
        raise BadSlide(
            f"{reader.path}: no tissue was found: {share:.1%} of the overview is coloured (saturation"
            f" above {settings.saturation_above}) and no piece of it reaches"
            f" {min(settings.min_tissue_um2, BIOPSY.min_tissue_um2) / 1e6:.3f} mm2;"
            " leave the slide out, or lower saturation_above for a pale stain"
        )
    return tissue


def saturated(overview: Rgb, settings: TissueSettings) -> npt.NDArray[np.uint8]:
    """Return where an overview (h, w, 3) is coloured: uint8 (h, w), 255 or 0."""
    saturation = cv2.cvtColor(overview, cv2.COLOR_RGB2HSV)[..., 1]
    smooth = cv2.medianBlur(np.ascontiguousarray(saturation), settings.median_px)
    how = cv2.THRESH_BINARY | (cv2.THRESH_OTSU if settings.uses_otsu else 0)
    _, mask = cv2.threshold(smooth, settings.saturation_above, 255, how)
    kernel = np.ones((settings.close_px, settings.close_px), np.uint8)
    return np.asarray(cv2.morphologyEx(mask, cv2.MORPH_CLOSE, kernel), np.uint8)


def tissue_in(overview: Rgb, *, slide_size: Size, mpp: float, settings: TissueSettings) -> Tissue:
    """Return the tissue of an overview, possibly none.

    Parameters
    ----------
    overview
        The whole slide, uint8 (h, w, 3).
    slide_size
        Size at level 0, px.
    mpp
        Micrometres per level-0 pixel.
    settings
        How tissue is found.
    """
    height, width = overview.shape[:2]
    scale = np.array([slide_size.width / width, slide_size.height / height])
    um2_per_px = float(scale[0] * scale[1]) * mpp * mpp
    outlines, tree = cv2.findContours(
        saturated(overview, settings), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE
    )
    found = [np.asarray(outline, np.int32) for outline in outlines]
    pieces = []
    for outer, inner in _families(tree):
        holes = sorted((found[i] for i in inner), key=cv2.contourArea, reverse=True)
        area = (cv2.contourArea(found[outer]) - sum(map(cv2.contourArea, holes))) * um2_per_px
        if area >= settings.min_tissue_um2:
            large = [h for h in holes if cv2.contourArea(h) * um2_per_px >= settings.min_hole_um2]
            pieces.append((area, found[outer], large[: settings.max_holes]))
    pieces.sort(key=lambda piece: -piece[0])
    return Tissue(
        contours=tuple(_at_level_0(contour, scale) for _, contour, _ in pieces),
        holes=tuple(tuple(_at_level_0(hole, scale) for hole in holes) for *_, holes in pieces),
        area_um2=sum(area for area, *_ in pieces),
        preset=settings.preset,
    )


def _families(tree: npt.ArrayLike | None) -> list[tuple[int, list[int]]]:
    """Return each outer contour's index with those of its holes."""
    if tree is None:
        return []
    parents = np.asarray(tree)[0, :, 3]
    inner: dict[int, list[int]] = {int(i): [] for i in np.flatnonzero(parents < 0)}
    for hole in np.flatnonzero(parents >= 0):
        inner[int(parents[hole])].append(int(hole))
    return list(inner.items())


def _at_level_0(contour: npt.NDArray[np.int32], scale: npt.NDArray[np.float64]) -> Contour:
    return np.round(contour.reshape(-1, 2) * scale).astype(np.int32)
