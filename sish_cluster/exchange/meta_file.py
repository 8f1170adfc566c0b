"""``index_meta/meta.pkl``: a whole published database in one pickle, key -> postings.

The file is a dict whose keys are the integer keys (some as numpy floats: exact, for keys are far below 2**53)
and whose values are lists of dicts with ``slide_name``, ``dense_binarized``, ``x``, ``y``, ``slide_ext``,
``diagnosis`` and ``site``. Postings are gathered by slide; a slide's patches are numbered by their place in
the slide's latents or mosaic where these are at hand, else by ``number`` where every posting has one (this
project's exports do), else in the order of the file.

The pickle has to be read whole: about 2 KB of memory per posting while it lasts. Slides are then built one at
a time.

Source
------
SISH, "Index generation"; the fields are facts about the published files.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sish_cluster.core.collection import Collection
from sish_cluster.core.errors import BadFile, SishError
from sish_cluster.core.key import KEY_BITS, UNIVERSE
from sish_cluster.core.posting import EncodedSlide, PatchColumns
from sish_cluster.core.slide import Slide
from sish_cluster.exchange.h5_files import (
    COORDS,
    LARGEST_CORNER,
    corners_in,
    opened,
    side_px_in,
)
from sish_cluster.exchange.plain_pickle import plain_pickle
from sish_cluster.exchange.published_codes import codes_of_texts
from sish_cluster.exchange.source import (
    LabelsTable,
    SlideSource,
    SlideStream,
    Unreadable,
    bound_for,
    fingerprint_of,
    labelled,
)

LABELS = ("diagnosis", "site")
"""Fields of a posting that are labels of its slide."""

LARGEST_NUMBER = (1 << 32) - 1
"""Patch numbers are stored in 32 bits."""


@dataclasses.dataclass(frozen=True, slots=True)
class FilesBeside:
    """What lies beside a database: HDF5 files by slide name.

    Parameters
    ----------
    corners
        Latents or mosaics: a posting's row there is its patch number.
    patches
        Files whose attributes say a patch's side.
    """

    corners: Mapping[str, Path]
    patches: Mapping[str, Path]


@dataclasses.dataclass(slots=True)
class _Gathered:
    """A slide's postings so far, and the first thing wrong with it."""

    labels: dict[str, str]
    keys: list[int] = dataclasses.field(default_factory=list)
    texts: list[object] = dataclasses.field(default_factory=list)
    corners: list[tuple[int, int]] = dataclasses.field(default_factory=list)
    numbers: list[int | None] = dataclasses.field(default_factory=list)
    places: list[str] = dataclasses.field(default_factory=list)
    problem: str = ""


def meta_source(
    path: Path,
    *,
    code_bits: int,
    labels: LabelsTable | None,
    beside: FilesBeside | None = None,
) -> SlideSource:
    """Return the slides of a ``meta.pkl``.

    Parameters
    ----------
    path
        The file.
    code_bits
        Characters of ``dense_binarized``.
    labels
        A labels table whose values stand before the file's; None for the file's own diagnosis and site.
    beside
        Other files of the same slides.

    Raises
    ------
    BadFile
        If the file is no pickle of plain values, or no dict of lists.
    """
    database = plain_pickle(path)
    if not isinstance(database, dict):
        raise BadFile(
            f"{path}: found a {type(database).__name__}, expected a dict from keys to lists of postings"
        )
    fingerprint = fingerprint_of("published", {"keys": "meta", "code_bits": code_bits})
    collection = Collection(
        "published", fingerprint, code_bits, bound_for(code_bits), "imported published database"
    )
    gathered, problems = _by_slide(database, path)
    del database
    builder = _Builder(path, code_bits, labels, beside or FilesBeside({}, {}), fingerprint)
    unplaced = [Unreadable(f"{path.name} key {key}", text) for key, text in problems.items()]
    missing = len(set(labels or ()) - set(gathered))
    n_slides = len(gathered) + len(unplaced) + missing
    return SlideSource(collection, n_slides, builder.slides(gathered, unplaced))


def key_of_published(found: object) -> int:
    """Return a key as published files have it: an int, or a float without a fraction.

    Raises
    ------
    ValueError
        If it is no whole number in 0 <= key < 2**50.

    Examples
    --------
    >>> key_of_published(np.float64(812832512130048.0))
    812832512130048
    """
    is_whole = isinstance(found, int | np.integer) and not isinstance(found, bool)
    is_real = isinstance(found, float | np.floating) and found == np.floor(found)
    if not (is_whole or is_real) or not 0 <= found < UNIVERSE:  # type: ignore[operator]
        raise ValueError(f"found key {found!r}, expected a whole number 0 <= key < 2**{KEY_BITS}")
    return int(found)  # type: ignore[call-overload,no-any-return]


def _by_slide(database: dict[Any, Any], path: Path) -> tuple[dict[str, _Gathered], dict[str, str]]:
    """Return postings by slide in file order, and what is wrong with keys that name no slide."""
    gathered: dict[str, _Gathered] = {}
    problems: dict[str, str] = {}
    for found, postings in database.items():
        if not isinstance(postings, list):
            kind = type(postings).__name__
            problems[str(found)] = (
                f"{path}: key {found}: found a {kind}, expected a list of postings"
            )
            continue
        for row, posting in enumerate(postings):
            place = f"{path}: key {found}, posting {row}"
            name = posting.get("slide_name") if isinstance(posting, dict) else None
            if not isinstance(name, str) or not name:
                problems[str(found)] = f"{place}: found no slide_name, expected the slide's name"
                continue
            slide = gathered.setdefault(str(name), _Gathered({}))
            try:
                _add(slide, found, posting, place)
            except ValueError as error:
                slide.problem = slide.problem or f"{place}: {error}"
    return gathered, problems


def _add(slide: _Gathered, found: object, posting: dict[str, Any], place: str) -> None:
    """Add a posting to its slide, or raise `ValueError` saying what was found and expected."""
    key = key_of_published(found)
    corner = (_whole(posting, "x", LARGEST_CORNER), _whole(posting, "y", LARGEST_CORNER))
    number = _whole(posting, "number", LARGEST_NUMBER) if "number" in posting else None
    if "dense_binarized" not in posting:
        raise ValueError("found no dense_binarized, expected the code's text")
    known = {name: str(posting[name]) for name in (*LABELS, "slide_ext") if posting.get(name)}
    if slide.keys and known != slide.labels:
        raise ValueError(f"found labels {known}, expected {slide.labels} as in its other postings")
    slide.labels = known
    slide.keys.append(key)
    slide.texts.append(posting["dense_binarized"])
    slide.corners.append(corner)
    slide.numbers.append(number)
    slide.places.append(place)


def _whole(posting: dict[str, Any], name: str, largest: int) -> int:
    found: Any = posting.get(name)
    is_number = isinstance(found, int | float | np.integer | np.floating)
    is_whole = is_number and not isinstance(found, bool) and found == np.floor(found)
    if not is_whole or not 0 <= found <= largest:
        told = "none" if name not in posting else repr(found)[:60]
        raise ValueError(f"found {name} {told}, expected a whole number, 0..{largest}")
    return int(found)


@dataclasses.dataclass(frozen=True, slots=True)
class _Builder:
    path: Path
    code_bits: int
    labels: LabelsTable | None
    beside: FilesBeside
    fingerprint: str

    def slides(self, gathered: dict[str, _Gathered], problems: list[Unreadable]) -> SlideStream:
        """Yield the slides in name order, each gone from ``gathered`` once it is told."""
        names = sorted(gathered)
        yield from problems
        for name in names:
            yield self._outcome(name, gathered.pop(name))
        yield from self._without_postings(names)

    def _without_postings(self, names: list[str]) -> Iterator[Unreadable]:
        for name in sorted(set(self.labels or ()) - set(names)):
            yield Unreadable(
                name, f"has a row in the labels table but no posting in {self.path}; delete the row"
            )

    def _outcome(self, name: str, found: _Gathered) -> EncodedSlide | Unreadable:
        if found.problem:
            return Unreadable(name, found.problem)
        try:
            return self._slide(name, found)
        except SishError as error:
            return Unreadable(name, error.message)

    def _slide(self, name: str, found: _Gathered) -> EncodedSlide:
        source = f"{self.path}: slide {name!r} (first posting: {found.places[0]})"
        codes = codes_of_texts(found.texts, code_bits=self.code_bits, source=source)
        numbers = self._numbers(name, found)
        order = np.argsort(numbers, kind="stable")
        extra = {k: v for k, v in found.labels.items() if k not in LABELS}
        patches_path = self.beside.patches.get(name)
        slide = Slide(
            name,
            site=found.labels.get("site", ""),
            diagnosis=found.labels.get("diagnosis", ""),
            labels=extra,
            patch_side_px=0 if patches_path is None else side_px_in(patches_path),
        )
        patches = PatchColumns.of(
            np.asarray(found.keys, np.uint64)[order],
            codes[order],
            np.asarray(found.corners)[order],
            numbers[order],
        )
        return EncodedSlide.whole(labelled(slide, self.labels), patches, self.fingerprint)

    def _numbers(self, name: str, found: _Gathered) -> npt.NDArray[np.int64]:
        """Return the postings' patch numbers (n,)."""
        path = self.beside.corners.get(name)
        if path is not None:
            return _rows_in(path, found)
        if None in found.numbers:
            return np.arange(len(found.keys))
        return np.asarray(found.numbers, np.int64)


def _rows_in(path: Path, found: _Gathered) -> npt.NDArray[np.int64]:
    """Return each posting's row in a file of corners; equal corners are taken in order."""
    rows: dict[tuple[int, int], list[int]] = {}
    with opened(path) as file:
        for row, (x, y) in enumerate(corners_in(file).tolist()):
            rows.setdefault((x, y), []).append(row)
    numbers = []
    for place, corner in zip(found.places, found.corners, strict=True):
        if not rows.get(corner):
            raise BadFile(f"{place}: found corner {corner}, expected one of the {COORDS} of {path}")
        numbers.append(rows[corner].pop(0))
    return np.asarray(numbers, np.int64)
