"""A folder of tiles as slides of one patch each: patch retrieval, on images of any size.

Public patch data sets are folders of small images with a table of labels. Each image becomes an encoded
slide with one patch, so that everything made for slides (collections, filters, ranking, evaluation) works on
them. Both networks see the image resized to the profile's side.

Notes
-----
Why resized: on 740 tiles of 224 px (three kinds of lung tissue, leave-group-out, by the 1024-bit code) the nearest
tile and the majority of five are of the right kind for

======================  =======  ================
texture network sees    nearest  majority of five
======================  =======  ================
224 px (the own size)   0.928    0.943
256 px                  0.930    0.935
512 px                  0.939    0.953
======================  =======  ================

An image that is not square is cut to its centre square.
"""

from __future__ import annotations

import collections
import csv
import dataclasses
import io
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from sish_cluster.core.code import codes_of
from sish_cluster.core.errors import BadLabels, BadSlide, SishError
from sish_cluster.core.key import spread_keys
from sish_cluster.core.posting import EncodedSlide, PatchColumns
from sish_cluster.core.slide import NAMED_LABELS, Slide, canonical_bytes, digest_of
from sish_cluster.encoder.outcome import EncodeFailure, unexpected
from sish_cluster.encoder.pipeline import Encoder
from sish_cluster.encoder.stain import stain_of

TILE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"})
"""Names taken for tiles, lower case."""

MIN_SIDE_PX = 32
"""Smallest side, px: the networks halve an image five times."""

MAX_OWN_SIDE_PX = 1024
"""Largest side the texture network is shown when it sees an image's own size, px: the published input's."""

COLUMNS = {
    "name": ("patch", "name", "file"),
    "diagnosis": ("label", "diagnosis"),
    "patient": ("patient", "group"),
}
"""What a table's columns may be called; the first that is there counts."""


@dataclasses.dataclass(frozen=True, slots=True)
class TileSettings:
    """How an image becomes what the networks see."""

    texture_side_px: int | None = None
    """Side of the texture network's input, px; None for the profile's, 0 for the image's own."""
    readers: int = 2
    """Threads that read and encode; the answer does not depend on it."""


@dataclasses.dataclass(frozen=True, slots=True)
class Tile:
    """One image of a folder, and who it is; ``problem`` says why it cannot be used."""

    path: Path
    slide: Slide
    problem: str = ""


def tile_fingerprint(encoder: Encoder, settings: TileSettings = TileSettings()) -> str:
    """Return the fingerprint of tiles encoded so: the encoder's, and how images are fitted to it."""
    fitted = {"tiles": 1, "texture_side_px": _texture_side(encoder, settings)}
    return digest_of(encoder.fingerprint.encode(), canonical_bytes(fitted))


def _texture_side(encoder: Encoder, settings: TileSettings) -> int:
    if settings.texture_side_px is None:
        return encoder.settings.profile.side_px
    return settings.texture_side_px


def encoded_tiles(
    folder: Path,
    table: Path | None,
    encoder: Encoder,
    *,
    settings: TileSettings = TileSettings(),
    progress: Callable[[int, int], None] | None = None,
    is_known: Callable[[Tile], bool] = lambda tile: False,
) -> Iterator[EncodedSlide | EncodeFailure]:
    """Yield every tile of a folder as a one-patch slide, or what is wrong with it, in slide id order.

    Parameters
    ----------
    folder
        Searched with its subfolders; a slide id is the path below it without suffix.
    table
        CSV with a column ``patch``, ``name`` or ``file`` (path relative to the folder or to the table, or a
        bare name; the suffix may be missing), ``label`` or ``diagnosis``, and, if wanted,
        ``patient`` or ``group``, ``site``, ``institution`` and others, which become extra labels. Rows
        of files outside the folder are left out. None takes the parent folder's name for the label.
    encoder
        Its key network may be missing; keys then only spread the tiles over shards.
    settings
        How images are fitted to the networks.
    progress
        Called with (tiles done, tiles in all) on this thread.
    is_known
        Tells tiles that need no encoding: they are neither yielded nor counted.

    Raises
    ------
    BadSlide
        If there is no such folder, or it holds no tiles.
    BadLabels
        If the table cannot be read, lacks a column, or names a tile twice.

    Notes
    -----
    Closing the iterator stops after the tiles that are being encoded.
    """
    tiles = [tile for tile in tiles_of(folder, table) if not is_known(tile)]
    fingerprint = tile_fingerprint(encoder, settings)
    waiting: collections.deque[Future[EncodedSlide | EncodeFailure]] = collections.deque()
    done = 0
    with ThreadPoolExecutor(settings.readers, "sish-tiles") as pool:
        for tile in [*tiles, *[None] * settings.readers]:
            if tile is not None:
                waiting.append(pool.submit(_outcome, tile, encoder, settings, fingerprint))
            if waiting and (tile is None or len(waiting) > settings.readers):
                yield waiting.popleft().result()
                done += 1
                if progress is not None:
                    progress(done, len(tiles))


def tiles_of(folder: Path, table: Path | None) -> list[Tile]:
    """Return the tiles of a folder with their labels, in slide id order; see `encoded_tiles`."""
    if not folder.is_dir():
        raise BadSlide(f"{folder}: there is no such folder of tiles; check the path")
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in TILE_SUFFIXES)
    if not files:
        raise BadSlide(f"{folder}: holds no tiles ({', '.join(sorted(TILE_SUFFIXES))})")
    if table is None:
        tiles = [Tile(f, Slide(_name(f, folder), diagnosis=f.parent.name)) for f in files]
    else:
        tiles = _labelled(folder, files, table)
    return sorted(tiles, key=lambda tile: tile.slide.slide_id)


def _name(file: Path, folder: Path) -> str:
    return file.relative_to(folder).with_suffix("").as_posix()


def _labelled(folder: Path, files: list[Path], table: Path) -> list[Tile]:
    rows = _rows_of(table)
    places = _places_of(folder, files, table)
    tiles: list[Tile] = []
    taken: dict[Path, int] = {}
    for line, row in rows:
        name = row.pop("name")
        file = places.get(name) or places.get(Path(name).with_suffix("").as_posix())
        if file is None:
            if not _is_elsewhere(folder, table, name):
                tiles.append(_lost(folder, name, f"{table} line {line}: no such tile in {folder}"))
            continue
        if file in taken:
            raise BadLabels(
                f"{table}: {name!r} is named on lines {taken[file]} and {line}; keep one"
            )
        taken[file] = line
        tiles.append(Tile(file, _slide_of(_name(file, folder), row)))
    tiles += [_lost(folder, f, f"has no row in {table}") for f in files if f not in taken]
    return tiles


def _places_of(folder: Path, files: list[Path], table: Path) -> dict[str, Path]:
    """Return every name a table may give a file: with or without folders and suffix."""
    places: dict[str, Path] = {}
    bare = collections.Counter(name for f in files for name in {f.name, f.stem})
    top = table.resolve().parent
    for file in files:
        roots = [folder] if not file.resolve().is_relative_to(top) else [folder, top]
        for root in roots:
            whole = (file if root == folder else file.resolve()).relative_to(root)
            places[whole.as_posix()] = places[whole.with_suffix("").as_posix()] = file
        for name in (file.name, file.stem):
            if bare[name] == 1:
                places.setdefault(name, file)
    return places


def _is_elsewhere(folder: Path, table: Path, name: str) -> bool:
    """Whether a row's file is there, but outside the folder: a table may serve several folders."""
    place = (table.resolve().parent / name).resolve()
    return place.is_file() and not place.is_relative_to(folder.resolve())


def _lost(folder: Path, what: str | Path, problem: str) -> Tile:
    name = what if isinstance(what, str) else _name(what, folder)
    return Tile(folder / name if isinstance(what, str) else what, Slide(name or "?"), problem)


def _rows_of(table: Path) -> list[tuple[int, dict[str, str]]]:
    """Return (line, cells) of a table, its three known columns under their own names."""
    try:
        text = table.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise BadLabels(f"{table}: the table of tiles cannot be read: {error}") from error
    delimiter = max(",;\t", key=text.partition("\n")[0].count)
    reader = csv.DictReader(io.StringIO(text), delimiter=delimiter, restval="")
    headings = [(heading or "").strip().lower() for heading in reader.fieldnames or []]
    found = {
        known: next((name for name in names if name in headings), None)
        for known, names in COLUMNS.items()
    }
    for known in ("name", "diagnosis"):
        if found[known] is None:
            raise BadLabels(
                f"{table}: lacks a column {' or '.join(COLUMNS[known])}; found"
                f" {', '.join(headings) or 'nothing'}. The first line names the columns:"
                " patch,label[,patient]"
            )
    own = {column: known for known, column in found.items() if column}
    reader.fieldnames = [own.get(heading, heading) for heading in headings]
    rows = []
    for cells in reader:
        clean = {k: v.strip() for k, v in cells.items() if k and isinstance(v, str)}
        if any(clean.values()):
            rows.append((reader.line_num, {"name": "", **clean}))
    return rows


def _slide_of(name: str, cells: Mapping[str, str]) -> Slide:
    patient, site, diagnosis, institution = (cells.get(label, "") for label in NAMED_LABELS)
    extras = {k: v for k, v in cells.items() if k not in NAMED_LABELS and v}
    if "slide" in extras:  # of the slide the tile was cut from; "slide" itself is the tile's name
        extras["source_slide"] = extras.pop("slide")
    return Slide(name, patient, site, diagnosis, institution, extras)


def _outcome(
    tile: Tile, encoder: Encoder, settings: TileSettings, fingerprint: str
) -> EncodedSlide | EncodeFailure:
    try:
        if tile.problem:
            raise BadSlide(f"{tile.path}: {tile.problem}")
        return _encoded(tile, encoder, settings, fingerprint)
    except SishError as error:
        return EncodeFailure(tile.slide.slide_id, tile.path, error)
    except Exception as error:
        return EncodeFailure(tile.slide.slide_id, tile.path, unexpected(str(tile.path), error))


def _encoded(
    tile: Tile, encoder: Encoder, settings: TileSettings, fingerprint: str
) -> EncodedSlide:
    content = tile.path.read_bytes()
    scanned = _square(tile.path, content)
    pixels = stain_of(encoder.settings.stain, scanned[None]).applied(scanned[None])[0]
    side = len(pixels)
    texture_side = _texture_side(encoder, settings) or min(side, MAX_OWN_SIDE_PX)
    embedding = encoder.embedder.embeddings_of(_resized(pixels, texture_side)[None])
    number = np.zeros(1, np.uint32)
    if encoder.keying is None:
        keys = spread_keys(tile.slide.slide_id, number)
    else:
        keys = encoder.keying.keys_of(_resized(pixels, encoder.keying.size.side_px)[None])
    slide = dataclasses.replace(
        tile.slide, width_px=side, height_px=side, patch_side_px=side, digest=digest_of(content)
    )
    patches = PatchColumns.of(keys, codes_of(embedding), embeddings=embedding)
    return EncodedSlide.whole(slide, patches, fingerprint)


def _square(path: Path, content: bytes) -> npt.NDArray[np.uint8]:
    """Return an image's centre square, uint8 (side, side, 3), white where it is transparent."""
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(content)) as picture:
            ground = Image.new("RGBA", picture.size, "white")
            whole = Image.alpha_composite(ground, picture.convert("RGBA")).convert("RGB")
    except Exception as error:  # PIL raises whatever its decoders do when bytes are damaged.
        reason = str(error).split(" <")[0]  # Not the address of our buffer.
        raise BadSlide(f"{path}: cannot be decoded as an image: {reason}") from error
    pixels = np.asarray(whole, np.uint8)
    height, width = pixels.shape[:2]
    side = min(height, width)
    if side < MIN_SIDE_PX:
        raise BadSlide(
            f"{path}: has {width} x {height} px; a tile has at least {MIN_SIDE_PX} a side"
        )
    top, left = (height - side) // 2, (width - side) // 2
    return np.ascontiguousarray(pixels[top : top + side, left : left + side])


def _resized(pixels: npt.NDArray[np.uint8], side_px: int) -> npt.NDArray[np.uint8]:
    if len(pixels) == side_px:
        return pixels
    how = cv2.INTER_AREA if len(pixels) > side_px else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(pixels, (side_px, side_px), interpolation=how), np.uint8)
