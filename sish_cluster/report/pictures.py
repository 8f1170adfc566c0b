"""Pictures cut from slide files: thumbnails with boxes, and single patches, as JPEG data URIs.

A slide's file may be elsewhere, or unreadable here: the picture then says so in its place, and the page
is complete without it.
"""

from __future__ import annotations

import base64
import dataclasses
import functools
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sish_cluster.core.errors import SishError
from sish_cluster.core.geometry import Box, patch_side_px_of
from sish_cluster.core.slide import Slide
from sish_cluster.report.model import BoxView, PictureView

if TYPE_CHECKING:
    from sish_cluster.encoder.slide import SlideReader

JPEG_QUALITY = 82
"""Of 100: stains keep their colour, a 320 px thumbnail is about 20 KB."""


@dataclasses.dataclass(frozen=True, slots=True)
class SlideFile:
    """Where a slide's file is, and the mpp to read it with when it states none."""

    path: Path
    mpp: float | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Square:
    """A patch's upper left corner (level-0 pixels) and the text beside its box."""

    corner: tuple[int, int]
    text: str


class SlideFiles:
    """Slides' files by slide id, opened once each; a context manager.

    Parameters
    ----------
    files
        Slide id -> file. A slide that is not here gets no pictures, and the page says so.
    """

    def __init__(self, files: Mapping[str, SlideFile]) -> None:
        self._files = dict(files)
        self._opened: dict[str, SlideReader | str] = {}

    def __enter__(self) -> SlideFiles:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Close every file."""
        readers, self._opened = list(self._opened.values()), {}
        for reader in readers:
            if not isinstance(reader, str):
                reader.close()
        self.patch.cache_clear()

    def thumbnail(self, slide: Slide, squares: Iterable[Square], *, side_px: int) -> PictureView:
        """Return the slide, its longer side at most ``side_px``, with squares over it."""
        reader = self._reader(slide)
        if isinstance(reader, str):
            return PictureView("", reader)
        try:
            pixels = reader.thumbnail(side_px)
        except SishError as error:
            return PictureView("", f"No picture of {slide.slide_id}: {error.message}")
        side = _patch_side_px(slide, reader)
        boxes = [BoxView(*square.corner, side, square.text) for square in _merged(squares)]
        alt = f"Slide {slide.slide_id}" + _patches_named(boxes)
        height, width = pixels.shape[:2]
        frame = (reader.size.width, reader.size.height)
        return PictureView(_jpeg_uri(pixels), alt, width, height, boxes, frame)

    @functools.lru_cache(maxsize=256)  # noqa: B019 - cleared by `close`; lives as long as the page
    def patch(self, slide_id: str, corner: tuple[int, int], side: int, side_px: int) -> PictureView:
        """Return one patch as ``side_px`` pixels a side; ``side`` (level-0 pixels) 0 takes the mpp's."""
        reader = self._reader(Slide(slide_id, patch_side_px=side))
        if isinstance(reader, str):
            return PictureView("", reader)
        side = side or patch_side_px_of(reader.mpp)
        box = Box(corner[0], corner[1], corner[0] + side, corner[1] + side)
        try:
            pixels = reader.region(box, side_px=side_px)
        except SishError as error:
            return PictureView("", f"No picture of a patch of {slide_id}: {error.message}")
        alt = f"Patch of {slide_id} at ({corner[0]}, {corner[1]})"
        return PictureView(_jpeg_uri(pixels), alt, side_px, side_px)

    def _reader(self, slide: Slide) -> SlideReader | str:
        """Return the slide's reader, or why there is none."""
        slide_id = slide.slide_id
        if slide_id not in self._opened:
            self._opened[slide_id] = self._opened_reader(slide_id)
        return self._opened[slide_id]

    def _opened_reader(self, slide_id: str) -> SlideReader | str:
        file = self._files.get(slide_id)
        if file is None:
            return f"No picture: the file of slide {slide_id} is not known here."
        if not file.path.exists():
            return f"No picture: {file.path} is not there."
        try:
            from sish_cluster.encoder.slide import open_slide

            return open_slide(file.path, mpp=file.mpp)
        except SishError as error:
            return f"No picture: {error.message}"
        except ModuleNotFoundError as error:
            return f"No picture: {error.name} is not installed (the extra 'encoder' has it)."


def _patch_side_px(slide: Slide, reader: SlideReader) -> int:
    return slide.patch_side_px or patch_side_px_of(reader.mpp)


def _merged(squares: Iterable[Square]) -> list[Square]:
    """Return one square per corner, the texts of equal corners joined."""
    texts: dict[tuple[int, int], list[str]] = {}
    for square in squares:
        at_corner = texts.setdefault(square.corner, [])
        if square.text not in at_corner:
            at_corner.append(square.text)
    return [Square(corner, ", ".join(names)) for corner, names in texts.items()]


def _patches_named(boxes: Sequence[BoxView]) -> str:
    if not boxes:
        return ""
    return f", boxes at matched patches {', '.join(box.text for box in boxes)}"


def _jpeg_uri(pixels: Any) -> str:
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=JPEG_QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()
