"""The durable store: one LMDB environment, a table per kind of record, every commit synced to disk.

The only file that knows LMDB. Writes come from one thread at a time, in batches that are atomic and on
disk when `Store.write` returns. Reads happen when a shard loads, when it is checked, when it is copied and
when a slide is asked for as it was ingested; searches never touch the disk.

What can go wrong is turned into the project's errors: a full map or disk is `StoreFull` (after
adopting a raised limit and freeing the slots of dead readers), pages that make no sense are `Corrupt`.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import lmdb

from sish_cluster.core.collection import Collection
from sish_cluster.core.errors import Corrupt, NotPermitted, SishError, StoreFull, Unavailable
from sish_cluster.core.posting import PatchColumns
from sish_cluster.shard import records
from sish_cluster.shard.data_dir import read_ahead, sync_folder
from sish_cluster.shard.lending import Lending
from sish_cluster.shard.records import Kind, SlideRecord, Totals

OVERDRAW_BYTES = 4 << 20
"""Room above the limit for forgetting and committing, so that a full store can always be emptied."""

LAST_SERIAL = (1 << 64) - 1
"""Above every serial a slide ever gets."""

_TABLES = {kind: kind.name.lower().encode() for kind in Kind}
_LATE_TABLES = (Kind.EMBEDDING,)
# Made with the first collection that needs them: a store of before, even a full one, opens as it is.

_FULL_TEXTS = ("no space left", "file too large", "quota exceeded", "input/output error")
# LMDB turns a write that the disk took only in part into EIO; only free space tells it from a defect.

_DAMAGE = (
    lmdb.CorruptedError,
    lmdb.PageNotFoundError,
    lmdb.InvalidError,
    lmdb.VersionMismatchError,
    lmdb.IncompatibleError,
    lmdb.BadValsizeError,
    lmdb.CursorFullError,
)


class Rows(Protocol):
    """Yields (address, record) of one kind in order, of slides with ``first <= serial < end``."""

    def __call__(
        self, kind: Kind, first: int = 0, end: int = LAST_SERIAL
    ) -> Iterator[tuple[Any, Any]]:
        """Yield LMDB's own buffers."""


class Batch:
    """What one durable commit changes; handed to the writer by `Store.write`.

    Parameters
    ----------
    txn
        LMDB's.
    tables
        The tables there are; those the batch makes are added.
    make_table
        Makes a table within the batch.
    """

    def __init__(
        self, txn: Any, tables: dict[Kind, Any], make_table: Callable[[bytes], Any]
    ) -> None:
        self._txn = txn
        self._tables = tables
        self._make_table = make_table
        self._deltas: dict[int, tuple[int, int]] = {}

    def put_collection(self, number: int, collection: Collection) -> None:
        """Write a collection's definition under its name, and empty totals."""
        name = collection.name.encode()
        if collection.dimensions and Kind.EMBEDDING not in self._tables:
            self._tables[Kind.EMBEDDING] = self._make_table(_TABLES[Kind.EMBEDDING])
        self._put(Kind.COLLECTION, name, records.collection_payload(number, collection))
        self._deltas.setdefault(number, (0, 0))

    def put_slide(
        self, number: int, serial: int, record: SlideRecord, patches: PatchColumns
    ) -> None:
        """Write a new slide: header, keys, blobs and embeddings."""
        self.put_header(number, serial, record)
        for chunk, (keys, blob) in enumerate(records.chunk_payloads(patches)):
            address = records.chunk_address(number, serial, chunk)
            self._put(Kind.KEYS, address, keys)
            self._put(Kind.BLOB, address, blob)
        for chunk, embeddings in enumerate(records.embedding_payloads(patches)):
            address = records.chunk_address(number, serial, chunk)
            self._put(Kind.EMBEDDING, address, embeddings)
        self._count(number, 1, record.postings)

    def put_header(self, number: int, serial: int, record: SlideRecord) -> None:
        """Write a slide's header over the old one."""
        address = records.slide_address(number, serial)
        self._put(Kind.SLIDE, address, records.slide_payload(record))

    def delete_slide(
        self, number: int, serial: int, *, postings: int, chunks: Mapping[Kind, int]
    ) -> None:
        """Remove a slide's records; ``chunks`` as `records.chunk_counts` says."""
        self._txn.delete(records.slide_address(number, serial), db=self._tables[Kind.SLIDE])
        for kind, n_chunks in chunks.items():
            for chunk in range(n_chunks):
                address = records.chunk_address(number, serial, chunk)
                self._txn.delete(address, db=self._tables[kind])
        self._count(number, -1, -postings)

    def put_totals(self, number: int, totals: Totals) -> None:
        """Write a collection's totals as they were counted."""
        self._put(Kind.TOTALS, str(number).encode(), records.totals_payload(totals))
        self._deltas.pop(number, None)

    def delete_at(self, kind: Kind, address: bytes) -> None:
        """Remove one record, whatever it holds (only to drop damage)."""
        self._txn.delete(address, db=self._tables[kind])

    def sum_up(self) -> None:
        """Write the totals of every collection changed; the last step of a batch."""
        for number, (slides, postings) in self._deltas.items():
            address = str(number).encode()
            record = self._txn.get(address, db=self._tables[Kind.TOTALS])
            held = records.totals_of(address, record) if record else Totals()
            totals = Totals(held.slides + slides, held.postings + postings)
            self._put(Kind.TOTALS, address, records.totals_payload(totals))

    def _count(self, number: int, slides: int, postings: int) -> None:
        held = self._deltas.get(number, (0, 0))
        self._deltas[number] = (held[0] + slides, held[1] + postings)

    def _put(self, kind: Kind, address: bytes, payload: bytes) -> None:
        self._txn.put(address, records.sealed(kind, address, payload), db=self._tables[kind])


class Store:
    """One LMDB environment.

    Parameters
    ----------
    folder
        Where ``data.mdb`` lies or shall lie; it exists.
    limit_bytes
        Returns the bytes the store may grow to; asked when opening and whenever the store is full.
    is_read_only
        Read while another process serves.

    Raises
    ------
    Corrupt
        If what lies there is no LMDB environment.
    """

    def __init__(
        self, folder: Path, *, limit_bytes: Callable[[], int], is_read_only: bool = False
    ) -> None:
        self.folder = folder
        self._limit_bytes = limit_bytes
        self._is_read_only = is_read_only
        self._resizing = threading.Lock()
        self._lending = Lending()
        self._open()

    def _open(self) -> None:
        with _translated(self.folder):
            self._env = lmdb.open(
                str(self.folder),
                map_size=0 if self._is_read_only else self._limit_bytes(),
                max_dbs=len(_TABLES),
                readonly=self._is_read_only,
                create=not self._is_read_only,
                meminit=False,
                readahead=False,  # headers lie scattered among blobs: see `read_ahead`
            )
            tables = {kind: self._table(kind) for kind in _TABLES}
            self._tables = {kind: table for kind, table in tables.items() if table is not None}
            if not self._is_read_only:
                self._env.reader_check()
        if not self._is_read_only:
            sync_folder(self.folder)

    def _table(self, kind: Kind) -> Any:
        """Return a table, or None for one that is made later."""
        is_late = kind in _LATE_TABLES
        try:
            return self._env.open_db(_TABLES[kind], create=not (is_late or self._is_read_only))
        except lmdb.NotFoundError:
            if is_late:
                return None
            raise

    def close(self) -> None:
        """Close the environment; nothing is lost, every batch is on disk already."""
        self._env.close()

    def reopen(self) -> None:
        """Close and open again: pages a load touched no longer count as this process's memory."""
        with self._resizing, self._lending.moving():
            self.close()
            self._open()

    @property
    def map_bytes(self) -> int:
        """Bytes the store may grow to."""
        return int(self._env.info()["map_size"])

    @property
    def used_bytes(self) -> int:
        """Bytes of the file in use, pages freed and not yet reused included."""
        return (int(self._env.info()["last_pgno"]) + 1) * int(self._env.stat()["psize"])

    def is_truncated(self) -> bool:
        """Whether the file is shorter than its last page: reading it could end the process."""
        return (self.folder / "data.mdb").stat().st_size < self.used_bytes

    def write(self, fill: Callable[[Batch], None], *, may_overdraw: bool = False) -> None:
        """Commit what ``fill`` puts into a batch: all of it durable, or nothing changed.

        Parameters
        ----------
        fill
            Writes into the batch; an exception abandons the batch. It is called again when the
            store was full and has grown.
        may_overdraw
            Use the reserve above the limit when the map is full.

        Raises
        ------
        StoreFull
            If the map or the disk is full; the store is as before and can be used.
        """
        try:
            try:
                self._commit(fill)
            except lmdb.MapFullError:
                self._commit_with_room(fill, may_overdraw)
        except lmdb.MapFullError as error:
            raise StoreFull(self._full_message()) from error
        except lmdb.Error as error:
            raise self._write_error(error) from error

    def _commit(self, fill: Callable[[Batch], None]) -> None:
        tables = dict(self._tables)
        with self._env.begin(write=True) as txn:
            batch = Batch(txn, tables, lambda name: self._env.open_db(name, txn=txn))
            fill(batch)
            batch.sum_up()
        self._tables = tables

    def _commit_with_room(self, fill: Callable[[Batch], None], may_overdraw: bool) -> None:
        """Commit after adopting a raised limit and freeing dead readers' slots; use the reserve."""
        self._env.reader_check()
        limit = self._limit_bytes()
        with self._resizing, self._lending.moving():
            try:
                self._env.set_mapsize(limit + (OVERDRAW_BYTES if may_overdraw else 0))
                self._commit(fill)
            finally:
                self._env.set_mapsize(limit)

    def _full_message(self) -> str:
        disk = os.statvfs(self.folder)
        return (
            f"the store {self.folder} is full: {self.used_bytes} bytes in use of a limit of"
            f" {self._limit_bytes()}, {disk.f_bavail * disk.f_frsize} bytes free on the disk."
            " Searches go on. Raise the limit with `sish shard grow --data-dir D --map-size SIZE`, free"
            " disk space, or forget slides; writes then go on without a restart"
        )

    def _write_error(self, error: lmdb.Error) -> SishError:
        text = str(error).lower()
        if isinstance(error, lmdb.DiskError) or any(full in text for full in _FULL_TEXTS):
            return StoreFull(f"the disk refused a write ({error}); {self._full_message()}")
        with contextlib.suppress(SishError, lmdb.Error):
            # After a failed sync LMDB refuses every call until the environment is opened again.
            self.reopen()
        return _error_of(error, self.folder)

    def collections(self) -> list[tuple[int, Collection]]:
        """Return the collections with their numbers, by number."""
        with self._reading() as txn:
            cursor = txn.cursor(self._tables[Kind.COLLECTION])
            return sorted(
                (records.collection_of(name, record) for name, record in cursor),
                key=lambda pair: pair[0],
            )

    def totals(self, number: int) -> Totals:
        """Return how many slides and postings the store says a collection has."""
        address = str(number).encode()
        with self._reading() as txn:
            record = txn.get(address, db=self._tables[Kind.TOTALS])
            if record is None:
                raise records.damaged(Kind.TOTALS, address, "is missing")
            return records.totals_of(address, record)

    @contextlib.contextmanager
    def rows(self, number: int) -> Iterator[Rows]:
        """Lend a collection's raw records of one moment; the buffers end with the block."""
        tables = self._tables
        with self._reading() as txn:

            def rows_of(
                kind: Kind, first: int = 0, end: int = LAST_SERIAL
            ) -> Iterator[tuple[Any, Any]]:
                if kind not in tables:
                    return
                cursor = txn.cursor(tables[kind])
                stop = records.slide_address(number, end)
                if not cursor.set_range(records.slide_address(number, first)):
                    return
                for address, record in cursor:
                    if bytes(address[: len(stop)]) >= stop:
                        return
                    yield address, record

            yield rows_of

    def read_ahead(self) -> None:
        """Have the kernel bring the whole file into its cache, because all of it will be read."""
        read_ahead(self.folder / "data.mdb")

    def copy(self, folder: Path) -> None:
        """Copy the store as of this moment into an empty folder, compacted, while writes go on."""
        self.read_ahead()
        with self._resizing, _translated(self.folder, full=lambda: f"no space to copy to {folder}"):
            self._env.copy(str(folder), compact=True)
        with open(folder / "data.mdb", "rb") as file:
            os.fsync(file.fileno())
        sync_folder(folder)

    @contextlib.contextmanager
    def _reading(self) -> Iterator[Any]:
        with (
            self._lending.reading(),
            _translated(self.folder),
            self._env.begin(buffers=True) as txn,
        ):
            yield txn


@contextlib.contextmanager
def _translated(folder: Path, *, full: Callable[[], str] | None = None) -> Iterator[None]:
    try:
        yield
    except lmdb.MapFullError as error:
        raise StoreFull(full() if full else f"{folder} is full: {error}") from error
    except lmdb.Error as error:
        text = str(error).lower()
        if full and (isinstance(error, lmdb.DiskError) or "no space left" in text):
            raise StoreFull(full()) from error
        raise _error_of(error, folder) from error


def _error_of(error: lmdb.Error, folder: Path) -> SishError:
    text = str(error).lower()
    if "permission denied" in text or "read-only file system" in text:
        return NotPermitted(f"{folder} cannot be opened ({error}): make it readable and writable")
    if isinstance(error, _DAMAGE):
        return Corrupt(
            f"{folder}/data.mdb is damaged: LMDB says {error}. Restore a backup with `sish shard restore`",
            metadata={"file": f"{folder}/data.mdb"},
        )
    return Unavailable(
        f"LMDB could not use {folder}: {error}; searches go on, writes may be retried"
    )
