"""Checkpoints: a collection's sorted segments and label columns in one file, for a fast restart.

The store stays the truth. A checkpoint names the slides it has by their serials and marks (checksums of
their headers). A shard that opens takes from it the postings of every slide that the store has
just so, leaves the rows of the others forgotten, and reads what else the store has. So it does not matter how
old a checkpoint is, nor at which moment a crash came: any sound file and the store together give the
store's state. A file that is missing, damaged, of another layout or of another collection is left aside
and written anew.

It is made from one view, which never changes, so neither writers nor readers wait for it.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sish_cluster.core.collection import Collection
from sish_cluster.core.errors import CheckpointMismatch, Corrupt, SishError
from sish_cluster.core.seams import SlideState
from sish_cluster.core.slide import UNKNOWN
from sish_cluster.shard.checkpoint_file import CheckpointFile, write_columns
from sish_cluster.shard.entries import Headers
from sish_cluster.shard.held import View
from sish_cluster.shard.layout import HEAD, LANES
from sish_cluster.shard.ledger import LabelColumn, Ledger
from sish_cluster.shard.records import (
    SlideRecord,
    collection_values,
    header_mark,
    slide_address,
    slide_payload,
)
from sish_cluster.shard.segment import COLUMNS, SEGMENT_LAYOUT, Segment, columns_for, segment_from

_PARTS = 2
"""Raised whenever there is another set of columns: 2 has headers."""

_LAYOUT = [_PARTS, SEGMENT_LAYOUT, HEAD, LANES]
"""What decides which columns there are and how a segment's lie; a checkpoint of another one is left
aside."""

_PER_SLIDE = ("serials", "marks", "postings", "is_home", "is_committed")
"""Columns with one row per slide."""

_BROKEN = (SishError, OSError, ValueError, KeyError, TypeError, IndexError)
"""What reading a file can end with that is not as this version writes them."""


class Unusable(Exception):
    """A checkpoint that must be left aside; the text names the file and what was found.

    Parameters
    ----------
    path
        The file.
    found
        What was wrong.
    """

    def __init__(self, path: Path, found: Exception) -> None:
        text = str(found)
        super().__init__(text if str(path) in text else f"{path}: {type(found).__name__}: {text}")
        self.is_foreign = isinstance(found, CheckpointMismatch)
        """Whether it is sound, but of another layout or collection."""


def write_checkpoint(
    path: Path,
    number: int,
    collection: Collection,
    view: View,
    *,
    is_called_off: Callable[[], bool] = lambda: False,
) -> None:
    """Write a view's postings; see `checkpoint_file.write_columns` for what it raises."""
    snapshot = view.snapshot
    held = np.flatnonzero((snapshot.postings_of > 0) & ~snapshot.is_forgotten)
    row_of = np.full(len(snapshot.postings_of), len(held), np.uint32)
    row_of[held] = np.arange(len(held), dtype=np.uint32)
    labels = dict(view.slides.labels)
    columns = _slide_columns(number, view, held)
    for name, label in labels.items():
        columns |= _label_columns(name, label, label.numbers(len(view.slides))[held])
    for i, segment in enumerate(snapshot.segments):
        for name in COLUMNS:
            columns[f"{name} of {i}"] = getattr(segment, name)
        columns[f"ordinals of {i}"] = row_of[segment.ordinals]
    about = {
        **_about(number, collection),
        "labels": list(labels),
        "segment_rows": [len(segment) for segment in snapshot.segments],
    }
    write_columns(path, about, columns, is_called_off=is_called_off)


def _slide_columns(
    number: int, view: View, held: npt.NDArray[np.intp]
) -> dict[str, npt.NDArray[Any]]:
    entries = [view.slides.entry(ordinal) for ordinal in held.tolist()]
    payloads = [entry.payload for entry in entries]
    marks = [
        header_mark(slide_address(number, entry.serial), payload)
        for entry, payload in zip(entries, payloads, strict=True)
    ]
    return {
        "headers": np.frombuffer(b"".join(payloads), np.uint8),
        "header_ends": np.cumsum([0, *map(len, payloads)])[1:].astype(np.int64),
        "serials": np.array([entry.serial for entry in entries], np.uint64),
        "marks": np.array(marks, np.uint64),
        "postings": view.slides.postings[held],
        "is_home": view.slides.is_home[held],
        "is_committed": view.slides.committed[held],
    }


def _label_columns(
    name: str, label: LabelColumn, numbers: npt.NDArray[Any]
) -> dict[str, npt.NDArray[Any]]:
    """Return a label's values that occur, the unknown one first, and their numbers by row."""
    used = np.unique(np.append(numbers, 0))
    values = [label.values[n] for n in used.tolist()]
    return {
        f"label {name}": np.searchsorted(used, numbers).astype(np.int32),
        f"values {name}": np.frombuffer(json.dumps(values).encode(), np.uint8),
    }


def _about(number: int, collection: Collection) -> dict[str, Any]:
    """Return what must be equal for a checkpoint to belong to a collection, as JSON gives it back."""
    values = {"segment": _LAYOUT, "number": number, "collection": collection_values(collection)}
    return dict(json.loads(json.dumps(values)))


class Checkpoint:
    """A checkpoint being checked by a pool's threads while the caller reads the store's headers.

    Parameters
    ----------
    path
        The file.
    number, collection
        Whose it must be.
    pool
        Threads that check it; `close` waits for them.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    Unusable
        If it must be left aside.
    """

    def __init__(self, path: Path, number: int, collection: Collection, *, pool: Executor) -> None:
        self.path = path
        self.code_bytes = collection.code_bytes
        self._number = number
        self._checking: list[Future[None]] = []
        self._by_slide: set[str] = set()
        try:
            self._file = CheckpointFile(path)
        except FileNotFoundError:
            raise
        except _BROKEN as error:
            raise Unusable(path, error) from error
        try:
            self._check_owner(_about(number, collection))
            rows = self._file.about["segment_rows"]
            self._by_slide = self._file.names
            self._columns = [self._begun(i, n, pool) for i, n in enumerate(rows)]
            self._slides = {name: self._file.column(name) for name in _PER_SLIDE}
            self._headers = self._headers_of(self._slides["serials"])
            self.labels = {name: self._label(name) for name in self._file.about["labels"]}
        except _BROKEN as error:
            self.close()
            raise Unusable(path, error) from error
        self.serials: list[int] = self._slides["serials"].tolist()
        self._marks: list[int] = self._slides["marks"].tolist()
        self._row_of = {serial: row for row, serial in enumerate(self.serials)}

    def close(self) -> None:
        """Stop checking; the columns live as long as they are used.

        Of those by slide, which were copied or are looked at seldom, the pages are given back.
        """
        for block in self._checking:
            block.cancel()
        for block in self._checking:
            if not block.cancelled():
                block.exception()
        for name in self._by_slide:
            self._file.let_go(name)

    @property
    def postings(self) -> npt.NDArray[np.int64]:
        """int64 (slides,): rows of each slide."""
        return self._slides["postings"]

    def committed_ids(self) -> list[str]:
        """Return, by row, the slide ids of committed slides, and nothing for pending ones."""
        ids = self.labels["slide"]
        numbers = np.where(self._slides["is_committed"], ids.numbers(len(self.serials)), 0)
        return [ids.values[n] for n in numbers.tolist()]

    def row_of(self, serial: int, address: bytes, payload: bytes) -> int | None:
        """Return the row of the slide whose header the store has just as it was, or None."""
        row = self._row_of.get(serial)
        if row is None or header_mark(address, payload) != self._marks[row]:
            return None
        return row

    def row_before_commit(self, serial: int, address: bytes, record: SlideRecord) -> int | None:
        """Return the row of a slide that was pending here and is committed in the store, or None."""
        if record.state is not SlideState.COMMITTED or serial not in self._row_of:
            return None
        before = dataclasses.replace(record, state=SlideState.PENDING)
        return self.row_of(serial, address, slide_payload(before))

    def ledger(self, is_held: npt.NDArray[np.bool_]) -> Ledger:
        """Return the ledger of the rows that are held (bool, by row); row r is ordinal r."""
        return Ledger.restored(
            self._headers,
            self.labels,
            is_held=is_held,
            postings=self.postings,
            is_home=self._slides["is_home"],
            is_committed=self._slides["is_committed"],
        )

    def segments(self) -> list[Segment]:
        """Wait for the columns and return the segments.

        Ordinals are rows here; one past the last stands for rows that were forgotten already.

        Raises
        ------
        Unusable
            If a checksum does not match, or the columns break a segment's rules.
        """
        try:
            for block in self._checking:
                block.result()
            counts = np.zeros(len(self.serials) + 1, np.int64)
            for columns in self._columns:
                found = np.bincount(columns["ordinals"], minlength=len(counts))
                if len(found) > len(counts):
                    raise self._file.damaged(
                        f"has a row of slide {len(found) - 1} of {len(counts)}"
                    )
                counts += found
            if not np.array_equal(counts[:-1], self.postings):
                raise self._file.damaged("has other rows than it says")
            return [segment_from(columns, self.code_bytes) for columns in self._columns]
        except _BROKEN as error:
            raise Unusable(self.path, error) from error

    def _check_owner(self, wanted: Mapping[str, Any]) -> None:
        found = {name: self._file.about.get(name) for name in wanted}
        if found != wanted:
            raise CheckpointMismatch(f"{self.path} is of {found}, expected {dict(wanted)}")

    def _headers_of(self, serials: npt.NDArray[np.uint64]) -> Headers:
        payloads, ends = self._file.column("headers"), self._file.column("header_ends")
        lengths = np.diff(ends, prepend=0)
        if len(ends) != len(serials) or (lengths < 0).any() or lengths.sum() != len(payloads):
            raise self._file.damaged("has other headers than it says")
        return Headers(serials, payloads, ends)

    def _label(self, name: str) -> LabelColumn:
        values = json.loads(self._file.column(f"values {name}").tobytes())
        numbers = self._file.column(f"label {name}")
        if values[:1] != [UNKNOWN] or (len(numbers) and int(numbers.max()) >= len(values)):
            raise Corrupt(f"{self.path} has unknown values of label {name!r}")
        return LabelColumn(values, numbers)

    def _begun(self, i: int, n_rows: int, pool: Executor) -> dict[str, npt.NDArray[Any]]:
        number_type, _ = self._file.kind_of(f"numbers of {i}")
        columns = {}
        for name, like in columns_for(n_rows, self.code_bytes, number_type).items():
            self._by_slide.discard(f"{name} of {i}")
            columns[name], blocks = self._file.reading(f"{name} of {i}", like, pool)
            self._checking += blocks
        return columns
