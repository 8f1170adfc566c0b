"""Patches that callers cut themselves: an encoded picture becomes the pixels a profile sees.

The bytes come from anybody: sizes are bounded before anything is decoded, and only a few formats are.
"""

from __future__ import annotations

import io
import warnings

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from sish_cluster.core.errors import BadRequest
from sish_cluster.encoder.settings import ServiceSettings

FORMATS = ("PNG", "JPEG", "TIFF")
"""What PIL may take the bytes for."""

SMALLEST_SIDE_PX = 32
"""A patch of fewer pixels a side is a mistake: it covers 512 um."""


def pixels_of(image: bytes, *, side_px: int, settings: ServiceSettings) -> npt.NDArray[np.uint8]:
    """Return a patch's pixels, uint8 (side_px, side_px, 3), white where the picture is transparent.

    Parameters
    ----------
    image
        PNG, JPEG or TIFF, square, covering the profile's field of view.
    side_px
        Pixels a side the profile sees; larger pictures are shrunk by area.
    settings
        Bounds of bytes and pixels.

    Raises
    ------
    BadRequest
        If a bound is exceeded, the picture is not square, or the bytes are no such picture.
    """
    if len(image) > settings.max_image_bytes:
        raise _refused(f"has {len(image)} bytes; at most {settings.max_image_bytes} are taken")
    try:
        with warnings.catch_warnings(action="ignore"):
            picture = Image.open(io.BytesIO(image), formats=FORMATS)
            _check_size(picture.size, settings.max_image_side_px)
            pixels = _on_white(picture)
    except BadRequest:
        raise
    except Exception as error:  # PIL raises whatever its decoders do when bytes are damaged.
        raise _refused(f"cannot be decoded as {', '.join(FORMATS)}: {error}") from error
    shrinks = pixels.shape[0] >= side_px
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    if pixels.shape[0] == side_px:
        return pixels
    return np.asarray(cv2.resize(pixels, (side_px, side_px), interpolation=how), np.uint8)


def _check_size(size: tuple[int, int], largest_px: int) -> None:
    width, height = size
    if width != height or not SMALLEST_SIDE_PX <= width <= largest_px:
        raise _refused(
            f"has {width} x {height} px; a patch is square, {SMALLEST_SIDE_PX} to {largest_px} px a side"
        )


def _on_white(picture: Image.Image) -> npt.NDArray[np.uint8]:
    if picture.mode in ("I;16", "I", "F", "CMYK"):
        raise _refused(
            f"has mode {picture.mode}; patches are 8-bit grey or RGB, with or without alpha"
        )
    coloured = picture.convert("RGBA")
    ground = Image.new("RGBA", coloured.size, "white")
    return np.asarray(Image.alpha_composite(ground, coloured).convert("RGB"), np.uint8)


def _refused(what: str) -> BadRequest:
    return BadRequest(f"the patch image {what}", field="image")
