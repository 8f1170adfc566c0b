"""The checkpoint file: named columns, a checksum per block, whole or not there.

::

    MAGIC                   8 bytes
    columns                 as they lie in memory (little-endian), each from a multiple of 64 bytes on,
                            zeros between
    table                   JSON: what the file is about; each column's name, type, shape, place and
                            the CRC-32C of each of its blocks of 4 MiB
    trailer                 place, length and CRC-32C of the table, then MAGIC again

Every byte is under a checksum or compared, so a flipped one is found, and so is a missing end. The file
is written under a temporary name, synced, renamed, and its folder synced: at any moment there is the old
file, the new one, or none. It is mapped, not read: pages the kernel still has cost neither a copy
nor new memory, which is most of what a restart would take. A file that has its name is never written to
again, so what was checked stays as it was.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import functools
import json
import math
import mmap
import os
import shutil
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import crc32c
import numpy as np
import numpy.typing as npt

from sish_cluster.core.errors import CheckpointMismatch, Corrupt
from sish_cluster.shard.data_dir import read_ahead, sync_folder
from sish_cluster.shard.steps import reached

FILE_LAYOUT = 1
"""Layout of the file as drawn above."""

MAGIC = b"SISHCKPT"
"""First and last bytes of a file that was written to its end."""

BLOCK_BYTES = 4 << 20
"""4 MiB: a checksum's reach and a thread's unit of reading; small enough to stay in a cache."""

SYNC_BYTES = 32 << 20
"""Bytes written between two syncs, so that the writer's own sync never waits behind a gigabyte."""

MOST_OF_FREE = 0.5
"""Share of the free disk that a file may take while the old one is still there."""

ALIGNMENT = 64
"""Columns start at a multiple of this: a cache line, as they do in memory."""

_TRAILER = struct.Struct("<QII8s")
"""Place of the table, its bytes, its CRC-32C, MAGIC."""

Column = npt.NDArray[Any]


class Abandoned(Exception):
    """Writing was called off."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Placed:
    """A column of the table."""

    dtype: str
    shape: tuple[int, ...]
    place: int
    checksums: Sequence[int]


def write_columns(
    path: Path,
    about: Mapping[str, Any],
    columns: Mapping[str, Column],
    *,
    is_called_off: Callable[[], bool] = lambda: False,
) -> None:
    """Write a file durably, whole or not at all.

    Parameters
    ----------
    path
        Its name; an older file there is replaced at the end.
    about
        What it holds, as JSON values.
    columns
        Arrays by name; they must not change meanwhile.
    is_called_off
        Asked between blocks.

    Raises
    ------
    Abandoned
        If it was called off; the old file is still there.
    OSError
        If the disk refuses; the old file is still there.
    """
    path.parent.mkdir(exist_ok=True)
    _check_room(path.parent, sum(column.nbytes for column in columns.values()))
    part = path.with_name(path.name + ".part")
    reached("checkpoint begun")
    try:
        with open(part, "wb") as file:
            _write(file, about, columns, is_called_off)
            reached("checkpoint written")
            file.flush()
            os.fsync(file.fileno())
        reached("checkpoint synced")
        os.replace(part, path)
        reached("checkpoint renamed")
        sync_folder(path.parent)
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
    reached("checkpoint durable")


def _check_room(folder: Path, n_bytes: int) -> None:
    """Refuse to take more than a part of the free disk: the store needs it more than its copy."""
    free = shutil.disk_usage(folder).free
    if n_bytes > MOST_OF_FREE * free:
        problem = f"{n_bytes} bytes would take more than {MOST_OF_FREE:.0%} of {free} free ones"
        raise OSError(errno.ENOSPC, problem)


def _write(
    file: Any,
    about: Mapping[str, Any],
    columns: Mapping[str, Column],
    is_called_off: Callable[[], bool],
) -> None:
    file.write(MAGIC)
    place = len(MAGIC)
    synced, placed = 0, {}
    for name, column in columns.items():
        checksums = []
        file.write(bytes(-place % ALIGNMENT))
        place += -place % ALIGNMENT
        for block in _blocks(column):
            if is_called_off():
                raise Abandoned
            checksums.append(int(crc32c.crc32c(block)))
            file.write(block)
            synced += len(block)
            if synced >= SYNC_BYTES:
                file.flush()
                os.fsync(file.fileno())
                synced = 0
        dtype = column.dtype.newbyteorder("<").str
        placed[name] = _Placed(dtype, column.shape, place, checksums)
        place += column.nbytes
        reached(f"checkpoint column {name}")
    table = _table_bytes(about, placed)
    file.write(table)
    file.write(_TRAILER.pack(place, len(table), crc32c.crc32c(table), MAGIC))


def _table_bytes(about: Mapping[str, Any], placed: Mapping[str, _Placed]) -> bytes:
    columns = {name: dataclasses.asdict(column) for name, column in placed.items()}
    return json.dumps({"layout": FILE_LAYOUT, "about": about, "columns": columns}).encode()


def _blocks(column: Column) -> Iterator[memoryview]:
    """Yield a contiguous column's bytes, 4 MiB at a time."""
    whole = column.reshape(-1).view(np.uint8).data if column.size else memoryview(b"")
    for start in range(0, len(whole), BLOCK_BYTES):
        yield whole[start : start + BLOCK_BYTES]


class CheckpointFile:
    """A file that `write_columns` wrote, mapped for reading; its columns live as long as they are used.

    Raises
    ------
    Corrupt
        If it is cut off, or its table does not match its checksum.
    CheckpointMismatch
        If another layout wrote it.
    OSError
        If there is no such file, or it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        read_ahead(path)
        with open(path, "rb") as file:
            self._size = os.fstat(file.fileno()).st_size
            if self._size < len(MAGIC) + _TRAILER.size:
                raise self.damaged(f"is only {self._size} bytes long")
            self._map = mmap.mmap(file.fileno(), self._size, access=mmap.ACCESS_COPY)
        self._end, self.about, self._columns = self._table()
        self._check_gaps()

    @property
    def names(self) -> set[str]:
        """The columns there are."""
        return set(self._columns)

    def kind_of(self, name: str) -> tuple[np.dtype[Any], tuple[int, ...]]:
        """Return a column's type and shape."""
        column = self._columns.get(name)
        if column is None:
            raise self.damaged(f"has no column {name!r}")
        return np.dtype(column.dtype), tuple(column.shape)

    def column(self, name: str) -> Column:
        """Return a small column, checked."""
        column, checks = self._checks(name)
        for check in checks:
            check()
        return column

    def let_go(self, name: str) -> None:
        """Give back the pages of a column that will be read a little at a time, if at all.

        They come back from the file, which has not changed since it was checked.
        """
        placed = self._columns[name]
        dtype, shape = self.kind_of(name)
        start = placed.place - placed.place % mmap.PAGESIZE
        end = placed.place + math.prod(shape) * dtype.itemsize
        with contextlib.suppress(OSError):  # where it cannot be asked for, they only stay
            self._map.madvise(mmap.MADV_DONTNEED, start, end - start)

    def reading(self, name: str, like: Column, pool: Executor) -> tuple[Column, list[Future[None]]]:
        """Return a column and begin to check it by the threads of a pool, one future per block.

        The column is mapped copy-on-write and outlives this object; ``like`` has the type and
        shape it must have.
        """
        dtype, shape = self.kind_of(name)
        if (like.dtype, like.shape) != (dtype, shape):
            raise CheckpointMismatch(
                f"{self.path}: column {name!r} is {dtype} {shape}, this version keeps {like.dtype}"
                f" {like.shape}"
            )
        column, checks = self._checks(name)
        return column, [pool.submit(check) for check in checks]

    def damaged(self, problem: str) -> Corrupt:
        """Return the error that names this file."""
        return Corrupt(f"{self.path} {problem}", metadata={"file": str(self.path)})

    def _checks(self, name: str) -> tuple[Column, list[Callable[[], None]]]:
        dtype, shape = self.kind_of(name)
        placed = self._columns[name]
        n_bytes = math.prod(shape) * dtype.itemsize
        if placed.place + n_bytes > self._end:
            raise self.damaged(f"ends before column {name!r}")
        if placed.place % ALIGNMENT:
            raise CheckpointMismatch(f"{self.path}: column {name!r} starts within a cache line")
        raw = np.frombuffer(self._map, np.uint8, n_bytes, placed.place)
        blocks = list(_blocks(raw))
        if len(blocks) != len(placed.checksums):
            raise self.damaged(
                f"lists {len(placed.checksums)} blocks of {name!r}, not {len(blocks)}"
            )

        def check(i: int) -> None:
            if crc32c.crc32c(blocks[i]) != placed.checksums[i]:
                raise self.damaged(f"does not match its CRC-32C in block {i} of {name!r}")

        column = raw.view(dtype).reshape(shape)
        return column, [functools.partial(check, i) for i in range(len(blocks))]

    def _check_gaps(self) -> None:
        """Check that there are only zeros between the columns."""
        end = len(MAGIC)
        for placed in self._columns.values():
            if any(self._map[end : placed.place]):
                raise self.damaged(f"is not zero between bytes {end} and {placed.place}")
            end = placed.place + math.prod(placed.shape) * np.dtype(placed.dtype).itemsize
        if end != self._end:
            raise self.damaged(f"has its table at byte {self._end}, not {end}")

    def _table(self) -> tuple[int, dict[str, Any], dict[str, _Placed]]:
        size = self._size
        place, length, checksum, magic = _TRAILER.unpack(self._map[size - _TRAILER.size :])
        if magic != MAGIC or self._map[: len(MAGIC)] != MAGIC:
            raise self.damaged("does not begin and end as a checkpoint does")
        if place + length + _TRAILER.size != size:
            raise self.damaged(f"is {size} bytes long, not {place + length + _TRAILER.size}")
        table = self._map[place : place + length]
        if crc32c.crc32c(table) != checksum:
            raise self.damaged("does not match the CRC-32C of its table")
        values = json.loads(table)
        if values["layout"] != FILE_LAYOUT:
            raise CheckpointMismatch(
                f"{self.path} has layout {values['layout']}, this version reads {FILE_LAYOUT}"
            )
        columns = {
            name: _Placed(c["dtype"], tuple(c["shape"]), c["place"], c["checksums"])
            for name, c in values["columns"].items()
        }
        return place, values["about"], columns
