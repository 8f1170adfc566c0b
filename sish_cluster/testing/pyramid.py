"""Write a picture as a tiled TIFF pyramid, the plainest slide OpenSlide opens.

Each level is one directory of the file: JPEG tiles of 256 px, then a table of tags that says
where they are. The format is small enough to write out here, which keeps drawn slides equal on every
machine and free of further packages.

Source
------
TIFF 6.0, sections 2 (structure), 15 (tiles) and 21 (YCbCr); TIFF Technical Note 2 (JPEG tiles).
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from sish_cluster.core.seams import Pixels

TILE_PX = 256
"""Side of the tiles stored in the file, px."""

LEVEL_STEP = 4
"""Each level is this much coarser than the one before."""

JPEG_QUALITY = 85
"""Quality of the stored tiles."""

SHORT, LONG, RATIONAL = 3, 4, 5
"""Types of tag values: 16 bits, 32 bits, two times 32 bits."""

Tag = tuple[int, int, Sequence[int]]
"""Number, type and values of a tag."""

_FORMAT = {SHORT: "H", LONG: "I", RATIONAL: "I"}


@dataclasses.dataclass(frozen=True, slots=True)
class StoredLevel:
    """A level as the file has it.

    Parameters
    ----------
    width_px, height_px
        Its size.
    jpegs
        Its different tiles.
    shown
        For each place, row by row, which of them it shows.
    """

    width_px: int
    height_px: int
    jpegs: Sequence[bytes]
    shown: Sequence[int]


def write_pyramid(path: Path, pixels: Pixels, *, mpp: float | None) -> Path:
    """Write level-0 pixels as a pyramid, and return its path.

    Parameters
    ----------
    path
        Where it goes.
    pixels
        Level 0, uint8 (h, w, 3).
    mpp
        Micrometres per level-0 px, or None to leave it out.
    """
    levels = []
    for level in levels_of(pixels):
        height, width = level.shape[:2]
        tiles = tile_jpegs(level)
        levels.append(StoredLevel(width, height, tiles, range(len(tiles))))
    return write_levels(path, levels, mpp=mpp)


def write_levels(path: Path, levels: Sequence[StoredLevel], *, mpp: float | None) -> Path:
    """Write levels whose tiles are JPEG files already, and return the path.

    Parameters
    ----------
    path
        Where it goes.
    levels
        The finest first.
    mpp
        Micrometres per level-0 px, or None to leave it out.
    """
    data = bytearray(b"II*\0" + bytes(4))
    link = 4
    for number, level in enumerate(levels):
        places = _append_tiles(data, level.jpegs)
        offsets, lengths = zip(*(places[which] for which in level.shown), strict=True)
        tags = _tags(level, offsets, lengths, is_base=number == 0)
        link = _append_directory(data, tags + _resolution_tags(mpp), link)
    path.write_bytes(data)
    return path


def levels_of(pixels: Pixels) -> list[Pixels]:
    """Return level-0 pixels (h, w, 3) and their coarser levels, down to one of a tile or a few."""
    levels = [pixels]
    while min(levels[-1].shape[:2]) >= TILE_PX * 2:
        height, width = (side // LEVEL_STEP for side in levels[-1].shape[:2])
        smaller = cv2.resize(levels[-1], (width, height), interpolation=cv2.INTER_AREA)
        levels.append(np.asarray(smaller, np.uint8))
    return levels


def tile_jpegs(level: Pixels) -> list[bytes]:
    """Return a level's tiles as JPEG files, row by row, those at the edges filled up."""
    height, width = level.shape[:2]
    return [
        _jpeg(level[top : top + TILE_PX, left : left + TILE_PX])
        for top in range(0, height, TILE_PX)
        for left in range(0, width, TILE_PX)
    ]


def _append_tiles(data: bytearray, tiles: Sequence[bytes]) -> list[tuple[int, int]]:
    places = []
    for tile in tiles:
        places.append((len(data), len(tile)))
        data += tile + bytes(len(tile) % 2)
    return places


def _jpeg(tile: Pixels) -> bytes:
    below, right = TILE_PX - tile.shape[0], TILE_PX - tile.shape[1]
    whole = cv2.copyMakeBorder(tile[..., ::-1], 0, below, 0, right, cv2.BORDER_REPLICATE)
    sampling = (cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420)
    options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY, *sampling]
    return cv2.imencode(".jpg", whole, options)[1].tobytes()


def _tags(
    level: StoredLevel, offsets: Sequence[int], lengths: Sequence[int], *, is_base: bool
) -> list[Tag]:
    return [
        (254, LONG, [0 if is_base else 1]),  # a coarser version of another picture
        (256, LONG, [level.width_px]),
        (257, LONG, [level.height_px]),
        (258, SHORT, [8, 8, 8]),  # bits of each channel
        (259, SHORT, [7]),  # compression: JPEG
        (262, SHORT, [6]),  # colours: YCbCr
        (277, SHORT, [3]),  # channels
        (284, SHORT, [1]),  # channels interleaved
        (322, LONG, [TILE_PX]),
        (323, LONG, [TILE_PX]),
        (324, LONG, offsets),
        (325, LONG, lengths),
        (530, SHORT, [2, 2]),  # colour at half resolution
    ]


def _resolution_tags(mpp: float | None) -> list[Tag]:
    if mpp is None:
        return []
    per_cm = [round(1e4 / mpp * 1000), 1000]
    return [(282, RATIONAL, per_cm), (283, RATIONAL, per_cm), (296, SHORT, [3])]


def _append_directory(data: bytearray, tags: list[Tag], link: int) -> int:
    """Append a table of tags, point ``link`` at it, and return where the next link goes."""
    entries = b""
    for number, kind, values in sorted(tags, key=lambda tag: tag[0]):
        packed = struct.pack(f"<{len(values)}{_FORMAT[kind]}", *values)
        if len(packed) > 4:
            place = len(data)
            data += packed + bytes(len(packed) % 2)
            packed = struct.pack("<I", place)
        count = len(values) // 2 if kind == RATIONAL else len(values)
        entries += struct.pack("<HHI", number, kind, count) + packed.ljust(4, b"\0")
    struct.pack_into("<I", data, link, len(data))
    data += struct.pack("<H", len(tags)) + entries + bytes(4)
    return len(data) - 4
