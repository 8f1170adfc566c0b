"""A slide as pixels: any square of it at any mpp, from the best level of its pyramid.

Everything later (tissue, patches, networks, pictures for people) asks a `SlideReader` for "this box,
this many pixels". The reader takes the coarsest level that still holds that many, shrinks it with an
area filter, and paints white where the slide has no pixels: glass is white, so tissue is never made up.

Frames: boxes and corners are level-0 pixels; ``mpp`` is micrometres per level-0 pixel.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np

from sish_cluster.core.errors import BadSlide
from sish_cluster.core.geometry import Box, Size
from sish_cluster.encoder.image_file import (
    PLAUSIBLE_MPP,
    ImageFile,
    Rgb,
    content_of,
    opened,
    plausible_mpp,
)

MAX_UPSAMPLING = 1.06
"""A level may be this much too coarse, ratio: "20x" is 0.50 to 0.53 um, and 5 % of blur costs less
than reading 16 times the pixels."""

MPP_TOLERANCE = 1.25
"""How far a given mpp may be from the file's own, ratio: nominal powers are off by up to a fifth, while
mixing up 20x and 40x is a factor of 2."""

READ_PX = 4096 * 4096
"""Most level pixels decoded at once, px (64 MiB): larger boxes are read in halves."""

MAX_OVERVIEW_PX = 200_000_000
"""Largest overview, px (0.6 GB); finer ones are asked for by region."""

DIGEST_BLOCK_BYTES = 1 << 20
"""Bytes hashed at a time."""


@dataclasses.dataclass(frozen=True, slots=True)
class StatedMpp:
    """Micrometres per level-0 pixel, and who says so."""

    mpp: float
    source: str
    """``file``, ``objective power`` or ``given``."""


def open_slide(path: str | os.PathLike[str], *, mpp: float | None = None) -> SlideReader:
    """Open a slide.

    Parameters
    ----------
    path
        Anything OpenSlide opens (a DICOM slide as its folder or one of its files), or a plain PNG,
        JPEG or TIFF picture.
    mpp
        Micrometres per level-0 pixel, used when the file states neither mpp nor objective power.

    Raises
    ------
    BadSlide
        If it cannot be read, has no mpp, or ``mpp`` contradicts the file's own by more than a
        quarter: neither of two contradicting scales may be silently ignored.
    """
    file_path = _file_of(Path(path))
    image = opened(file_path)
    try:
        return SlideReader(Path(path), image, _stated_mpp(Path(path), image, mpp))
    except BaseException:
        image.close()
        raise


def _file_of(path: Path) -> Path:
    """Return the file to open: for a folder, the first DICOM file in it."""
    if not path.is_dir():
        return path
    for file in sorted(path.iterdir()):
        if file.is_file() and file.stat().st_size and content_of(file) == "DICOM":
            return file
    raise BadSlide(
        f"{path}: is a folder without DICOM files; name a slide file,"
        " or give the folder to a command that indexes folders"
    )


def _stated_mpp(path: Path, image: ImageFile, given: float | None) -> StatedMpp:
    if given is not None and plausible_mpp(given) is None:
        raise BadSlide(f"{path}: an mpp is {PLAUSIBLE_MPP[0]}..{PLAUSIBLE_MPP[1]} um; got {given}")
    own = _own_mpp(image)
    if own is None and given is None:
        raise BadSlide(
            f"{path}: states neither mpp nor objective power; give --mpp, or an mpp column in the"
            " labels file (0.5 for most 20x scans, 0.25 for most 40x scans)"
        )
    if own is None:
        return StatedMpp(float(given or 0.0), "given")
    if given is not None and not 1 / MPP_TOLERANCE <= given / own.mpp <= MPP_TOLERANCE:
        raise BadSlide(
            f"{path}: mpp {given:g} was given, but the {own.source} says {own.mpp:g}; they may"
            f" differ by a factor of {MPP_TOLERANCE}. Leave the mpp out to use the file's"
        )
    return own


def _own_mpp(image: ImageFile) -> StatedMpp | None:
    mpp = plausible_mpp(image.properties.get("openslide.mpp-x"))
    if mpp is not None:
        return StatedMpp(mpp, "file")
    power = image.properties.get("openslide.objective-power", "")
    try:
        mpp = plausible_mpp(10.0 / float(power))
    except (ValueError, ZeroDivisionError):
        return None
    return StatedMpp(mpp, "objective power") if mpp is not None else None


class SlideReader:
    """One open slide; a context manager, safe to read from several threads.

    Attributes
    ----------
    path
        What was opened.
    mpp
        Micrometres per level-0 pixel.
    mpp_source
        ``file``, ``objective power`` or ``given``.
    size
        Size at level 0, px.
    level_count
        Levels in the file, at least 1.
    downsamples
        Level-0 pixels a pixel of each level covers, a side.
    """

    def __init__(self, path: Path, image: ImageFile, stated: StatedMpp) -> None:
        self.path = path
        self.mpp = stated.mpp
        self.mpp_source = stated.source
        self.size = image.level_sizes[0]
        self.level_count = len(image.level_sizes)
        self._image = image
        self.downsamples = [
            (self.size.width / s.width + self.size.height / s.height) / 2 for s in image.level_sizes
        ]

    def __enter__(self) -> SlideReader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the file."""
        self._image.close()

    @property
    def name(self) -> str:
        """The slide's name: the file's name without suffix, or the folder's name."""
        return self.path.name if self.path.is_dir() else self.path.stem

    @functools.cached_property
    def digest(self) -> str:
        """Hex BLAKE2b-128 of the content, of every file of a slide that has several."""
        digest = hashlib.blake2b(digest_size=16)
        for file in _parts_of(self.path):
            digest.update(file.stat().st_size.to_bytes(8, "little"))
            with file.open("rb") as stream:
                while block := stream.read(DIGEST_BLOCK_BYTES):
                    digest.update(block)
        return digest.hexdigest()

    def region(self, box: Box, *, side_px: int) -> Rgb:
        """Return a box as ``side_px`` x ``side_px`` pixels.

        Parameters
        ----------
        box
            Level-0 pixels; may reach beyond the slide, where it is white.
        side_px
            Pixels a side of the result.

        Returns
        -------
        uint8 (side_px, side_px, 3), RGB.
        """
        return self._scaled(box, Size(side_px, side_px))

    def level_region(self, box: Box, level: int) -> Rgb:
        """Return a box as one level has it (h, w, 3), in that level's pixels."""
        sides = (box.size.width, box.size.height)
        size = Size(*(max(1, round(side / self.downsamples[level])) for side in sides))
        return self._image.read((box.left, box.top), level, size)

    def thumbnail(self, max_side_px: int) -> Rgb:
        """Return the whole slide (h, w, 3), its longer side at most ``max_side_px``, never enlarged."""
        return self._overview(max(self.size.width, self.size.height) / max_side_px)

    def at_mpp(self, mpp: float) -> Rgb:
        """Return the whole slide (h, w, 3) at ``mpp`` um per px, never enlarged."""
        return self._overview(mpp / self.mpp)

    def _overview(self, downsample: float) -> Rgb:
        downsample = max(1.0, downsample)
        out = Size(*(max(1, round(s / downsample)) for s in (self.size.width, self.size.height)))
        if out.width * out.height > MAX_OVERVIEW_PX:
            raise BadSlide(
                f"{self.path}: an overview of {out.width} x {out.height} px was asked for, at most"
                f" {MAX_OVERVIEW_PX:,} px are made; ask for a coarser one, or for regions"
            )
        return self._scaled(Box(0, 0, self.size.width, self.size.height), out)

    def level_for(self, downsample: float) -> int:
        """Return the coarsest level that still holds the pixels of this many level-0 pixels each."""
        fine = [i for i, d in enumerate(self.downsamples) if d <= downsample * MAX_UPSAMPLING]
        return max(fine, key=lambda i: self.downsamples[i], default=0)

    def _scaled(self, box: Box, out: Size) -> Rgb:
        """Return ``box`` as ``out`` pixels, reading at most `READ_PX` at a time."""
        level = self.level_for(min(box.size.width / out.width, box.size.height / out.height))
        downsample = self.downsamples[level]
        width = max(1, round(box.size.width / downsample))
        height = max(1, round(box.size.height / downsample))
        if width * height > READ_PX and max(out.width, out.height) > 1:
            return self._scaled_halves(box, out)
        pixels = self._image.read((box.left, box.top), level, Size(width, height))
        return _resized(pixels, out)

    def _scaled_halves(self, box: Box, out: Size) -> Rgb:
        if out.width >= out.height:
            first = out.width // 2
            cut = box.left + round(box.size.width * first / out.width)
            boxes = (
                Box(box.left, box.top, cut, box.bottom),
                Box(cut, box.top, box.right, box.bottom),
            )
            outs = (Size(first, out.height), Size(out.width - first, out.height))
        else:
            first = out.height // 2
            cut = box.top + round(box.size.height * first / out.height)
            boxes = (
                Box(box.left, box.top, box.right, cut),
                Box(box.left, cut, box.right, box.bottom),
            )
            outs = (Size(out.width, first), Size(out.width, out.height - first))
        halves = [self._scaled(b, o) for b, o in zip(boxes, outs, strict=True)]
        return np.concatenate(halves, axis=1 if out.width >= out.height else 0)


def _resized(pixels: Rgb, out: Size) -> Rgb:
    height, width = pixels.shape[:2]
    if (width, height) == (out.width, out.height):
        return pixels
    shrinks = width >= out.width and height >= out.height
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(pixels, (out.width, out.height), interpolation=how), np.uint8)


def _parts_of(path: Path) -> list[Path]:
    """Return every file that belongs to a slide, in a stable order."""
    suffix = path.suffix.lower()
    if path.is_dir():
        return sorted(file for file in path.iterdir() if file.is_file())
    if suffix == ".mrxs":
        folder = path.with_suffix("")
        return [path, *sorted(file for file in folder.rglob("*") if file.is_file())]
    if suffix in (".vms", ".vmu"):
        text = path.read_text("latin-1")
        return [path, *sorted(f for f in path.parent.iterdir() if f.is_file() and f.name in text)]
    if content_of(path) == "DICOM":
        return sorted(f for f in path.parent.iterdir() if f.suffix.lower() == path.suffix.lower())
    return [path]
