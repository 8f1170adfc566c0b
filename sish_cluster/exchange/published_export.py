"""A collection as the published tools' files: texture codes, corners, the database, the labels.

::

    DIR/LATENT/SITE/DIAGNOSIS/20x/densenet/SLIDE.pkl       texts of '0' and '1'
    DIR/MOSAICS/SITE/DIAGNOSIS/20x/coord_clean/SLIDE.h5    coords
    DIR/PATCHES/SITE/DIAGNOSIS/20x/patches/SLIDE.h5        coords of the mosaic, patch_size, patch_level
    DIR/index_meta/meta.pkl                                key -> postings, keys ascending
    DIR/labels.csv                                         every label, for `sish import --labels`

Not written: ``vqvae/*.h5``, because a latent cannot be had back from its key; embeddings, which published files
have no place for; patches outside the mosaic, which a collection does not keep.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from sish_cluster.core.code import Codes
from sish_cluster.core.collection import Collection
from sish_cluster.core.errors import BadRequest
from sish_cluster.core.posting import Corners, EncodedSlide, PatchColumns
from sish_cluster.core.slide import NAMED_LABELS, Slide
from sish_cluster.exchange.h5_files import COORDS, h5py_module
from sish_cluster.exchange.latent_files import COORD_CLEAN, DENSENET
from sish_cluster.exchange.pickle_stream import empty_folder, write_pickle, write_pickled_items
from sish_cluster.exchange.published_codes import texts_of_codes

UNKNOWN_FOLDER = "unknown"
"""Folder of slides whose site or diagnosis nobody said."""

MPP_40X = 0.375
"""Micrometres per pixel below which a slide is filed under 40x: between 0.25 and 0.5."""

RESERVED_COLUMNS = ("slide", "mpp", "file")
"""Columns of a labels table that are no labels."""


class PublishedWriter:
    """Writes slides one at a time; `finish` writes the database and the labels.

    Parameters
    ----------
    folder
        Where to: new or empty.
    collection
        What the slides are of; it must have codes and the keys of a key encoder.

    Raises
    ------
    BadRequest
        If the folder holds something, or the collection lacks codes or keys.
    """

    def __init__(self, folder: Path, collection: Collection) -> None:
        if not (collection.code_bits and collection.has_keys):
            raise BadRequest(
                f"collection {collection.name!r} has no keys of a key encoder or no codes, and published"
                " files need both: export it with --to parquet or --to jsonl"
            )
        self._folder = empty_folder(folder)
        self._code_bits = collection.code_bits
        self._slides: list[Slide] = []
        self._patches: list[PatchColumns] = []
        self._files: dict[str, str] = {}

    def write(self, encoded: EncodedSlide) -> None:
        """Write one slide's files and keep what the database needs: 150 bytes a posting."""
        slide, patches = encoded.slide, encoded.patches.without_embeddings()
        name = self._file_name(slide.slide_id)
        texts = texts_of_codes(patches.codes, code_bits=self._code_bits)
        write_pickle(self._place("LATENT", slide, DENSENET) / f"{name}.pkl", texts)
        mosaic = self._place("MOSAICS", slide, COORD_CLEAN) / f"{name}.h5"
        _write_corners(mosaic, patches.corners, {})
        attributes: dict[str, Any] = {"name": slide.slide_id}
        if slide.patch_side_px:
            attributes |= {"patch_size": slide.patch_side_px, "patch_level": 0}
        corners = self._place("PATCHES", slide, "patches") / f"{name}.h5"
        _write_corners(corners, patches.corners, attributes)
        self._slides.append(slide)
        self._patches.append(patches)

    def finish(self) -> int:
        """Write ``index_meta/meta.pkl`` and ``labels.csv``; return the postings written."""
        meta = self._folder / "index_meta" / "meta.pkl"
        meta.parent.mkdir()
        write_pickled_items(meta, _database(self._slides, self._patches, self._code_bits))
        _write_labels(self._folder / "labels.csv", self._slides)
        return sum(map(len, self._patches))

    def _place(self, top: str, slide: Slide, last: str) -> Path:
        magnification = "40x" if 0 < slide.mpp < MPP_40X else "20x"
        parts = (slide.site, slide.diagnosis, slide.labels.get("magnification") or magnification)
        place = self._folder.joinpath(top, *map(_folder_name, parts), last)
        place.mkdir(parents=True, exist_ok=True)
        return place

    def _file_name(self, slide_id: str) -> str:
        name = _folder_name(slide_id)
        other = self._files.setdefault(name, slide_id)
        if other != slide_id:
            raise BadRequest(
                f"slides {other!r} and {slide_id!r} would both be the file {name!r}: published files are"
                " named after slides; export with --to parquet"
            )
        return name


def _folder_name(text: str) -> str:
    """Return a text as one part of a path.

    Examples
    --------
    >>> _folder_name("a/../b"), _folder_name(""), _folder_name("..")
    ('a_.._b', 'unknown', 'unknown')
    """
    name = re.sub(r"[^\w.+ -]", "_", text).strip()
    return name if name.strip(".") else UNKNOWN_FOLDER


def _write_corners(path: Path, corners: Corners, attributes: dict[str, Any]) -> None:
    with h5py_module().File(path, "w") as file:
        dataset = file.create_dataset(COORDS, data=corners.astype(np.int64))
        for name, value in attributes.items():
            dataset.attrs[name] = value


def _database(
    slides: list[Slide], patches: list[PatchColumns], code_bits: int
) -> Iterator[tuple[int, list[dict[str, object]]]]:
    """Yield the keys, ascending, with their postings by (slide id, patch number)."""
    if not slides:
        return
    names = {name: rank for rank, name in enumerate(sorted(slide.slide_id for slide in slides))}
    keys = np.concatenate([part.keys for part in patches])
    numbers = np.concatenate([part.numbers for part in patches])
    owners = np.repeat(np.arange(len(slides)), [len(part) for part in patches])
    ranks = np.array([names[slide.slide_id] for slide in slides])[owners]
    starts = np.cumsum([0, *(len(part) for part in patches)])
    key = -1
    postings: list[dict[str, object]] = []
    for row in np.lexsort((numbers, ranks, keys)).tolist():
        if int(keys[row]) != key and postings:
            yield key, postings
            postings = []
        key, owner = int(keys[row]), int(owners[row])
        place = row - int(starts[owner])
        postings.append(_posting(slides[owner], patches[owner], place, code_bits))
    if postings:
        yield key, postings


def _posting(slide: Slide, patches: PatchColumns, row: int, code_bits: int) -> dict[str, object]:
    code: Codes = patches.codes[row : row + 1]
    return {
        "slide_name": slide.slide_id,
        "dense_binarized": texts_of_codes(code, code_bits=code_bits)[0],
        "x": int(patches.corners[row, 0]),
        "y": int(patches.corners[row, 1]),
        "slide_ext": slide.labels.get("slide_ext", ""),
        "diagnosis": slide.diagnosis,
        "site": slide.site,
        "number": int(patches.numbers[row]),
    }


def _write_labels(path: Path, slides: Iterable[Slide]) -> None:
    """Write a labels table that `sish index` and `sish import` read."""
    ordered = sorted(slides, key=lambda slide: slide.slide_id)
    extras = sorted({name for slide in ordered for name in slide.labels} - {*RESERVED_COLUMNS})
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["slide", *NAMED_LABELS, "mpp", *extras])
        for slide in ordered:
            named = [getattr(slide, name) for name in NAMED_LABELS]
            mpp = repr(slide.mpp) if slide.mpp else ""
            writer.writerow(
                [slide.slide_id, *named, mpp, *(slide.labels.get(name, "") for name in extras)]
            )
