"""Squares to train on: cut once from slides and tiles, kept as one flat array of bytes.

Decoding a slide costs far more than a training step, so every square is read once, at the scale the
networks see (1.0 um per px), and kept in the run's own folder; a repeated command finds it there.
Slides give squares of their tissue; tiles give the squares they hold, and a tile too small for one
square at that scale is kept finer, filling the square.

Frames: a crop is ``CROP_PX`` square; ``mpp`` says what one of its pixels covers.

Source
------
SISH, Methods, "VQ-VAE" trains on patches of the slides searched; which squares is ours.
"""

from __future__ import annotations

import csv
import dataclasses
import fnmatch
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from sish_cluster.core.errors import BadLabels, BadRequest, BadSlide
from sish_cluster.core.geometry import Box
from sish_cluster.core.slide import canonical_bytes, digest_of
from sish_cluster.encoder.artifacts import white_patches
from sish_cluster.encoder.catalogue import find_slides, read_labels, slide_name
from sish_cluster.encoder.image_file import Rgb
from sish_cluster.encoder.patching import patch_corners
from sish_cluster.encoder.slide import SlideReader, open_slide
from sish_cluster.encoder.tissue import tissue_of

CROP_PX = 256
"""Side of a stored crop, px: a quarter of a patch's area, four training squares of 128 px."""

TILE_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp")
"""Files of a tile folder that are read."""

PIXELS_FILE, RECORD_FILE = "crops.npy", "crops.json"
"""The pixels and, written last, what they are."""

Progress = Callable[[str, int, int], None]
"""Called with (slide or tile folder, done, total) files."""


@dataclasses.dataclass(frozen=True, slots=True)
class CropSettings:
    """Which squares are cut."""

    mpp: float = 1.0
    """Micrometres per px of a crop: what the compact key network sees."""
    slide_mpp: float = 0.5
    """Micrometres per level-0 px of a slide that states none: a 20x scan; training tolerates an error."""
    tile_mpp: float = 0.5
    """Micrometres per px of the tiles: 20x, as most published tile sets."""
    most_per_slide: int = 400
    """Crops of one slide at most, drawn evenly: a large section must not drown ten biopsies."""
    rng_seed: int = 0
    """Decides which crops of a large slide are drawn."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Crops:
    """Stored squares.

    Parameters
    ----------
    pixels
        uint8 (n, 256, 256, 3), RGB; mapped from the file.
    groups
        n patients, cases or sources: what is held out together.
    sources
        n slide names or tile files.
    mpps
        float64 (n,): um per px.
    identity
        Hex digest of the files and settings they were cut from.
    """

    pixels: npt.NDArray[np.uint8]
    groups: tuple[str, ...]
    sources: tuple[str, ...]
    mpps: npt.NDArray[np.float64]
    identity: str = ""

    def __len__(self) -> int:
        return len(self.groups)

    def rows_held_out(self, patterns: Sequence[str]) -> npt.NDArray[np.bool_]:
        """Return (n,): whether a crop's group matches one of the shell patterns."""
        held = [any(fnmatch.fnmatchcase(g, p) for p in patterns) for g in self.groups]
        return np.array(held, dtype=bool)


@dataclasses.dataclass(frozen=True, slots=True)
class _Place:
    """One file that gives crops."""

    path: Path
    name: str
    group: str
    mpp: float | None
    is_tile: bool


def cut_crops(
    folder: Path,
    *,
    slides: Path | None,
    tiles: Path | None,
    labels: Path | None = None,
    settings: CropSettings = CropSettings(),
    progress: Progress | None = None,
) -> Crops:
    """Return the crops of slides and tiles, cutting them into ``folder`` unless they are there.

    Parameters
    ----------
    folder
        Gets ``crops.npy`` (about 200 kB a crop) and ``crops.json``.
    slides
        Folder of slides; a slide that cannot be read is told and left out.
    tiles
        Folder of pictures; a ``labels.csv`` in it or above it (columns file, group) names groups,
        otherwise a tile's group is its folder.
    labels
        Labels table of the slides: patient is the group, mpp its scale. Without it each slide is its
        own group.

    Raises
    ------
    BadRequest
        If no crop comes of it.
    """
    places = [*_slide_places(slides, labels), *_tile_places(tiles)]
    identity = _identity(places, settings)
    found = _stored(folder, identity)
    if found is not None:
        return found
    tell = progress or (lambda what, done, total: None)
    kept, pixels = [], []
    for number, place in enumerate(places):
        tell(place.name, number, len(places))
        for crop, mpp in _crops_of(place, settings, tell):
            kept.append((place.group, place.name, mpp))
            pixels.append(crop)
    if not pixels:
        raise BadRequest(
            f"no square of {CROP_PX} px to train on came of {len(places)} files; give a folder of"
            " slides with tissue, or of tiles of 64 px and more",
            field="slides",
        )
    _store(folder, np.stack(pixels), {"identity": identity, "crops": kept})
    stored = _stored(folder, identity)
    assert stored is not None
    return stored


def _slide_places(folder: Path | None, labels: Path | None) -> list[_Place]:
    if folder is None:
        return []
    rows = read_labels(labels).rows if labels is not None else {}
    places = []
    for path in find_slides(folder):
        name = slide_name(path)
        row = rows.get(name)
        patient = row.slide.patient if row is not None else ""
        places.append(_Place(path, name, patient or name, row.mpp if row else None, False))
    return places


def _tile_places(folder: Path | None) -> list[_Place]:
    if folder is None:
        return []
    groups = _tile_groups(folder)
    files = sorted(f for f in folder.rglob("*") if f.suffix.lower() in TILE_SUFFIXES)
    return [
        _Place(path, str(path.relative_to(folder)), groups.get(path, path.parent.name), None, True)
        for path in files
    ]


def _tile_groups(folder: Path) -> dict[Path, str]:
    table = folder / "labels.csv"
    if not table.exists():
        return {}
    with table.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    if rows and not {"file", "group"} <= set(rows[0]):
        raise BadLabels(f"{table}: tiles are named by the columns file and group; found {rows[0]}")
    return {folder / row["file"]: row["group"] for row in rows}


def _crops_of(place: _Place, settings: CropSettings, tell: Progress) -> Iterator[tuple[Rgb, float]]:
    try:
        yield from _of_tile(place, settings) if place.is_tile else _of_slide(place, settings)
    except BadSlide as error:
        tell(f"{place.name} left out: {error}", 0, 0)


def _of_slide(place: _Place, settings: CropSettings) -> Iterator[tuple[Rgb, float]]:
    with _opened(place, settings) as reader:
        side = round(CROP_PX * settings.mpp / reader.mpp)
        corners = patch_corners(tissue_of(reader), slide_size=reader.size, side_px=side)
        rng = np.random.Generator(np.random.Philox(settings.rng_seed))
        n_kept = 0
        for row in rng.permutation(len(corners)):
            x, y = (int(v) for v in corners[row])
            crop = reader.region(Box(x, y, x + side, y + side), side_px=CROP_PX)
            if n_kept < settings.most_per_slide and not white_patches(crop[None])[0]:
                n_kept += 1
                yield crop, settings.mpp
            if n_kept == settings.most_per_slide:
                return


def _opened(place: _Place, settings: CropSettings) -> SlideReader:
    try:
        return open_slide(place.path, mpp=place.mpp)
    except BadSlide:
        if place.mpp is not None:
            raise
        return open_slide(place.path, mpp=settings.slide_mpp)


def _of_tile(place: _Place, settings: CropSettings) -> Iterator[tuple[Rgb, float]]:
    picture = cv2.imread(str(place.path), cv2.IMREAD_COLOR)
    if picture is None:
        raise BadSlide(f"{place.path}: is no picture OpenCV reads; remove it or convert it")
    tile = np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), np.uint8)
    shrink = min(1.0, settings.tile_mpp / settings.mpp)
    if min(tile.shape[:2]) * shrink < CROP_PX:
        side = min(tile.shape[:2])
        square = tile[:side, :side]
        yield _scaled(square, CROP_PX, CROP_PX), settings.tile_mpp * side / CROP_PX
        return
    scaled = _scaled(tile, round(tile.shape[0] * shrink), round(tile.shape[1] * shrink))
    for top in range(0, scaled.shape[0] - CROP_PX + 1, CROP_PX):
        for left in range(0, scaled.shape[1] - CROP_PX + 1, CROP_PX):
            yield scaled[top : top + CROP_PX, left : left + CROP_PX], settings.tile_mpp / shrink


def _scaled(picture: Rgb, height: int, width: int) -> Rgb:
    how = cv2.INTER_AREA if height <= picture.shape[0] else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(picture, (width, height), interpolation=how), np.uint8)


def _identity(places: Sequence[_Place], settings: CropSettings) -> str:
    files = [
        [place.name, place.group, place.mpp, place.path.stat().st_size, place.is_tile]
        for place in places
    ]
    return digest_of(canonical_bytes({"files": files, **dataclasses.asdict(settings)}))


def _store(folder: Path, pixels: npt.NDArray[np.uint8], record: dict[str, object]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RECORD_FILE).unlink(missing_ok=True)
    np.save(folder / PIXELS_FILE, pixels)
    (folder / RECORD_FILE).write_text(json.dumps(record), "utf-8")


def _stored(folder: Path, identity: str) -> Crops | None:
    """Return the crops in a folder if they are those of ``identity``."""
    if not (folder / RECORD_FILE).exists():
        return None
    record = json.loads((folder / RECORD_FILE).read_text("utf-8"))
    if record["identity"] != identity:
        return None
    groups, sources, mpps = zip(*record["crops"], strict=True)
    pixels = np.load(folder / PIXELS_FILE, mmap_mode="r", allow_pickle=False)
    return Crops(pixels, groups, sources, np.array(mpps, dtype=np.float64), identity)
