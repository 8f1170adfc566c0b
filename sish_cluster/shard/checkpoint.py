"""Checkpoints: a collection's sorted segments in one file, so that a restart neither sorts nor gathers.

The store stays the truth. A checkpoint names the slides whose postings it has (serial, version, time of
storing); a shard that opens takes the postings of those that the store still holds, leaves the others'
rows forgotten, and reads from the store what came later. So it does not matter how old a checkpoint is,
nor at which moment a crash came: any sound file and the store together give the store's state. A file that is
missing, damaged, of another layout or of another collection is left aside and written anew.

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
from sish_cluster.shard.checkpoint_file import CheckpointFile, write_columns
from sish_cluster.shard.held import View
from sish_cluster.shard.layout import HEAD, LANES
from sish_cluster.shard.records import SlideRecord
from sish_cluster.shard.segment import COLUMNS, SEGMENT_LAYOUT, Segment, columns_for, segment_from

_LAYOUT = [SEGMENT_LAYOUT, HEAD, LANES]
"""What decides how a segment's columns lie; a checkpoint of another one is left aside."""


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
    entries = [view.slides.entry(ordinal) for ordinal in held.tolist()]
    row_of = np.full(len(snapshot.postings_of), len(held), np.uint32)
    row_of[held] = np.arange(len(held), dtype=np.uint32)
    columns: dict[str, npt.NDArray[Any]] = {
        "serials": np.array([entry.serial for entry in entries], np.uint64),
        "versions": _texts([entry.record.version for entry in entries]),
        "stored_at_s": np.array([entry.record.stored_at_s for entry in entries], np.float64),
        "postings": np.array([entry.record.postings for entry in entries], np.int64),
    }
    for i, segment in enumerate(snapshot.segments):
        for name in COLUMNS:
            columns[f"{name} of {i}"] = getattr(segment, name)
        columns[f"ordinals of {i}"] = row_of[segment.ordinals]
    about = {
        **_about(number, collection),
        "segment_rows": [len(segment) for segment in snapshot.segments],
    }
    write_columns(path, about, columns, is_called_off=is_called_off)


def _about(number: int, collection: Collection) -> dict[str, Any]:
    """Return what must be equal for a checkpoint to belong to a collection, as JSON gives it back."""
    values = {"segment": _LAYOUT, "number": number, "collection": dataclasses.asdict(collection)}
    return dict(json.loads(json.dumps(values)))


def _texts(values: list[str]) -> npt.NDArray[np.bytes_]:
    return np.array([value.encode() for value in values] or [b""], np.bytes_)[: len(values)]


class Checkpoint:
    """A checkpoint being read by a pool's threads while the caller reads the store's headers.

    Parameters
    ----------
    path
        The file.
    number, collection
        Whose it must be.
    pool
        Threads that read and check; `close` waits for them.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    Unusable
        If it must be left aside.
    """

    def __init__(self, path: Path, number: int, collection: Collection, *, pool: Executor) -> None:
        self.code_bytes = collection.code_bytes
        self._reading: list[Future[None]] = []
        try:
            self._file = CheckpointFile(path)
        except FileNotFoundError:
            raise
        except (SishError, OSError, ValueError, KeyError, TypeError) as error:
            raise Unusable(path, error) from error
        try:
            self._check_owner(_about(number, collection))
            self.serials = self._file.column("serials")
            self._versions = self._file.column("versions")
            self._stored_at_s = self._file.column("stored_at_s")
            self._postings = self._file.column("postings")
            self._columns = [
                self._begun(i, n, pool) for i, n in enumerate(self._file.about["segment_rows"])
            ]
        except (SishError, OSError, ValueError, KeyError, TypeError) as error:
            self.close()
            raise Unusable(path, error) from error

    def close(self) -> None:
        """Stop reading and close the file."""
        for block in self._reading:
            block.cancel()
        for block in self._reading:
            if not block.cancelled():
                block.exception()
        self._file.close()

    def rows_in(self, headers: Mapping[int, SlideRecord]) -> dict[int, int]:
        """Return serial -> row here of the slides that the store has just as they are here."""
        columns = (self.serials, self._versions, self._stored_at_s, self._postings)
        rows = {}
        listed = zip(*(column.tolist() for column in columns), strict=True)
        for row, (serial, version, stored_at_s, postings) in enumerate(listed):
            record = headers.get(serial)
            if (
                record is not None
                and record.stored_at_s == stored_at_s
                and record.version.encode() == version
                and record.postings == postings
            ):
                rows[serial] = row
        return rows

    def segments(self, ordinals: npt.NDArray[np.uint32]) -> list[Segment]:
        """Wait for the columns and return the segments.

        Parameters
        ----------
        ordinals
            uint32 (slides here + 1,): the ordinal of each slide's row, then that of forgotten rows.

        Raises
        ------
        Unusable
            If a checksum does not match, or the columns break a segment's rules.
        """
        try:
            for block in self._reading:
                block.result()
            counts = np.zeros(len(ordinals), np.int64)
            for columns in self._columns:
                counts += _renumbered(columns["ordinals"], ordinals)
            if not np.array_equal(counts[:-1], self._postings):
                raise self._file.damaged("has other rows than it says")
            return [segment_from(columns, self.code_bytes) for columns in self._columns]
        except (SishError, OSError) as error:
            raise Unusable(self._file.path, error) from error

    def _check_owner(self, wanted: Mapping[str, Any]) -> None:
        found = {name: self._file.about.get(name) for name in wanted}
        if found != wanted:
            raise CheckpointMismatch(f"{self._file.path} is of {found}, expected {dict(wanted)}")

    def _begun(self, i: int, n_rows: int, pool: Executor) -> dict[str, npt.NDArray[Any]]:
        number_type, _ = self._file.kind_of(f"numbers of {i}")
        columns = columns_for(n_rows, self.code_bytes, number_type)
        for name, column in columns.items():
            self._reading += self._file.reading(f"{name} of {i}", column, pool)
        return columns


def _renumbered(
    column: npt.NDArray[np.uint32], ordinals: npt.NDArray[np.uint32]
) -> npt.NDArray[np.int64]:
    """Turn rows of the slide table into ordinals in place; return how often each row occurred."""
    counts = np.bincount(column, minlength=len(ordinals))
    if len(counts) > len(ordinals):
        raise Corrupt(f"row {len(counts) - 1} of {len(ordinals)} slides")
    for start in range(0, len(column), 1 << 20):
        part = column[start : start + (1 << 20)]
        part[:] = ordinals[part]
    return counts
