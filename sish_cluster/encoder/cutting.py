"""Cut the mosaic of a slide: tissue, grid, artifacts dropped, a few patches chosen.

Every candidate is read once, at 256 px, from the coarsest level that holds that many, by a few
threads and in blocks, and only its colour histogram is kept: a slide of any size takes the memory
of two blocks. Pixels for the networks are read later, for the chosen patches alone.

Source
------
SISH, Methods, "Mosaic generation"; the steps are those of `tissue`, `patching`, `artifacts` and `mosaic`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from sish_cluster.core.errors import BadSlide
from sish_cluster.core.geometry import PATCH_FIELD_UM, Box, patch_side_px_of
from sish_cluster.core.seams import MosaicSelector, Pixels
from sish_cluster.encoder.artifacts import ArtifactSettings, Flags, debris_patches, white_patches
from sish_cluster.encoder.mosaic import TwoStageSelector, TwoStageSettings
from sish_cluster.encoder.patching import Corners, patch_corners
from sish_cluster.encoder.region import Region
from sish_cluster.encoder.slide import SlideReader
from sish_cluster.encoder.tissue import RESECTION, Tissue, TissueSettings, tissue_of

THUMBNAIL_PX = 256
"""Side at which candidates are judged and compared, px (published)."""

MAX_REGION_PATCHES = 200
"""Patches of a region that are encoded without choosing: about as many as a large slide's mosaic."""

BLOCK_PATCHES = 32
"""Candidates judged together; twice as many are held as pixels (12 MiB)."""

Progress = Callable[[int, int], None]
"""Called with (candidates read, candidates in all)."""


@dataclasses.dataclass(frozen=True, slots=True)
class MosaicSettings:
    """Everything that decides which patches stand for a slide."""

    tissue: TissueSettings = RESECTION
    """How tissue is found."""
    artifacts: ArtifactSettings = dataclasses.field(default_factory=ArtifactSettings)
    """What is dropped."""
    selector: str = ""
    """Who chooses, a name of `selectors.SELECTORS`; ``""`` for the profile's."""
    patches_per_slide: int | None = None
    """Most patches of a mosaic; None leaves the number to the selector."""
    selection: TwoStageSettings = dataclasses.field(default_factory=TwoStageSettings)
    """How many patches the two-stage selectors take of each cluster."""
    summary_model: Path | None = None
    """Trained network of the ``wsisum`` selector."""
    field_um: float = PATCH_FIELD_UM
    """Side of a patch's field of view, um."""
    rng_seed: int = 0
    """Seed of the selector."""
    readers: int = 2
    """Threads that read candidates; the mosaic does not depend on it."""


@dataclasses.dataclass(frozen=True, slots=True)
class MosaicCounts:
    """What became of the candidates."""

    grid: int
    """Candidates on tissue."""
    white: int
    """Dropped as glass."""
    artifacts: int
    """Dropped as debris."""
    chosen: int
    """Patches of the mosaic."""
    doubted: int = 0
    """Kept although they look like debris, because nothing else was left."""

    @property
    def clean(self) -> int:
        """Candidates the selector chose from."""
        return self.grid - self.white - self.artifacts


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Mosaic:
    """The patches that stand for a slide.

    Parameters
    ----------
    corners
        int32 (n, 2), n >= 1, ordered by y and then x; level-0 pixels.
    side_px
        Side of a patch in level-0 pixels.
    counts
        What became of the candidates.
    tissue
        What the grid was laid over; None for a region.
    """

    corners: Corners
    side_px: int
    counts: MosaicCounts
    tissue: Tissue | None

    def __len__(self) -> int:
        return len(self.corners)

    def box(self, number: int) -> Box:
        """Return the square of patch ``number``, level-0 pixels."""
        return _box(self.corners[number], self.side_px)


@runtime_checkable
class StreamingSelector(MosaicSelector, Protocol):
    """A selector that needs only a summary of each patch, never all pixels at once."""

    def summaries_of(self, thumbnails: Pixels) -> npt.NDArray[np.float32]:
        """Return the summaries (n, ...) of patches (n, side, side, 3)."""

    def chosen_from(
        self,
        summaries: npt.NDArray[np.float32],
        corners: npt.NDArray[np.integer],
        *,
        rng_seed: int,
    ) -> npt.NDArray[np.int64]:
        """Return what `MosaicSelector.chosen` would return for the patches summarised."""


def cut_mosaic(
    reader: SlideReader,
    settings: MosaicSettings = MosaicSettings(),
    *,
    progress: Progress | None = None,
    selector: MosaicSelector | None = None,
) -> Mosaic:
    """Return the mosaic of a slide.

    Parameters
    ----------
    reader
        The open slide.
    settings
        Everything that decides which patches are chosen.
    progress
        Called after every block of candidates.
    selector
        Chooses among the clean candidates; the two-stage selector by default.

    Raises
    ------
    BadSlide
        If there is no tissue, every candidate is glass, or the slide cannot be read.

    Notes
    -----
    The debris test chooses among candidates and never empties a slide: where it would drop all, none
    is dropped and `MosaicCounts.doubted` says so. Cost: one read of 256 px per candidate. A `StreamingSelector` takes 3 KiB per candidate, any
    other 192 KiB.
    """
    side_px = patch_side_px_of(reader.mpp, settings.field_um)
    tissue = tissue_of(reader, settings.tissue)
    grid = patch_corners(tissue, slide_size=reader.size, side_px=side_px)
    sift = _Sift(selector or TwoStageSelector(settings.selection), settings)
    corners = _sifted(reader, grid, sift, side_px, progress)
    counts = MosaicCounts(len(grid), sift.white, sift.artifacts, len(corners), sift.doubted)
    return Mosaic(corners, side_px, counts, tissue)


def cut_region(
    reader: SlideReader,
    region: Region,
    settings: MosaicSettings = MosaicSettings(),
    *,
    progress: Progress | None = None,
    selector: MosaicSelector | None = None,
) -> Mosaic:
    """Return the patches of a region: all of them up to `MAX_REGION_PATCHES`, else those chosen.

    What a person outlined is taken as it is: glass and debris are dropped only where patches have to
    be chosen.

    Raises
    ------
    BadRequest
        If the region lies outside the slide.
    BadSlide
        If the slide cannot be read, or all of a large region is glass.
    """
    side_px = patch_side_px_of(reader.mpp, settings.field_um)
    grid = region.corners(slide_size=reader.size, side_px=side_px)
    if len(grid) <= MAX_REGION_PATCHES:
        return Mosaic(grid, side_px, MosaicCounts(len(grid), 0, 0, len(grid)), None)
    chooser = selector or TwoStageSelector(settings.selection, patches=MAX_REGION_PATCHES)
    sift = _Sift(chooser, settings)
    corners = _sifted(reader, grid, sift, side_px, progress)
    counts = MosaicCounts(len(grid), sift.white, sift.artifacts, len(corners), sift.doubted)
    return Mosaic(corners, side_px, counts, None)


def _sifted(
    reader: SlideReader, grid: Corners, sift: _Sift, side_px: int, progress: Progress | None
) -> Corners:
    """Return the corners that are chosen from a grid, read in blocks by a few threads."""
    starts = range(0, len(grid), BLOCK_PATCHES)
    blocks = [grid[start : start + BLOCK_PATCHES] for start in starts]
    with ThreadPoolExecutor(sift.settings.readers, "sish-read") as pool:
        # One block is read while the one before it is judged.
        ahead = _begun(reader, blocks[0], side_px, pool) if blocks else []
        for number, block in enumerate(blocks, start=1):
            thumbnails = np.stack([thumbnail.result() for thumbnail in ahead])
            ahead = _begun(reader, blocks[number], side_px, pool) if number < len(blocks) else []
            sift.add(block, thumbnails)
            if progress is not None:
                progress(min(number * BLOCK_PATCHES, len(grid)), len(grid))
    return sift.chosen(reader)


class _Sift:
    """Keeps what the selector needs of the stained candidates, and counts what is dropped."""

    def __init__(self, selector: MosaicSelector, settings: MosaicSettings) -> None:
        self._selector = selector
        self.settings = settings
        self._corners: list[Corners] = []
        self._summaries: list[npt.NDArray[np.float32]] = []
        self._pixels: list[Pixels] = []
        self._debris: list[Flags] = []
        self.white = 0
        self.artifacts = 0
        self.doubted = 0

    def add(self, corners: Corners, thumbnails: Pixels) -> None:
        """Judge a block of candidates."""
        bounds = self.settings.artifacts
        white = white_patches(thumbnails, bounds)
        self.white += int(white.sum())
        stained = thumbnails[~white]
        looks_debris = (
            debris_patches(stained) if bounds.drops_debris else np.zeros(len(stained), bool)
        )
        self._corners.append(corners[~white])
        self._debris.append(looks_debris)
        if isinstance(self._selector, StreamingSelector):
            self._summaries.append(self._selector.summaries_of(stained))
        else:
            self._pixels.append(stained)

    def chosen(self, reader: SlideReader) -> Corners:
        """Return the corners the selector chooses."""
        if not any(map(len, self._corners)):
            raise BadSlide(
                f"{reader.path}: all {self.white} patches on tissue were dropped as glass (more than"
                f" {self.settings.artifacts.white_share:.0%} of each is white); leave the slide out,"
                " or keep them by a higher white_share"
            )
        clean = self._clean()
        corners = np.concatenate(self._corners)[clean]
        rng_seed = self.settings.rng_seed
        if isinstance(self._selector, StreamingSelector):
            summaries = np.concatenate(self._summaries)[clean]
            rows = self._selector.chosen_from(summaries, corners, rng_seed=rng_seed)
        else:
            pixels = np.concatenate(self._pixels)[clean]
            rows = self._selector.chosen(pixels, corners, rng_seed=rng_seed)
        return np.ascontiguousarray(corners[rows])

    def _clean(self) -> Flags:
        """Return which stained candidates are no debris: all of them where none would be left."""
        debris = np.concatenate(self._debris)
        if debris.all():  # a stain the classifier does not know is likelier than a slide of debris
            self.doubted = len(debris)
            return np.ones(len(debris), np.bool_)
        self.artifacts = int(debris.sum())
        return ~debris


def _begun(
    reader: SlideReader, corners: Corners, side_px: int, pool: ThreadPoolExecutor
) -> list[Future[Pixels]]:
    """Begin to read candidates, one a call of the pool."""
    boxes = [_box(corner, side_px) for corner in corners]
    return [pool.submit(reader.region, box, side_px=THUMBNAIL_PX) for box in boxes]


def _box(corner: npt.NDArray[np.int32], side_px: int) -> Box:
    x, y = int(corner[0]), int(corner[1])
    return Box(x, y, x + side_px, y + side_px)
