"""Which files are slides, and what is known about each: the labels table meets the folder.

A labels table is a CSV with the columns ``slide, patient, site, diagnosis`` and, if wanted, ``institution``,
``mpp`` (um per level-0 px), ``file`` (path relative to the table or to the slides folder) and any
others, which become extra labels. Without one, SISH's folder layout
``SITE/DIAGNOSIS/20x/slide.svs`` is understood. Every slide ends up either in the catalogue's entries
or in its problems, which say what to do; nothing is skipped without a word. No pixel is read here.
"""

from __future__ import annotations

import csv
import dataclasses
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from sish_cluster.core.errors import BadLabels, BadSlide
from sish_cluster.core.slide import NAMED_LABELS, Slide
from sish_cluster.encoder.region import Region

SLIDE_SUFFIXES = frozenset(
    [
        ".svs",
        ".tif",
        ".tiff",
        ".ndpi",
        ".mrxs",
        ".scn",
        ".bif",
        ".vms",
        ".vmu",
        ".svslide",
        ".dcm",
        ".png",
        ".jpg",
        ".jpeg",
    ]
)
"""Names taken for slides, lower case."""

REQUIRED = ("patient", "site", "diagnosis")
"""Columns a labels table must have, besides ``slide`` or ``file``."""

MPP_BOUNDS = (0.01, 20.0)
"""Bounds of a believable mpp, um."""

_MAGNIFICATION = re.compile(r"(5|10|20|40|80)x", re.IGNORECASE)


@dataclasses.dataclass(frozen=True, slots=True)
class LabelRow:
    """One row of a labels table."""

    slide: Slide
    mpp: float | None
    """Micrometres per level-0 px, or None where the table leaves it open."""
    file: str
    """Path relative to the table's folder or the slides folder, or ``""``."""
    line: int
    """Line of the table, the first is 1."""


@dataclasses.dataclass(frozen=True, slots=True)
class Labels:
    """A labels table."""

    path: Path
    rows: Mapping[str, LabelRow]
    """Rows by slide name, in the table's order."""
    doubled: Mapping[str, tuple[int, ...]]
    """Lines of slides with several equal rows."""


@dataclasses.dataclass(frozen=True, slots=True)
class CatalogueEntry:
    """One slide to index."""

    path: Path
    slide: Slide
    mpp: float | None
    """Micrometres per level-0 px from the labels, or None."""
    region: Region | None = None
    """The part that is wanted; None for the slide's mosaic."""
    digest: str = ""
    """Hex digest of the file's content where somebody has read it already: it is not read twice for that."""


@dataclasses.dataclass(frozen=True, slots=True)
class Catalogue:
    """Every slide of a folder with what is known about it."""

    entries: list[CatalogueEntry]
    """In slide id order."""
    problems: list[tuple[str, str]]
    """(slide or file name, what is wrong and what to do), in name order."""


def find_slides(folder: str | os.PathLike[str]) -> list[Path]:
    """Return the slides under a folder, sorted; a folder of DICOM files is one slide.

    Parameters
    ----------
    folder
        Searched with its subfolders, links followed; a single file is returned as it is.

    Raises
    ------
    BadSlide
        If there is no such folder.
    """
    top = Path(folder)
    if top.is_file():
        return [top]
    if not top.is_dir():
        raise BadSlide(f"{top}: there is no such folder of slides; check the path")
    return sorted(_walk(top, set()))


def _walk(folder: Path, seen: set[str]) -> Iterator[Path]:
    real = os.path.realpath(folder)
    if real in seen:
        return
    seen.add(real)
    children = sorted(child for child in folder.iterdir() if not child.name.startswith("."))
    files = [c for c in children if c.is_file() and c.suffix.lower() in SLIDE_SUFFIXES]
    suffixes = {file.suffix.lower() for file in files}
    if ".dcm" in suffixes:
        yield folder
    parts = {".dcm"} | ({".jpg", ".jpeg"} if suffixes & {".vms", ".vmu"} else set())
    yield from (file for file in files if file.suffix.lower() not in parts)
    mirax = {file.stem for file in files if file.suffix.lower() == ".mrxs"}
    for child in children:
        if child.is_dir() and child.name not in mirax:
            yield from _walk(child, seen)


def slide_name(path: Path) -> str:
    """Return a slide's name: a file's name without suffix, a folder's name."""
    return path.stem if path.suffix.lower() in SLIDE_SUFFIXES else path.name


def read_labels(csv_path: str | os.PathLike[str]) -> Labels:
    """Read a labels table (UTF-8, UTF-16 or Windows text; commas, semicolons or tabs).

    Raises
    ------
    BadLabels
        If it cannot be read, lacks a column, has a bad value or two contradicting rows; the
        message names the line.
    """
    path = Path(csv_path)
    text = _text_of(path)
    first_line = text.lstrip().partition("\n")[0]
    delimiter = max(",;\t", key=first_line.count)
    reader = csv.reader(text.splitlines(keepends=True), delimiter=delimiter, strict=True)
    rows: dict[str, LabelRow] = {}
    doubled: dict[str, tuple[int, ...]] = {}
    try:
        columns = _columns(path, next((row for row in reader if any(map(str.strip, row))), []))
        for values in reader:
            if any(value.strip() for value in values):
                row = _row_of(path, columns, values, reader.line_num)
                _add(path, rows, doubled, row)
    except csv.Error as error:
        raise BadLabels(
            f"{path} line {reader.line_num}: is not CSV ({error}); correct it"
        ) from error
    if not rows:
        raise BadLabels(f"{path}: has a header but no rows; add one row per slide")
    return Labels(path, rows, doubled)


def _text_of(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadLabels(
            f"{path}: the labels file cannot be read ({error.strerror}); check it"
        ) from error
    if data.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0")):
        raise BadLabels(f"{path}: is a spreadsheet, not CSV; save it as CSV (UTF-8)")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        encodings = ["utf-16"]
    else:
        encodings = ["utf-8-sig", "cp1252"]
    for encoding in encodings:
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" not in text:
            return text
    raise BadLabels(f"{path}: is not text; save the labels as CSV (UTF-8)")


def _columns(path: Path, header: Sequence[str]) -> list[str]:
    columns = [name.strip().lower() for name in header]
    doubled = sorted({name for name in columns if name and columns.count(name) > 1})
    if doubled:
        raise BadLabels(f"{path}: has the column {doubled[0]!r} twice; rename one")
    missing = [name for name in REQUIRED if name not in columns]
    if not {"slide", "file"} & set(columns):
        missing.insert(0, "slide")
    if missing:
        raise BadLabels(
            f"{path}: lacks the columns {', '.join(missing)}; found {', '.join(columns) or 'none'}."
            " The first line names the columns: slide,patient,site,diagnosis[,institution,mpp,...]"
        )
    return columns


def _row_of(path: Path, columns: Sequence[str], values: Sequence[str], line: int) -> LabelRow:
    if any(value.strip() for value in values[len(columns) :]):
        raise BadLabels(
            f"{path} line {line}: has {len(values)} values for {len(columns)} columns;"
            ' quote values that hold the delimiter ("a, b")'
        )
    padded = [*values, *[""] * len(columns)]
    cells = {name: value.strip() for name, value in zip(columns, padded, strict=False) if name}
    file = cells.pop("file", "").replace("\\", "/")
    mpp = _mpp_of(path, cells.pop("mpp", ""), line)
    name = cells.pop("slide", "") or (slide_name(Path(file)) if file else "")
    if not name:
        raise BadLabels(f"{path} line {line}: names no slide; fill in the column slide")
    patient, site, diagnosis, institution = (cells.pop(label, "") for label in NAMED_LABELS)
    return LabelRow(Slide(name, patient, site, diagnosis, institution, cells), mpp, file, line)


def _mpp_of(path: Path, text: str, line: int) -> float | None:
    if not text:
        return None
    low, high = MPP_BOUNDS
    try:
        mpp = float(text.replace(",", "."))
    except ValueError:
        mpp = -1.0
    if not low <= mpp <= high:
        raise BadLabels(
            f"{path} line {line}: mpp is {text!r}, where micrometres per pixel are {low}..{high};"
            " correct it, or leave it empty where it is unknown"
        )
    return mpp


def _add(
    path: Path, rows: dict[str, LabelRow], doubled: dict[str, tuple[int, ...]], row: LabelRow
) -> None:
    name = row.slide.slide_id
    first = rows.setdefault(name, row)
    if first is row:
        return
    if dataclasses.replace(row, line=first.line) != first:
        raise BadLabels(
            f"{path}: slide {name!r} has two rows that contradict each other, lines {first.line} and"
            f" {row.line}; keep one"
        )
    doubled[name] = (*doubled.get(name, (first.line,)), row.line)


def matched(slides_dir: str | os.PathLike[str], labels: Labels | None = None) -> Catalogue:
    """Return every slide of a folder with its labels.

    Parameters
    ----------
    slides_dir
        Where the slides are.
    labels
        The labels table, or None to take labels from SISH's folder layout.

    Raises
    ------
    BadSlide
        If there is no such folder.
    BadLabels
        If two files bear one slide's name.
    """
    folder = Path(slides_dir)
    files = find_slides(folder)
    if labels is None:
        _refuse_doubled_names(files)
        found = [CatalogueEntry(file, _slide_from_folders(file, folder), None) for file in files]
        return Catalogue(sorted(found, key=lambda entry: entry.slide.slide_id), [])
    entries, problems = [], []
    pairs = _paired(files, labels, folder)
    for name, row in labels.rows.items():
        if name in pairs:
            entries.append(CatalogueEntry(pairs[name], row.slide, row.mpp))
        else:
            problems.append((name, _no_file(row, labels, folder)))
    taken = set(pairs.values())
    problems += [(slide_name(f), _no_row(f, labels)) for f in files if f not in taken]
    problems += [
        (
            name,
            f"{labels.path}: equal rows on lines {_listed(lines)}; one is used, delete the others",
        )
        for name, lines in labels.doubled.items()
    ]
    return Catalogue(sorted(entries, key=lambda e: e.slide.slide_id), sorted(problems))


def _paired(files: Sequence[Path], labels: Labels, folder: Path) -> dict[str, Path]:
    """Return each slide's file: the one its ``file`` column names, else the one of its name."""
    by_place = {os.path.realpath(file): file for file in files}
    pairs: dict[str, Path] = {}
    for name, row in labels.rows.items():
        places = [labels.path.parent / row.file, folder / row.file] if row.file else []
        place = next((p for p in map(os.path.realpath, places) if p in by_place), None)
        if place is not None:
            pairs[name] = by_place[place]
    taken = set(pairs.values())
    rest = [file for file in files if file not in taken]
    _refuse_doubled_names([f for f in rest if {f.name, slide_name(f)} & set(labels.rows)])
    for file in rest:
        for name in (file.name, slide_name(file)):
            if name in labels.rows and name not in pairs:
                pairs[name] = file
                break
    return pairs


def _refuse_doubled_names(files: Sequence[Path]) -> None:
    first: dict[str, Path] = {}
    for file in files:
        other = first.setdefault(slide_name(file), file)
        if other is not file:
            raise BadLabels(
                f"two files bear the slide name {slide_name(file)!r}: {other} and {file}; rename one,"
                " or give each a row with its own slide name and a file column"
            )


def _slide_from_folders(file: Path, folder: Path) -> Slide:
    """Return a slide with the labels of ``SITE/DIAGNOSIS/20x/slide.svs``, none in other layouts."""
    name = slide_name(file)
    patient = "-".join(name.split("-")[:3]) if re.match(r"TCGA-\w+-\w+-", name, re.I) else ""
    parts = file.parent.relative_to(folder).parts if file != folder else ()
    if len(parts) < 3 or not _MAGNIFICATION.fullmatch(parts[-1]):
        return Slide(name, patient=patient)
    magnification = {"magnification": parts[-1].lower()}
    return Slide(name, patient=patient, site=parts[-3], diagnosis=parts[-2], labels=magnification)


def _no_file(row: LabelRow, labels: Labels, folder: Path) -> str:
    named = f" (file {row.file})" if row.file else ""
    return (
        f"{labels.path} line {row.line}: slide {row.slide.slide_id!r}{named} has labels but no file"
        f" under {folder}; add the file, correct the name, or delete the row"
    )


def _no_row(file: Path, labels: Labels) -> str:
    return (
        f"{file}: has no row in {labels.path}; add a row with slide {slide_name(file)!r},"
        " or move the file away"
    )


def _listed(lines: Sequence[int]) -> str:
    return ", ".join(map(str, lines))
