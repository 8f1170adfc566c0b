"""The checkpoint file: named columns, a checksum per block, whole or not there.

::

    MAGIC                   8 bytes
    columns                 one after the other, as they lie in memory (little-endian)
    table                   JSON: what the file is about; each column's name, type, shape, place and
                            the CRC-32C of each of its blocks of 4 MiB
    trailer                 place, length and CRC-32C of the table, then MAGIC again

Every byte is under a checksum or compared, so a flipped one is found, and so is a missing end. The file
is written under a temporary name, synced, renamed, and its folder synced: at any moment there is the old
file, the new one, or none. It is read into memory, not mapped: what was checked is then what is
served, whatever happens to the disk later, and no page of it can be evicted from under a search.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import crc32c
import numpy as np
import numpy.typing as npt

from sish_cluster.core.errors import CheckpointMismatch, Corrupt
from sish_cluster.shard.data_dir import sync_folder
from sish_cluster.shard.steps import reached

FILE_LAYOUT = 1
"""Layout of the file as drawn above."""

MAGIC = b"SISHCKPT"
"""First and last bytes of a file that was written to its end."""

BLOCK_BYTES = 4 << 20
"""4 MiB: a checksum's reach and a thread's unit of reading; small enough to stay in a cache."""

SYNC_BYTES = 32 << 20
"""Bytes written between two syncs, so that the writer's own sync never waits behind a gigabyte."""

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


def _write(
    file: Any,
    about: Mapping[str, Any],
    columns: Mapping[str, Column],
    is_called_off: Callable[[], bool],
) -> None:
    file.write(MAGIC)
    place = len(MAGIC)
    total = sum(column.nbytes for column in columns.values())
    os.posix_fallocate(file.fileno(), 0, max(1, place + total))  # a full disk shows before the work
    synced, placed = 0, {}
    for name, column in columns.items():
        checksums = []
        for block in _blocks(column):
            if is_called_off():
                raise Abandoned
            checksums.append(int(crc32c.crc32c(block)))
            file.write(block)
            synced += len(block)
            if synced >= SYNC_BYTES:
                file.flush()
                os.fdatasync(file.fileno())
                synced = 0
        dtype = column.dtype.newbyteorder("<").str
        placed[name] = _Placed(dtype, column.shape, place, checksums)
        place += column.nbytes
        reached(f"checkpoint column {name}")
    table = _table_bytes(about, placed)
    file.write(table)
    file.write(_TRAILER.pack(place, len(table), crc32c.crc32c(table), MAGIC))
    file.truncate()


def _table_bytes(about: Mapping[str, Any], placed: Mapping[str, _Placed]) -> bytes:
    columns = {name: dataclasses.asdict(column) for name, column in placed.items()}
    return json.dumps({"layout": FILE_LAYOUT, "about": about, "columns": columns}).encode()


def _blocks(column: Column) -> Iterator[memoryview]:
    """Yield a contiguous column's bytes, 4 MiB at a time; writing to them writes to the column."""
    whole = column.reshape(-1).view(np.uint8).data if column.size else memoryview(b"")
    for start in range(0, len(whole), BLOCK_BYTES):
        yield whole[start : start + BLOCK_BYTES]


class CheckpointFile:
    """A file that `write_columns` wrote, opened for reading; close it after the last column.

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
        self._file = os.open(path, os.O_RDONLY)
        try:
            self.about, self._columns = self._table()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def kind_of(self, name: str) -> tuple[np.dtype[Any], tuple[int, ...]]:
        """Return a column's type and shape."""
        column = self._columns.get(name)
        if column is None:
            raise self.damaged(f"has no column {name!r}")
        return np.dtype(column.dtype), tuple(column.shape)

    def column(self, name: str) -> Column:
        """Return a small column, read and checked."""
        dtype, shape = self.kind_of(name)
        array = np.empty(shape, dtype)
        for read in self._reads(name, array):
            read()
        return array

    def reading(self, name: str, array: Column, pool: Executor) -> list[Future[None]]:
        """Read a column into ``array`` by the threads of a pool; each future is one block, checked."""
        if (array.dtype, array.shape) != self.kind_of(name):
            dtype, shape = self.kind_of(name)
            raise CheckpointMismatch(
                f"{self.path}: column {name!r} is {dtype} {shape}, this version keeps {array.dtype}"
                f" {array.shape}"
            )
        return [pool.submit(read) for read in self._reads(name, array)]

    def damaged(self, problem: str) -> Corrupt:
        """Return the error that names this file."""
        return Corrupt(f"{self.path} {problem}", metadata={"file": str(self.path)})

    def _reads(self, name: str, array: Column) -> Iterator[Callable[[], None]]:
        column = self._columns[name]
        blocks = list(_blocks(array))
        if len(blocks) != len(column.checksums):
            raise self.damaged(
                f"lists {len(column.checksums)} blocks of {name!r}, not {len(blocks)}"
            )
        for i, (block, checksum) in enumerate(zip(blocks, column.checksums, strict=True)):

            def read(i: int = i, block: memoryview = block, checksum: int = checksum) -> None:
                self._fill(block, column.place + i * BLOCK_BYTES)
                if crc32c.crc32c(block) != checksum:
                    raise self.damaged(f"does not match its CRC-32C in block {i} of {name!r}")

            yield read

    def _fill(self, block: memoryview, place: int) -> None:
        done = 0
        while done < len(block):
            n = os.preadv(self._file, [block[done:]], place + done)
            if n == 0:
                raise self.damaged(f"ends at byte {place + done}")
            done += n

    def _table(self) -> tuple[dict[str, Any], dict[str, _Placed]]:
        size = os.fstat(self._file).st_size
        if size < len(MAGIC) + _TRAILER.size:
            raise self.damaged(f"is only {size} bytes long")
        trailer = os.pread(self._file, _TRAILER.size, size - _TRAILER.size)
        place, length, checksum, magic = _TRAILER.unpack(trailer)
        if magic != MAGIC or os.pread(self._file, len(MAGIC), 0) != MAGIC:
            raise self.damaged("does not begin and end as a checkpoint does")
        if place + length + _TRAILER.size != size:
            raise self.damaged(f"is {size} bytes long, not {place + length + _TRAILER.size}")
        table = os.pread(self._file, length, place)
        if crc32c.crc32c(table) != checksum:
            raise self.damaged("does not match the CRC-32C of its table")
        values = json.loads(table)
        if values["layout"] != FILE_LAYOUT:
            raise CheckpointMismatch(
                f"{self.path} has layout {values['layout']}, this version reads {FILE_LAYOUT}"
            )
        return values["about"], {
            name: _Placed(c["dtype"], tuple(c["shape"]), c["place"], c["checksums"])
            for name, c in values["columns"].items()
        }
