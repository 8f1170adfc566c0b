"""Patches that know where they lie: what spatial and contrastive training read.

Each patch is cut once, from the tissue of a slide or from a file of a tile folder, and kept in the run's
own folder as one flat file of pixels, with the number of its slide and its place there. Places are
in patch sides, so that grid neighbours are 1 apart whatever the magnification.

Frames: places are (column, row) in patch sides; tiles without a known place have NaN, and no neighbours.

Source
------
SSLP, "Implementation details" (patches with their coordinates); RetCCL (256 px at 1.0 um per px).
"""

from __future__ import annotations

import csv
import dataclasses
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from sish_cluster.core.errors import BadLabels, BadRequest, BadSlide
from sish_cluster.core.geometry import Box, patch_side_px_of
from sish_cluster.core.slide import canonical_bytes, digest_of
from sish_cluster.encoder.artifacts import white_patches
from sish_cluster.encoder.catalogue import find_slides, read_labels, slide_name
from sish_cluster.encoder.image_file import Rgb
from sish_cluster.encoder.patching import patch_corners
from sish_cluster.encoder.slide import SlideReader, open_slide
from sish_cluster.encoder.tissue import tissue_of

PIXELS_FILE, RECORD_FILE = "patches.bin", "patches.json"
"""Flat pixels and, written last, what they are."""

TILE_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp")
"""Files of a tile folder that are read."""

PLACE_IN_NAME = re.compile(r"[_-]x(\d+)[_-]y(\d+)")
"""A tile's corner in its file name, px of the tile's own scale: ``slide_x512_y1024.png``."""

Progress = Callable[[str, int, int], None]
"""Called with (file, done, total)."""

Found = tuple[Rgb, float, float]
"""A patch, its column and its row."""


@dataclasses.dataclass(frozen=True, slots=True)
class PlaceSettings:
    """Which patches are cut."""

    side_px: int = 256
    """Side of a stored patch, px (RetCCL)."""
    field_um: float = 256.0
    """Side of a patch on a slide, um: 1.0 um per px (RetCCL)."""
    slide_mpp: float = 0.5
    """Micrometres per level-0 px of a slide that states none: a 20x scan."""
    tile_step_px: float = 0.0
    """Distance of neighbouring tiles in the px their corners are given in; 0 takes a tile's width."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class PlacedPatches:
    """Stored patches.

    Parameters
    ----------
    pixels
        uint8 (n, side, side, 3), RGB; mapped from the file.
    slides
        int64 (n,): number of each patch's slide.
    places
        float64 (n, 2): (column, row) in patch sides, NaN where unknown.
    names
        Slide names by number.
    identity
        Digest of the files and settings.
    """

    pixels: npt.NDArray[np.uint8]
    slides: npt.NDArray[np.int64]
    places: npt.NDArray[np.float64]
    names: tuple[str, ...]
    identity: str

    def __len__(self) -> int:
        return len(self.slides)


@dataclasses.dataclass(frozen=True, slots=True)
class _Source:
    """One file to cut: a slide, or a tile of one."""

    path: Path
    slide: str
    mpp: float | None
    is_tile: bool
    place: tuple[float, float] | None = None
    is_grid_place: bool = False
    """Whether the place is a column and a row, not px."""


def cut_placed(
    folder: Path,
    *,
    slides: Path | None = None,
    tiles: Path | None = None,
    labels: Path | None = None,
    settings: PlaceSettings = PlaceSettings(),
    progress: Progress | None = None,
) -> PlacedPatches:
    """Return the patches of slides and tiles, cutting them into ``folder`` unless they are there.

    Parameters
    ----------
    folder
        Gets ``patches.bin`` (side x side x 3 bytes a patch) and ``patches.json``.
    slides
        Folder of slides; one that cannot be read is told and left out.
    tiles
        Folder of pictures. A ``labels.csv`` in it or above it has the column ``file`` and may have
        ``slide`` (else ``group``, else the tile's folder) and ``x``, ``y`` or ``column``, ``row``; a corner is
        also read from names like ``slide_x512_y1024.png``.
    labels
        Labels table of the slides, for their mpp.
    settings
        Which patches.
    progress
        Told about every file.

    Raises
    ------
    BadRequest
        If no patch comes of it.
    BadLabels
        If a table's place is no number.
    """
    sources = [*_slide_sources(slides, labels), *_tile_sources(tiles)]
    identity = _identity(sources, settings)
    found = _stored(folder, identity)
    if found is not None:
        return found
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RECORD_FILE).unlink(missing_ok=True)
    kept = _cut(
        folder / PIXELS_FILE, sources, settings, progress or (lambda what, done, total: None)
    )
    if not kept:
        raise BadRequest(
            f"no patch to train on came of {len(sources)} files; give a folder of slides with"
            " tissue, or of tiles",
            field="slides",
        )
    record = {"identity": identity, "side_px": settings.side_px, "patches": kept}
    (folder / RECORD_FILE).write_text(json.dumps(record), "utf-8")
    stored = _stored(folder, identity)
    assert stored is not None
    return stored


def _cut(
    path: Path, sources: Sequence[_Source], settings: PlaceSettings, tell: Progress
) -> list[tuple[str, float | None, float | None]]:
    """Write the pixels of all patches one behind the other; return slide, column, row of each."""
    kept: list[tuple[str, float | None, float | None]] = []
    with path.open("wb") as file:
        for number, source in enumerate(sources):
            tell(source.path.name, number, len(sources))
            try:
                for patch, column, row in _patches_of(source, settings):
                    file.write(np.ascontiguousarray(patch).tobytes())
                    kept.append((source.slide, _plain(column), _plain(row)))
            except BadSlide as error:
                tell(f"{source.path.name} left out: {error}", number, len(sources))
    return kept


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else value


def _patches_of(source: _Source, settings: PlaceSettings) -> Iterator[Found]:
    if source.is_tile:
        yield _tile(source, settings)
        return
    with _opened(source, settings) as reader:
        side = patch_side_px_of(reader.mpp, settings.field_um)
        for x, y in patch_corners(tissue_of(reader), slide_size=reader.size, side_px=side):
            box = Box(int(x), int(y), int(x) + side, int(y) + side)
            patch = reader.region(box, side_px=settings.side_px)
            if not white_patches(patch[None])[0]:
                yield patch, x / side, y / side


def _opened(source: _Source, settings: PlaceSettings) -> SlideReader:
    try:
        return open_slide(source.path, mpp=source.mpp)
    except BadSlide:
        if source.mpp is not None:
            raise
        return open_slide(source.path, mpp=settings.slide_mpp)


def _tile(source: _Source, settings: PlaceSettings) -> Found:
    picture = cv2.imread(str(source.path), cv2.IMREAD_COLOR)
    if picture is None:
        raise BadSlide(f"{source.path}: is no picture OpenCV reads; remove it or convert it")
    side = min(picture.shape[:2])
    square = np.asarray(cv2.cvtColor(picture[:side, :side], cv2.COLOR_BGR2RGB), np.uint8)
    how = cv2.INTER_AREA if side >= settings.side_px else cv2.INTER_LINEAR
    patch = cv2.resize(square, (settings.side_px, settings.side_px), interpolation=how)
    if source.place is None:
        return np.asarray(patch, np.uint8), np.nan, np.nan
    step = 1.0 if source.is_grid_place else settings.tile_step_px or side
    return np.asarray(patch, np.uint8), source.place[0] / step, source.place[1] / step


def _slide_sources(folder: Path | None, labels: Path | None) -> list[_Source]:
    if folder is None:
        return []
    rows = read_labels(labels).rows if labels is not None else {}
    found = []
    for path in find_slides(folder):
        name = slide_name(path)
        found.append(_Source(path, name, rows[name].mpp if name in rows else None, False))
    return found


def _tile_sources(folder: Path | None) -> list[_Source]:
    if folder is None:
        return []
    rows = _tile_rows(folder)
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in TILE_SUFFIXES)
    return [_tile_source(file, rows.get(file, {})) for file in files]


def _tile_source(file: Path, row: Mapping[str, str]) -> _Source:
    slide = row.get("slide") or row.get("group") or file.parent.name
    named = PLACE_IN_NAME.search(file.stem)
    try:
        for across, down in (("x", "y"), ("column", "row")):
            if row.get(across) and row.get(down):
                place = (float(row[across]), float(row[down]))
                return _Source(file, slide, None, True, place, across == "column")
    except ValueError as error:
        raise BadLabels(
            f"{file}: a tile's place is two numbers; {error}. Correct its row"
        ) from error
    place_in_name = (float(named[1]), float(named[2])) if named else None
    return _Source(file, slide, None, True, place_in_name)


def _tile_rows(folder: Path) -> dict[Path, dict[str, str]]:
    """Return each tile's row of the table in the folder or the one above it."""
    for top in (folder, folder.parent):
        table = top / "labels.csv"
        if not table.is_file():
            continue
        with table.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        if rows and "file" not in rows[0]:
            raise BadLabels(
                f"{table}: tiles are named by a column file; found {', '.join(rows[0])}"
            )
        return {top / row["file"]: row for row in rows}
    return {}


def _identity(sources: Sequence[_Source], settings: PlaceSettings) -> str:
    files = [
        [s.path.name, s.slide, s.mpp, list(s.place or ()), s.path.stat().st_size, s.is_tile]
        for s in sources
    ]
    return digest_of(canonical_bytes({"files": files, **dataclasses.asdict(settings)}))


def _stored(folder: Path, identity: str) -> PlacedPatches | None:
    """Return the patches in a folder if they are those of ``identity``."""
    if not (folder / RECORD_FILE).exists():
        return None
    record = json.loads((folder / RECORD_FILE).read_text("utf-8"))
    if record["identity"] != identity:
        return None
    slides, columns, rows = zip(*record["patches"], strict=True)
    names, numbers = np.unique(np.array(slides), return_inverse=True)
    side = record["side_px"]
    pixels = np.memmap(folder / PIXELS_FILE, np.uint8, mode="r", shape=(len(slides), side, side, 3))
    places = np.array([columns, rows], dtype=np.float64).T
    return PlacedPatches(pixels, numbers.astype(np.int64), places, tuple(map(str, names)), identity)
