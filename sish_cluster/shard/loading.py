"""Loading: every record of a store, checked, into ledgers and indexes.

Loading and scrubbing are one walk over the same records: a shard that opens has seen every checksum
match, every slide complete, and the totals agree.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from sish_cluster.core.collection import Collection
from sish_cluster.core.errors import Corrupt
from sish_cluster.core.key import UNIVERSE
from sish_cluster.core.seams import SlideState
from sish_cluster.shard import records
from sish_cluster.shard.held import HeldCollection
from sish_cluster.shard.index import PostingIndex
from sish_cluster.shard.ledger import Ledger
from sish_cluster.shard.records import Kind, SlideRecord, Totals
from sish_cluster.shard.store import Store

Rows = Callable[[Kind], Iterator[tuple[Any, Any]]]
"""Yields the raw records of one kind, by address."""


@dataclasses.dataclass(frozen=True, eq=False)
class Loaded:
    """Everything sound of one collection.

    Parameters
    ----------
    headers
        Serial -> header of each sound slide, in serial order.
    keys, codes, corners, numbers
        Their postings' columns, slide after slide.
    damage
        What is wrong, nothing for a sound collection.
    broken
        Serials of slides that are not sound.
    """

    headers: dict[int, SlideRecord]
    keys: npt.NDArray[np.uint64]
    codes: npt.NDArray[np.uint8]
    corners: npt.NDArray[np.int32]
    numbers: npt.NDArray[np.uint32]
    damage: list[Corrupt]
    broken: set[int]

    def lengths(self) -> list[int]:
        """Return each sound slide's rows."""
        return [record.postings for record in self.headers.values()]


def loaded(store: Store, number: int, collection: Collection) -> Loaded:
    """Read and check all records of a collection, collecting damage instead of stopping at it."""
    damage: list[Corrupt] = []
    broken: set[int] = set()
    with store.rows(number) as rows:
        headers = _headers(rows, damage, broken)
        columns = _Columns(headers, collection.code_bytes)
        columns.fill(rows, damage, broken)
    _check_totals(store, number, headers, broken, damage)
    sound = {serial: record for serial, record in headers.items() if serial not in broken}
    keys, codes, corners, numbers = columns.of(sound)
    return Loaded(sound, keys, codes, corners, numbers, damage, broken)


def held_collection(store: Store, number: int, collection: Collection) -> HeldCollection:
    """Return a collection ready to be searched.

    Raises
    ------
    Corrupt
        If anything is damaged: a shard never serves a part as if it were the whole.
    """
    found = loaded(store, number, collection)
    if found.damage:
        raise joined(found.damage)
    ledger = Ledger()
    given = [ledger.add(serial, record) for serial, record in found.headers.items()]
    index = PostingIndex.bulk(
        collection.code_bytes,
        keys=found.keys,
        codes=found.codes,
        ordinals=np.repeat(np.array(given, np.uint32), found.lengths()),
        numbers=found.numbers,
        corners=found.corners,
    )
    next_serial = max(found.headers, default=-1) + 1
    return HeldCollection(number, collection, ledger, index, next_serial)


def joined(damage: list[Corrupt]) -> Corrupt:
    """Return one error that tells how much is damaged and names the first records."""
    named = "; ".join(error.message for error in damage[:3])
    more = f"; and {len(damage) - 3} more" if len(damage) > 3 else ""
    return Corrupt(f"{len(damage)} damaged: {named}{more}", metadata=damage[0].metadata)


def _headers(rows: Rows, damage: list[Corrupt], broken: set[int]) -> dict[int, SlideRecord]:
    headers: dict[int, SlideRecord] = {}
    seen: set[tuple[str, str]] = set()
    for address, record in rows(Kind.SLIDE):
        serial = records.serial_of(address)
        try:
            header = records.slide_record_of(address, record)
            slide_id, is_committed = header.slide.slide_id, header.state is SlideState.COMMITTED
            identity = (slide_id, "" if is_committed else header.version)
            if identity in seen:
                raise records.damaged(Kind.SLIDE, address, f"repeats slide {slide_id!r}")
        except Corrupt as error:
            damage.append(error)
            broken.add(serial)
            continue
        seen.add(identity)
        headers[serial] = header
    return headers


class _Columns:
    """The columns of all slides that have a header, filled chunk by chunk."""

    def __init__(self, headers: dict[int, SlideRecord], code_bytes: int) -> None:
        self._code_bytes = code_bytes
        self._headers = headers
        lengths = np.array([record.postings for record in headers.values()], np.int64)
        starts = np.concatenate([[0], np.cumsum(lengths)]).tolist()
        self._starts = dict(zip(headers, starts[:-1], strict=True))
        n = starts[-1]
        self._keys = np.empty(n, np.uint64)
        self._codes = np.empty((n, code_bytes), np.uint8)
        self._corners = np.empty((n, 2), np.int32)
        self._numbers = np.empty(n, np.uint32)

    def fill(self, rows: Rows, damage: list[Corrupt], broken: set[int]) -> None:
        """Read keys and blobs; name what is damaged, missing or left over."""
        for kind, take in ((Kind.KEYS, self._take_keys), (Kind.BLOB, self._take_blob)):
            counted = dict.fromkeys(self._headers, 0)
            for address, record in rows(kind):
                serial = records.serial_of(address)
                chunk = int.from_bytes(address[12:16], "big")
                if serial in counted:
                    counted[serial] += 1
                try:
                    take(serial, chunk, address, record)
                except Corrupt as error:
                    self._note(error, serial, damage, broken)
            for serial, chunks in counted.items():
                self._check_count(kind, serial, chunks, damage, broken)

    def of(self, sound: dict[int, SlideRecord]) -> tuple[Any, Any, Any, Any]:
        """Return keys, codes, corners and numbers of the sound slides."""
        if len(sound) == len(self._headers):
            return self._keys, self._codes, self._corners, self._numbers
        kept = np.repeat(
            [serial in sound for serial in self._headers],
            [record.postings for record in self._headers.values()],
        ).astype(bool)
        return self._keys[kept], self._codes[kept], self._corners[kept], self._numbers[kept]

    def _place(self, kind: Kind, serial: int, chunk: int, address: Any) -> slice:
        record = self._headers.get(serial)
        rows = records.chunk_rows_of(self._code_bytes)
        if record is None or chunk * rows >= record.postings:
            raise records.damaged(kind, address, "belongs to no sound slide header")
        start = self._starts[serial] + chunk * rows
        return slice(start, min(start + rows, self._starts[serial] + record.postings))

    def _take_keys(self, serial: int, chunk: int, address: Any, record: Any) -> None:
        place = self._place(Kind.KEYS, serial, chunk, address)
        keys = np.frombuffer(records.opened(Kind.KEYS, address, record), "<u8")
        if len(keys) != place.stop - place.start or (len(keys) and int(keys.max()) >= UNIVERSE):
            raise records.damaged(Kind.KEYS, address, f"holds {len(keys)} keys, or keys too large")
        self._keys[place] = keys

    def _take_blob(self, serial: int, chunk: int, address: Any, record: Any) -> None:
        place = self._place(Kind.BLOB, serial, chunk, address)
        payload = records.opened(Kind.BLOB, address, record)
        rows = place.stop - place.start
        ends = (rows * self._code_bytes, rows * (self._code_bytes + 8))
        if len(payload) != rows * (self._code_bytes + records.ROW_EXTRA_BYTES):
            raise records.damaged(Kind.BLOB, address, f"holds {len(payload)} bytes for {rows} rows")
        self._codes[place].reshape(-1)[:] = np.frombuffer(payload[: ends[0]], np.uint8)
        self._corners[place].reshape(-1)[:] = np.frombuffer(payload[ends[0] : ends[1]], "<i4")
        self._numbers[place] = np.frombuffer(payload[ends[1] :], "<u4")

    def _check_count(
        self, kind: Kind, serial: int, chunks: int, damage: list[Corrupt], broken: set[int]
    ) -> None:
        record = self._headers[serial]
        expected = records.chunks_of(record.postings, self._code_bytes)
        if chunks != expected:
            slide = record.slide.slide_id
            error = Corrupt(
                f"slide {slide!r} has {chunks} of its {expected} {kind.name} records: restore a"
                " backup, or drop it with `sish shard check --drop-damaged` and ingest it again",
                metadata={"slide": slide, "serial": str(serial), "kind": kind.name},
            )
            self._note(error, serial, damage, broken)

    def _note(self, error: Corrupt, serial: int, damage: list[Corrupt], broken: set[int]) -> None:
        """Remember the first damage of each slide, under the slide's name where it is known."""
        if serial in broken:
            return
        broken.add(serial)
        if serial in self._headers:
            slide = self._headers[serial].slide.slide_id
            metadata = {**error.metadata, "slide": slide}
            error = Corrupt(f"slide {slide!r}: {error.message}", metadata=metadata)
        damage.append(error)


def _check_totals(
    store: Store,
    number: int,
    headers: dict[int, SlideRecord],
    broken: set[int],
    damage: list[Corrupt],
) -> None:
    """Compare what was found with what the store says it holds: whole lost pages show here."""
    try:
        said = store.totals(number)
    except Corrupt as error:
        damage.append(error)
        return
    lost = len(broken - headers.keys())
    found = Totals(len(headers) + lost, sum(record.postings for record in headers.values()))
    if said.slides != found.slides or (not lost and said != found):
        damage.append(
            Corrupt(
                f"collection {number} says it holds {said.slides} slides and {said.postings}"
                f" postings; found {found.slides} and {found.postings}: restore a backup",
                metadata={"kind": "TOTALS", "address": str(number)},
            )
        )
