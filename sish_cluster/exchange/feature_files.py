"""Feature files of other extractors into embeddings, texture codes, or both.

An HDF5 file per slide with ``features`` [n, d] or [1, n, d] and ``coords`` [n, 2] or [1, n, 2], as CLAM and
TRIDENT write them. Codes are the signs of successive differences of the features (`core.code`); there are no
keys in such files, so keys only spread the patches over shards (`core.key.spread_keys`) and the collection
says that they mean nothing.
"""

from __future__ import annotations

import dataclasses
import enum
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sish_cluster.core.code import Codes, code_bytes_of, codes_of
from sish_cluster.core.collection import Collection
from sish_cluster.core.embedding import MAX_DIMENSIONS, Embeddings, checked_embeddings
from sish_cluster.core.errors import BadFile, BadMessage
from sish_cluster.core.key import spread_keys
from sish_cluster.core.posting import EncodedSlide, PatchColumns
from sish_cluster.core.slide import Slide
from sish_cluster.exchange.h5_files import (
    COORDS,
    FEATURES,
    attributes_of,
    corners_in,
    dataset_of,
    opened,
    patch_side_px,
    row_shape,
    rows_of,
    text_attribute,
    whole_attribute,
)
from sish_cluster.exchange.source import (
    LabelsTable,
    SlideSource,
    bound_for,
    each_file,
    fingerprint_of,
    labelled,
)

FILES_ASKED = 9
"""Files that say how long vectors are: enough that one stray file is outvoted, few enough to open at once."""

BLOCK = 4096
"""Rows of features read at once: 32 MiB of 2,048 float32."""


class Keep(enum.StrEnum):
    """What a collection keeps of features."""

    EMBEDDINGS = "embeddings"
    """The vectors, in half precision: mode DIRECT."""
    CODES = "codes"
    """The signs of successive differences: mode EXACT."""
    BOTH = "both"


@dataclasses.dataclass(frozen=True, slots=True)
class _Reader:
    dimensions: int
    keep: Keep
    labels: LabelsTable | None
    fingerprint: str

    def read(self, path: Path) -> EncodedSlide:
        with opened(path) as file:
            features = dataset_of(file, FEATURES)
            shape = _checked_shape(features, path)
            if shape[1] != self.dimensions:
                raise BadFile(
                    f"{path}: found features of {shape[1]} numbers, expected {self.dimensions} as in"
                    " most of the first files: import files of one extractor only"
                )
            corners = corners_in(file)
            if len(corners) != shape[0]:
                raise BadFile(
                    f"{path}: found {len(corners)} {COORDS}, expected {shape[0]}, one for each feature"
                )
            attributes = attributes_of(dataset_of(file, COORDS), features, file)
            codes, embeddings = self._columns(features, shape[0], path)
        slide = labelled(_slide_of(path, attributes), self.labels)
        keys = spread_keys(slide.slide_id, np.arange(shape[0]))
        patches = PatchColumns.of(keys, codes, corners, embeddings=embeddings)
        return EncodedSlide.whole(slide, patches, self.fingerprint)

    def _columns(self, features: Any, n: int, path: Path) -> tuple[Codes, Embeddings]:
        """Return codes (n, code_bytes) and embeddings (n, d), either of width 0 where it is not kept."""
        keeps_codes, keeps_embeddings = (
            self.keep is not Keep.EMBEDDINGS,
            self.keep is not Keep.CODES,
        )
        codes = np.zeros((n, code_bytes_of(self.dimensions) if keeps_codes else 0), np.uint8)
        embeddings = np.zeros((n, self.dimensions if keeps_embeddings else 0), np.float16)
        for start in range(0, n, BLOCK):
            block = _finite(rows_of(features, start, min(n, start + BLOCK)), start, path)
            if keeps_codes:
                codes[start : start + BLOCK] = codes_of(block)
            if keeps_embeddings:
                embeddings[start : start + BLOCK] = _halved(block, start, path)
        return codes, embeddings


def feature_source(
    folder: Path, *, keep: Keep, labels: LabelsTable | None = None, about: str = ""
) -> SlideSource:
    """Return the slides of a folder of feature files.

    Parameters
    ----------
    folder
        Searched with its subfolders for ``*.h5``.
    keep
        What the collection keeps.
    labels
        A labels table, or None.
    about
        The extractor in words; part of the fingerprint, so that features of two extractors of one length
        are not mixed.

    Raises
    ------
    BadFile
        If no file has features.
    """
    files = sorted(folder.rglob("*.h5")) if folder.is_dir() else []
    if not files:
        raise BadFile(
            f"{folder}: holds no *.h5; give the folder the extractor wrote its features to"
        )
    dimensions = _usual_dimensions(files)
    facts = {"dimensions": dimensions, "keep": str(keep), "extractor": about}
    fingerprint = fingerprint_of("features", facts)
    code_bits = 0 if keep is Keep.EMBEDDINGS else dimensions
    collection = Collection(
        "features",
        fingerprint,
        code_bits,
        bound_for(code_bits),
        about or "imported features",
        dimensions=0 if keep is Keep.CODES else dimensions,
        has_keys=False,
    )
    reader = _Reader(dimensions, keep, labels, fingerprint)
    return SlideSource(collection, len(files), each_file(files, reader.read, labels))


def _usual_dimensions(files: list[Path]) -> int:
    """Return the length of most vectors of the first good files: one stray file decides nothing."""
    problem, found = "", Counter[int]()
    for path in files:
        try:
            with opened(path) as file:
                found[_checked_shape(dataset_of(file, FEATURES), path)[1]] += 1
        except BadFile as error:
            problem = problem or error.message
        if found.total() == FILES_ASKED:
            break
    if not found:
        raise BadFile(f"no file has features to import; the first: {problem}")
    return found.most_common(1)[0][0]


def _checked_shape(features: Any, path: Path) -> tuple[int, int]:
    shape = row_shape(features, source=str(path))
    if len(shape) != 2 or not 1 <= shape[1] <= MAX_DIMENSIONS or features.dtype.kind != "f":
        raise BadFile(
            f"{path}: {FEATURES} has shape {features.shape} and type {features.dtype}, expected floats"
            f" [n, d] or [1, n, d] with d of 1..{MAX_DIMENSIONS}"
        )
    return shape[0], shape[1]


def _finite(block: npt.NDArray[Any], start: int, path: Path) -> npt.NDArray[np.floating[Any]]:
    bad = np.flatnonzero(~np.isfinite(block).all(axis=1))
    if bad.size:
        raise BadFile(
            f"{path}: {FEATURES} row {start + int(bad[0])}: found a number that is not finite, expected"
            " finite ones: extract the slide again"
        )
    return block


def _halved(block: npt.NDArray[np.floating[Any]], start: int, path: Path) -> Embeddings:
    try:
        return checked_embeddings(block, n=len(block))
    except BadMessage as error:
        raise BadFile(f"{path}: rows from {start}: {error.message}") from error


def _slide_of(path: Path, attributes: dict[str, Any]) -> Slide:
    """Return the slide of a file: its ``name``, else the file's; sizes where the attributes say them."""
    return Slide(
        text_attribute(attributes, "name") or path.stem,
        width_px=whole_attribute(attributes, "level0_width"),
        height_px=whole_attribute(attributes, "level0_height"),
        patch_side_px=patch_side_px(attributes),
    )
