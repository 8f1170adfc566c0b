"""Slides that a bad disk or a bad copy damaged: one level of a pyramid, tile by tile.

Each kind decodes in another way: bytes that are no picture and pictures that break off are refused by the decoder,
noise is decoded without a word, and a tile without bytes is shown as nothing at all.

Source
------
TIFF 6.0, sections 2 (structure) and 15 (tiles); JPEG (ITU T.81), section B.2 (markers).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

TILE_OFFSETS, TILE_BYTES = 324, 325
"""Tags that tell where the tiles of a level lie and how long they are."""

SCAN = b"\xff\xda"
"""Marker before a JPEG's compressed pixels; any 0xFF byte among those would be a marker too."""

KINDS = ("zeros", "short", "noise", "absent")
"""Tiles of zeros; of pictures that break off; of noise; and tiles that have no bytes."""

Tiles = list[tuple[int, int]]
"""Offset and length of each tile, bytes."""


def damage_level(path: Path, level: int, kind: str, *, rng_seed: int = 0) -> Path:
    """Damage every tile of one level of a pyramid written by `write_pyramid`, in place; return the path.

    Parameters
    ----------
    path
        A tiled TIFF with JPEG tiles, little-endian.
    level
        Which of its levels.
    kind
        One of `KINDS`.
    rng_seed
        Fixes the noise.
    """
    data = bytearray(path.read_bytes())
    entries = _directories(data)[level]
    if kind == "absent":
        _, count, place = entries[TILE_BYTES]
        data[place : place + 4 * count] = bytes(4 * count)
    else:
        rng = np.random.default_rng(rng_seed)
        for offset, length in _tiles(data, entries):
            tile = bytes(data[offset : offset + length])
            data[offset : offset + length] = _DAMAGES[kind](tile, rng)
    path.write_bytes(data)
    return path


def _zeros(tile: bytes, _: np.random.Generator) -> bytes:
    return bytes(len(tile))


def _short(tile: bytes, _: np.random.Generator) -> bytes:
    half = (_scan_start(tile) + len(tile)) // 2
    return tile[:half] + bytes(len(tile) - half)


def _noise(tile: bytes, rng: np.random.Generator) -> bytes:
    start = _scan_start(tile)
    return (
        tile[:start] + rng.integers(0, 255, len(tile) - start - 2, np.uint8).tobytes() + tile[-2:]
    )


_DAMAGES: dict[str, Callable[[bytes, np.random.Generator], bytes]] = {
    "zeros": _zeros,
    "short": _short,
    "noise": _noise,
}


def _scan_start(tile: bytes) -> int:
    marker = tile.index(SCAN)
    return marker + 2 + int.from_bytes(tile[marker + 2 : marker + 4], "big")


def _directories(data: bytes | bytearray) -> Sequence[dict[int, tuple[int, int, int]]]:
    """Return (type, count, where the values lie) by tag, for every level."""
    found = []
    (at,) = struct.unpack_from("<I", data, 4)
    while at:
        (n_tags,) = struct.unpack_from("<H", data, at)
        entries = {}
        for row in range(n_tags):
            place = at + 2 + 12 * row
            tag, kind, count, where = struct.unpack_from("<HHII", data, place)
            entries[tag] = (kind, count, where if count > 1 else place + 8)
        found.append(entries)
        (at,) = struct.unpack_from("<I", data, at + 2 + 12 * n_tags)
    return found


def _tiles(data: bytes | bytearray, entries: dict[int, tuple[int, int, int]]) -> Tiles:
    columns = []
    for tag in (TILE_OFFSETS, TILE_BYTES):
        _, count, place = entries[tag]
        columns.append(struct.unpack_from(f"<{count}I", data, place))
    return list(zip(*columns, strict=True))
