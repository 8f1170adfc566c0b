"""A table of postings: one row per posting, the collection's facts before them.

The same rows are written as JSON Lines and as Parquet, and read back to the bit: importing what was exported
gives slides of the same version. A slide's rows stand together; a slide without patches has none.

=================  ===========================================================================
column             value
=================  ===========================================================================
slide_id           text
patient            label, ``""`` when unknown; so are site, diagnosis, institution
labels             the other labels by name (Parquet: JSON text)
mpp                micrometres per level-0 pixel, 0 when unknown
width_px, ...      level-0 pixels: width_px, height_px, patch_side_px
digest             hex digest of the slide's file
number             patch number within the slide
key                0 <= key < 2**50
code               packed code, hex; ``""`` without codes
x, y               corner, level-0 pixels
embedding          list of numbers, exact in half precision; empty without embeddings
=================  ===========================================================================
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from sish_cluster.core.collection import Collection
from sish_cluster.core.errors import BadFile, SishError
from sish_cluster.core.posting import EncodedSlide, PatchColumns
from sish_cluster.core.slide import Slide
from sish_cluster.exchange.source import SlideStream, Unreadable

FORMAT = "sish postings 1"
"""What the heading calls this layout; another number is another layout."""

SLIDE_COLUMNS = (
    "slide_id", "patient", "site", "diagnosis", "institution", "labels", "mpp", "width_px",
    "height_px", "patch_side_px", "digest",
)  # fmt: skip
"""Columns that say the same in every row of a slide."""

PATCH_COLUMNS = ("number", "key", "code", "x", "y", "embedding")
"""Columns of one posting."""

_KINDS: dict[type, tuple[str, ...]] = {
    str: ("patient", "site", "diagnosis", "institution", "digest", "code"),
    int: ("width_px", "height_px", "patch_side_px", "number", "key", "x", "y"),
    dict: ("labels",),
    list: ("embedding",),
}

Row = dict[str, Any]
"""One posting by column."""


@dataclasses.dataclass(frozen=True, slots=True)
class Heading:
    """What stands before the rows.

    Parameters
    ----------
    collection
        The collection the postings are of.
    n_slides
        Slides the table has.
    """

    collection: Collection
    n_slides: int

    def as_json(self) -> str:
        """Return the heading as one line."""
        facts = dataclasses.asdict(self.collection)
        return json.dumps({"format": FORMAT, "collection": facts, "slides": self.n_slides})

    @classmethod
    def parsed(cls, text: str | bytes | None, *, source: str) -> Heading:
        """Return a heading, or raise `BadFile`."""
        try:
            found = json.loads(text or "")
            if found["format"] != FORMAT:
                raise ValueError(f"format {found['format']!r}")
            return cls(Collection(**found["collection"]), int(found["slides"]))
        except (ValueError, TypeError, KeyError, SishError) as error:
            raise BadFile(
                f"{source}: found no heading of a table of postings ({error}), expected format {FORMAT!r}:"
                " import a file that `sish export --to parquet` or `--to jsonl` wrote"
            ) from error


def rows_of(encoded: EncodedSlide) -> Iterator[Row]:
    """Yield a slide's rows in patch order."""
    about = encoded.slide.to_dict()
    patches = encoded.patches
    for row in range(len(patches)):
        yield {
            **{name: about[name] for name in SLIDE_COLUMNS},
            "number": int(patches.numbers[row]),
            "key": int(patches.keys[row]),
            "code": patches.codes[row].tobytes().hex(),
            "x": int(patches.corners[row, 0]),
            "y": int(patches.corners[row, 1]),
            "embedding": patches.embeddings[row].astype(np.float32).tolist(),
        }


def slides_of(rows: Iterable[tuple[str, Row]], heading: Heading) -> SlideStream:
    """Yield the slides of rows, (place, row) each; a bad row fails its slide alone.

    A slide whose rows do not stand together fails where it comes up again.
    """
    reader = _Reader(heading.collection)
    for place, row in rows:
        outcome = reader.add(place, row)
        if outcome is not None:
            yield outcome
    last = reader.finished()
    if last is not None:
        yield last


class _Reader:
    """Gathers rows until the slide changes."""

    def __init__(self, collection: Collection) -> None:
        self._collection = collection
        self._seen: set[str] = set()
        self._rows: list[Row] = []
        self._name = ""
        self._problem = ""

    def add(self, place: str, row: Row) -> EncodedSlide | Unreadable | None:
        """Take a row; return the slide before it where a new one begins."""
        name = row.get("slide_id") if isinstance(row, Mapping) else None
        if not isinstance(name, str) or not name:
            return Unreadable(place, f"{place}: found no slide_id, expected a posting of a slide")
        done = None
        if name != self._name:
            done = self.finished()
            self._begin(name, place)
        problem = _problem_of(row, self._rows[0] if self._rows else row, self._collection)
        if problem:
            self._problem = self._problem or f"{place}: {problem}"
        else:
            self._rows.append({**row, "embedding": _packed(row["embedding"])})
        return done

    def _begin(self, name: str, place: str) -> None:
        self._name = name
        if name in self._seen:
            self._problem = (
                f"{place}: found slide {name!r} again, expected its rows together: sort them"
            )
        self._seen.add(name)

    def finished(self) -> EncodedSlide | Unreadable | None:
        """Return the slide gathered, None before the first."""
        name, rows, problem = self._name, self._rows, self._problem
        self._name, self._rows, self._problem = "", [], ""
        if not name:
            return None
        if problem:
            return Unreadable(name, problem)
        try:
            return _slide(rows, self._collection)
        except (SishError, ValueError, TypeError, OverflowError) as error:
            return Unreadable(name, f"slide {name!r}: {error}")


def _problem_of(row: Row, first: Row, collection: Collection) -> str:
    """Return what is wrong with a row, ``""`` when nothing is."""
    missing = [name for name in (*SLIDE_COLUMNS, *PATCH_COLUMNS) if name not in row]
    if missing:
        return f"found no column {missing[0]!r}, expected it"
    for kind, names in _KINDS.items():
        wrong = [name for name in names if type(row[name]) is not kind]
        if wrong:
            return f"found {wrong[0]} {str(row[wrong[0]])[:40]!r}, expected a value of type {kind.__name__}"
    if any(row[name] != first[name] for name in SLIDE_COLUMNS):
        return "found other labels than in the slide's first row, expected the same"
    digits = 2 * collection.code_bytes if collection.code_bits else 0
    if len(row["code"]) != digits:
        return f"found a code of {len(row['code'])} characters, expected {digits} in hex"
    if len(row["embedding"]) != collection.dimensions:
        return f"found {len(row['embedding'])} numbers, expected {collection.dimensions}"
    if not {int, float}.issuperset(map(type, row["embedding"])):
        return "found something else among the numbers of an embedding, expected numbers"
    return ""


def _packed(embedding: list[float]) -> npt.NDArray[np.float32]:
    """Return an embedding as an array: an eighth of the list's memory while its slide is gathered."""
    with np.errstate(over="ignore"):
        return np.array(embedding, np.float64).astype(np.float32)


def _slide(rows: list[Row], collection: Collection) -> EncodedSlide:
    about = {name: rows[0][name] for name in SLIDE_COLUMNS}
    labels = {str(name): str(value) for name, value in about["labels"].items()}
    slide = Slide.from_dict({**about, "labels": labels, "mpp": float(about["mpp"])})
    codes = np.frombuffer(bytes.fromhex("".join(row["code"] for row in rows)), np.uint8)
    embeddings = np.array([row["embedding"] for row in rows], np.float32)
    patches = PatchColumns.of(
        np.array([row["key"] for row in rows], np.int64),
        codes.reshape(len(rows), -1),
        np.array([(row["x"], row["y"]) for row in rows], np.int64),
        np.array([row["number"] for row in rows], np.int64),
        embeddings=embeddings.reshape(len(rows), collection.dimensions),
    )
    return EncodedSlide.whole(slide, patches, collection.fingerprint)
