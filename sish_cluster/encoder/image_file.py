"""An image file as levels of pixels, whatever wrote it, and a plain word for every damage.

Slides come from many hands, and some are not slides: a picture renamed to ``.svs``, a download that
stopped half way, a text file. This module finds out what a file's content is before a decoder
touches it, opens it with OpenSlide or, for plain PNG, JPEG and TIFF pictures, with PIL, and turns
every failure into a `BadSlide` that names the file, what was found, and what to do. Only level
pixels are ever read: label and macro pictures stay in the file.
"""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import numpy.typing as npt
import openslide
from PIL import Image

from sish_cluster.core.errors import BadSlide
from sish_cluster.core.geometry import Size

Rgb = npt.NDArray[np.uint8]
"""One picture, shape (height, width, 3), RGB, 0..255."""

MAX_SIDE_PX = 2_000_000
"""Longest level-0 side accepted, px: a 1 m slide at 0.5 um; beyond it the header is not believed."""

MAX_PLAIN_PX = 170_000_000
"""Largest plain picture, px: it is decoded whole (0.5 GB); beyond, a tiled pyramid is needed."""

PLAUSIBLE_MPP = (0.01, 20.0)
"""Bounds of a believable mpp, um; print resolutions (72 dpi is 353 um) fall outside."""

TIFF_SUFFIXES = frozenset({".svs", ".tif", ".tiff", ".ndpi", ".scn", ".bif"})
"""Names that promise a TIFF: anything else under them is a renamed file."""

PLAIN_CONTENT = frozenset({"PNG", "JPEG", "TIFF"})
"""Contents PIL may decode when OpenSlide does not."""

_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"%PDF", "PDF"),
    (b"GIF8", "GIF"),
    (b"BM", "BMP"),
    (b"ZISRAWFILE", "Zeiss CZI"),
    (b"SQLite format 3\0", "SQLite"),
)
"""First bytes of the contents worth naming."""


class ImageFile(Protocol):
    """An opened file: levels of RGB pixels and what it says about itself."""

    @property
    def level_sizes(self) -> tuple[Size, ...]:
        """Sizes of the levels, level 0 first, px."""

    @property
    def properties(self) -> Mapping[str, str]:
        """Properties in OpenSlide's names."""

    def read(self, corner: tuple[int, int], level: int, size: Size) -> Rgb:
        """Return ``size`` px of a level from a level-0 ``corner``; white outside the slide."""

    def close(self) -> None:
        """Release the file."""


def content_of(path: Path) -> str:
    """Return what a file's first bytes say it is: ``PNG``, ``TIFF``, ``text``, ...

    Raises
    ------
    BadSlide
        If there is no such file, it cannot be read or it is empty.
    """
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except FileNotFoundError:
        raise BadSlide(f"{path}: there is no such file; check the path") from None
    except OSError as error:
        raise BadSlide(f"{path}: cannot be read ({error.strerror}); check it") from None
    if not head:
        raise BadSlide(f"{path}: is empty (0 bytes); copy or download it again")
    if head[128:132] == b"DICM":
        return "DICOM"
    for magic, name in _MAGIC:
        if head.startswith(magic):
            return name
    is_text = all(byte in b"\t\n\r\f\x1b" or byte >= 32 for byte in head) and b"\x7f" not in head
    return "text" if is_text else "not an image format known here"


def opened(path: Path) -> ImageFile:
    """Open a file with OpenSlide, or as a plain picture.

    Raises
    ------
    BadSlide
        If it is neither, is damaged, too large, or named as what it is not.
    """
    content = content_of(path)
    suffix = path.suffix.lower()
    if suffix in TIFF_SUFFIXES and content not in ("TIFF", "DICOM"):
        raise BadSlide(
            f"{path}: is named {suffix}, but its content is {content}, where a {suffix} is a TIFF;"
            " fetch the original slide, or name the file as what it is"
        )
    with _damage_named(path, content), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # decoders warn about what then fails, or does no harm
        if openslide.OpenSlide.detect_format(path) is not None:
            return _SlideFile(path)
        if content in PLAIN_CONTENT:
            return _PlainPicture(path)
    raise BadSlide(
        f"{path}: its content is {content}, which neither OpenSlide {openslide.__library_version__}"
        " nor the plain-picture reader (PNG, JPEG, TIFF) opens; convert it to a tiled pyramid"
    )


@contextlib.contextmanager
def _damage_named(path: Path, content: str) -> Iterator[None]:
    """Turn whatever a decoder raises into a `BadSlide` that names the file."""
    try:
        yield
    except BadSlide:
        raise
    except Image.DecompressionBombError as error:
        raise BadSlide(
            f"{path}: a plain picture is decoded whole, at most {MAX_PLAIN_PX:,} px: {error};"
            " convert it to a tiled pyramid (vips tiffsave --tile --pyramid)"
        ) from error
    except Exception as error:  # decoders raise almost anything on a hostile file
        size = path.stat().st_size if path.exists() else 0
        raise BadSlide(
            f"{path}: its content begins as {content} ({size:,} bytes) but cannot be decoded:"
            f" {error or type(error).__name__}; it is damaged or cut short, copy it again"
        ) from error


def plausible_mpp(text: str | float | None) -> float | None:
    """Return a stated mpp as a number, or None where it is absent or not believable.

    Examples
    --------
    >>> plausible_mpp("0.25"), plausible_mpp("352.8"), plausible_mpp("")
    (0.25, None, None)
    """
    try:
        value = float(text) if text is not None else 0.0
    except ValueError:
        return None
    low, high = PLAUSIBLE_MPP
    return value if math.isfinite(value) and low <= value <= high else None


def _checked_sizes(path: Path, sizes: list[tuple[int, int]]) -> tuple[Size, ...]:
    for width, height in sizes:
        if not (0 < width <= MAX_SIDE_PX and 0 < height <= MAX_SIDE_PX):
            raise BadSlide(
                f"{path}: its header claims a level of {width} x {height} px, where a side is"
                f" 1..{MAX_SIDE_PX:,} px; the header is damaged, copy the file again"
            )
    return tuple(Size(width, height) for width, height in sizes)


class _SlideFile:
    """A file OpenSlide opens."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._slide = openslide.OpenSlide(path)
        self.properties: Mapping[str, str] = dict(self._slide.properties)
        self.level_sizes = _checked_sizes(path, list(self._slide.level_dimensions))

    def read(self, corner: tuple[int, int], level: int, size: Size) -> Rgb:
        """Return a level's pixels; transparent ones, inside or outside, become white."""
        try:
            rgba = np.asarray(self._slide.read_region(corner, level, (size.width, size.height)))
        except openslide.OpenSlideError as error:
            raise BadSlide(
                f"{self._path}: {size.width} x {size.height} px of level {level} at {corner} cannot"
                f" be decoded: {error}; the file is damaged or cut short, copy it again"
            ) from error
        return _on_white(rgba)

    def close(self) -> None:
        self._slide.close()


class _PlainPicture:
    """A PNG, JPEG or TIFF picture, decoded whole: one level."""

    def __init__(self, path: Path) -> None:
        with Image.open(path) as image:
            self._refuse_unfit(path, image)
            self.properties: Mapping[str, str] = _plain_properties(image)
            self._pixels = _plain_pixels(image)
        height, width = self._pixels.shape[:2]
        self.level_sizes = _checked_sizes(path, [(width, height)])

    @staticmethod
    def _refuse_unfit(path: Path, image: Image.Image) -> None:
        getattr(image, "n_frames", 1)  # walks a TIFF's directories: a file cut short fails here
        image.seek(0)
        width, height = image.size
        if width * height > MAX_PLAIN_PX:
            raise BadSlide(
                f"{path}: a plain picture of {width} x {height} px is decoded whole, at most"
                f" {MAX_PLAIN_PX:,} px; convert it to a tiled pyramid (vips tiffsave --tile --pyramid)"
            )
        if image.mode in ("I", "F") or image.mode.startswith("I;"):
            raise BadSlide(
                f"{path}: its pixels are {image.mode} (more than 8 bits, one channel);"
                " convert it to 8-bit RGB"
            )

    def read(self, corner: tuple[int, int], level: int, size: Size) -> Rgb:
        """Return pixels of the one level; white outside the picture."""
        left, top = corner
        out = np.full((size.height, size.width, 3), 255, np.uint8)
        height, width = self._pixels.shape[:2]
        x0, x1 = max(left, 0), min(left + size.width, width)
        y0, y1 = max(top, 0), min(top + size.height, height)
        if x0 < x1 and y0 < y1:
            out[y0 - top : y1 - top, x0 - left : x1 - left] = self._pixels[y0:y1, x0:x1]
        return out

    def close(self) -> None:
        self._pixels = np.zeros((1, 1, 3), np.uint8)


def _plain_pixels(image: Image.Image) -> Rgb:
    if "A" in image.getbands() or "transparency" in image.info:
        return _on_white(np.asarray(image.convert("RGBA")))
    return np.asarray(image.convert("RGB"))


def _plain_properties(image: Image.Image) -> dict[str, str]:
    """Return the mpp a TIFF's resolution tags state; dpi of PNG and JPEG is a printer's, not ours."""
    tags: Mapping[int, object] = getattr(image, "tag_v2", {})
    um_per_unit = {2: 25_400.0, 3: 10_000.0}.get(int(str(tags.get(296, 2))), 0.0)
    resolution = float(str(tags.get(282, 0)) or 0)
    if image.format != "TIFF" or resolution <= 0 or not um_per_unit:
        return {}
    return {"openslide.mpp-x": str(um_per_unit / resolution)}


def _on_white(rgba: npt.NDArray[np.uint8]) -> Rgb:
    """Return RGBA pixels (h, w, 4) composited on white."""
    alpha = rgba[..., 3]
    if alpha.min(initial=255) == 255:
        return np.asarray(
            cv2.cvtColor(rgba, cv2.COLOR_RGBA2RGB), np.uint8
        )  # ten times a slice's speed
    weight = alpha[..., None].astype(np.uint16)
    blend = rgba[..., :3] * weight + 255 * (255 - weight) + 127
    return (blend // 255).astype(np.uint8)
