"""Write a picture as a DICOM whole slide image: one file a level, as scanners that speak DICOM do.

Only what a reader needs is written: who belongs together (the series), how large a level is, how its JPEG
frames tile it, and the micrometres between pixels. A label picture can be added, because real series have one.

Source
------
DICOM PS3.3, "VL Whole Slide Microscopy Image"; PS3.5, section 7 (explicit VR, little-endian) and A.4
(encapsulated frames); PS3.10, section 7 (the file's head).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np

from sish_cluster.core.seams import Pixels
from sish_cluster.testing.pyramid import TILE_PX, levels_of, tile_jpegs

SLIDE_CLASS = "1.2.840.10008.5.1.4.1.1.77.1.6"
"""VL Whole Slide Microscopy Image Storage."""

EXPLICIT, JPEG = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.4.50"
"""Transfer syntaxes: explicit little-endian; the same with JPEG baseline frames."""

ROOT = "1.2.826.0.1.3680043.10.9999"
"""Root of the made-up identifiers."""

LONG_LENGTHS = frozenset({"OB", "SQ", "UN"})
"""Value representations whose length takes four bytes."""

Element = bytes
"""One encoded data element."""


def write_dicom(
    folder: Path, pixels: Pixels, *, mpp: float, series: int = 1, label: Pixels | None = None
) -> Path:
    """Write level-0 pixels (h, w, 3) as a series of files, one a level, and return their folder.

    Parameters
    ----------
    folder
        Where they go; made if it is not there.
    pixels
        Level 0, uint8 (h, w, 3).
    mpp
        Micrometres per level-0 px.
    series
        Number of the series; slides of one folder differ in it.
    label
        A label picture, uint8 (h, w, 3), written as a further file that comes first by name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for number, level in enumerate(levels_of(pixels)):
        kind = (
            "ORIGINAL\\PRIMARY\\VOLUME\\NONE"
            if number == 0
            else "DERIVED\\PRIMARY\\VOLUME\\RESAMPLED"
        )
        spacing_um = mpp * pixels.shape[1] / level.shape[1]
        uid = f"{ROOT}.{series}.{number + 1}"
        content = _slide_file(level, uid, f"{ROOT}.{series}", kind, spacing_um)
        (folder / f"level-{number}.dcm").write_bytes(content)
    if label is not None:
        uid = f"{ROOT}.{series}.99"
        content = _slide_file(
            label, uid, f"{ROOT}.{series}", "ORIGINAL\\PRIMARY\\LABEL\\NONE", 50.0
        )
        (folder / "a-label.dcm").write_bytes(content)
    return folder


def _slide_file(level: Pixels, uid: str, series_uid: str, kind: str, spacing_um: float) -> bytes:
    height, width = level.shape[:2]
    is_label = "LABEL" in kind
    frames = [_jpeg(level)] if is_label else tile_jpegs(level)
    rows, columns = (height, width) if is_label else (TILE_PX, TILE_PX)
    spacing = f"{spacing_um / 1000:.8f}"
    measures = _sequence(0x0028, 0x9110, _text(0x0028, 0x0030, "DS", f"{spacing}\\{spacing}"))
    body = [
        _text(0x0008, 0x0008, "CS", kind),
        _text(0x0008, 0x0016, "UI", SLIDE_CLASS),
        _text(0x0008, 0x0018, "UI", uid),
        _text(0x0008, 0x0060, "CS", "SM"),
        _text(0x0020, 0x000D, "UI", f"{series_uid}.1000"),
        _text(0x0020, 0x000E, "UI", series_uid),
        _text(0x0020, 0x0052, "UI", f"{series_uid}.1001"),
        _text(0x0020, 0x9311, "CS", "TILED_FULL"),
        _short(0x0028, 0x0002, 3),  # samples per pixel
        _text(0x0028, 0x0004, "CS", "YBR_FULL_422"),
        _short(0x0028, 0x0006, 0),  # colours interleaved
        _text(0x0028, 0x0008, "IS", str(len(frames))),
        _short(0x0028, 0x0010, rows),
        _short(0x0028, 0x0011, columns),
        _short(0x0028, 0x0100, 8),  # bits allocated
        _short(0x0028, 0x0101, 8),  # bits stored
        _short(0x0028, 0x0102, 7),  # highest bit
        _short(0x0028, 0x0103, 0),  # unsigned
        _element(0x0048, 0x0006, "UL", struct.pack("<I", width)),
        _element(0x0048, 0x0007, "UL", struct.pack("<I", height)),
        _element(0x0048, 0x0303, "UL", struct.pack("<I", 1)),  # focal planes
        _sequence(0x5200, 0x9229, measures),
        _frames(frames),
    ]
    return _head(uid, JPEG) + b"".join(body)


def _head(uid: str, syntax: str) -> bytes:
    meta = b"".join(
        [
            _element(0x0002, 0x0001, "OB", b"\0\1"),
            _text(0x0002, 0x0002, "UI", SLIDE_CLASS),
            _text(0x0002, 0x0003, "UI", uid),
            _text(0x0002, 0x0010, "UI", syntax),
            _text(0x0002, 0x0012, "UI", f"{ROOT}.0"),
        ]
    )
    return (
        bytes(128) + b"DICM" + _element(0x0002, 0x0000, "UL", struct.pack("<I", len(meta))) + meta
    )


def _element(group: int, number: int, kind: str, value: bytes) -> Element:
    head = struct.pack("<HH", group, number) + kind.encode()
    value += b"\0" * (len(value) % 2)
    if kind in LONG_LENGTHS:
        return head + struct.pack("<HI", 0, len(value)) + value
    return head + struct.pack("<H", len(value)) + value


def _text(group: int, number: int, kind: str, text: str) -> Element:
    filler = "\0" if kind == "UI" else " "
    return _element(group, number, kind, (text + filler * (len(text) % 2)).encode())


def _short(group: int, number: int, value: int) -> Element:
    return _element(group, number, "US", struct.pack("<H", value))


def _sequence(group: int, number: int, content: Element) -> Element:
    """Return a sequence of one item."""
    return _element(
        group, number, "SQ", struct.pack("<HHI", 0xFFFE, 0xE000, len(content)) + content
    )


def _frames(frames: Iterable[bytes]) -> Element:
    """Return the pixel data: an empty table of offsets, then one fragment a frame, then the end."""
    items = [b"", *(frame + b"\0" * (len(frame) % 2) for frame in frames)]
    packed = b"".join(struct.pack("<HHI", 0xFFFE, 0xE000, len(item)) + item for item in items)
    head = struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OB", 0, 0xFFFFFFFF)
    return head + packed + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)


def _jpeg(picture: Pixels) -> bytes:
    return cv2.imencode(".jpg", np.ascontiguousarray(picture[..., ::-1]))[1].tobytes()
