"""Loading: the records of a store, checked, into ledgers and indexes.

Loading and scrubbing are one walk over the same records: a shard that opens has seen the checksum of
everything it serves match, every slide complete, and the totals agree. Postings that a sound checkpoint has are
taken from there, where they are sorted already; their records are left to the scrub. Embeddings are always
read (see `vectors`).
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Collection as Container
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from sish_cluster.core.collection import Collection
from sish_cluster.core.errors import Corrupt
from sish_cluster.core.key import UNIVERSE
from sish_cluster.core.posting import PatchColumns
from sish_cluster.core.seams import SlideState
from sish_cluster.shard import records
from sish_cluster.shard.checkpoint import Checkpoint
from sish_cluster.shard.entries import Entry
from sish_cluster.shard.records import Kind, SlideRecord, Totals
from sish_cluster.shard.store import LAST_SERIAL, Rows, Store
from sish_cluster.shard.vectors import SlideVectors
from sish_cluster.shard.vectors_loading import StoredVectors


class Kept(NamedTuple):
    """A slide whose postings a checkpoint has: its row there, and whether it was pending then and is
    committed by now.
    """

    row: int
    is_committed_since: bool


@dataclasses.dataclass(frozen=True, eq=False)
class Loaded:
    """Everything sound of one collection.

    Parameters
    ----------
    headers
        Serial -> header of each sound slide that was read, in serial order.
    keys, codes, corners, numbers
        Their postings' columns, slide after slide.
    damage
        What is wrong, nothing for a sound collection.
    broken
        Serials of slides that are not sound.
    kept
        Serial -> what the checkpoint has of a slide, so that its postings were not read.
    vectors
        Serial -> embeddings of each sound slide, kept ones included, where they were wanted.
    """

    headers: dict[int, SlideRecord]
    keys: npt.NDArray[np.uint64]
    codes: npt.NDArray[np.uint8]
    corners: npt.NDArray[np.int32]
    numbers: npt.NDArray[np.uint32]
    damage: list[Corrupt]
    broken: set[int]
    kept: dict[int, Kept]
    vectors: dict[int, SlideVectors]

    def lengths(self) -> list[int]:
        """Return each sound slide's rows."""
        return [record.postings for record in self.headers.values()]


def loaded(
    store: Store,
    number: int,
    collection: Collection,
    checkpoint: Checkpoint | None = None,
    *,
    keeps_vectors: bool = True,
) -> Loaded:
    """Read and check a collection's records, collecting damage instead of stopping at it.

    Parameters
    ----------
    store, number, collection
        What to read.
    checkpoint
        Has postings that need not be read.
    keeps_vectors
        Whether embeddings are wanted, or only their check, which needs no memory.
    """
    damage: list[Corrupt] = []
    broken: set[int] = set()
    if checkpoint is None or collection.dimensions:
        store.read_ahead()
    with store.rows(number) as rows:
        headers, kept = _headers(rows, checkpoint, damage, broken)
        columns = _Columns(headers, collection.code_bytes)
        for first, end in _spans(headers, kept):
            columns.fill(rows, (first, end), damage, broken)
        columns.check_counts(damage, broken)
        every = {serial: record.postings for serial, record in headers.items()}
        if checkpoint is not None:
            every |= {s: int(checkpoint.postings[slide.row]) for s, slide in kept.items()}
        vectors = StoredVectors(collection.dimensions, every, keeps_rows=keeps_vectors)
        vectors.fill(rows)
    for serial, error in vectors.damage.items():
        columns.note(error, serial, damage, broken)
    lost = len(broken - headers.keys())
    postings = sum(record.postings for record in headers.values())
    if checkpoint is not None:
        postings += int(checkpoint.postings[[slide.row for slide in kept.values()]].sum())
    _check_totals(store, number, Totals(len(headers) + len(kept) + lost, postings), lost, damage)
    sound = {serial: record for serial, record in headers.items() if serial not in broken}
    return Loaded(sound, *columns.of(sound), damage, broken, kept, vectors.blocks())


def stored_patches(
    store: Store, number: int, collection: Collection, entry: Entry
) -> PatchColumns | None:
    """Return one slide's postings as they were ingested, or None when the store has it no more.

    Raises
    ------
    Corrupt
        If one of its records is damaged.
    """
    span, damage, broken = (entry.serial, entry.serial + 1), list[Corrupt](), set[int]()
    headers = {entry.serial: entry.record}
    with store.rows(number) as rows:
        if next(rows(Kind.SLIDE, *span), None) is None:
            return None
        columns = _Columns(headers, collection.code_bytes)
        columns.fill(rows, span, damage, broken)
        columns.check_counts(damage, broken)
        postings = {entry.serial: entry.record.postings}
        vectors = StoredVectors(collection.dimensions, postings, keeps_rows=True)
        vectors.fill(rows, span)
    damage += vectors.damage.values()
    if damage:
        raise joined(damage)
    n = entry.record.postings
    block = vectors.blocks().get(entry.serial, SlideVectors.room(n, collection.dimensions))
    return PatchColumns(*columns.of(headers), block.rows[:, : collection.dimensions])


def joined(damage: list[Corrupt]) -> Corrupt:
    """Return one error that tells how much is damaged and names the first records."""
    named = "; ".join(error.message for error in damage[:3])
    more = f"; and {len(damage) - 3} more" if len(damage) > 3 else ""
    return Corrupt(f"{len(damage)} damaged: {named}{more}", metadata=damage[0].metadata)


def _headers(
    rows: Rows, checkpoint: Checkpoint | None, damage: list[Corrupt], broken: set[int]
) -> tuple[dict[int, SlideRecord], dict[int, Kept]]:
    """Return the headers of slides to read, and of those a checkpoint has, both in serial order."""
    headers: dict[int, SlideRecord] = {}
    kept: dict[int, Kept] = {}
    ids = [] if checkpoint is None else checkpoint.committed_ids()
    for address, record in rows(Kind.SLIDE):
        serial = records.serial_of(address)
        if checkpoint is not None:
            place, payload = bytes(address), bytes(records.header_of(record))
            row = checkpoint.row_of(serial, place, payload)
            if row is not None:
                kept[serial] = Kept(row, False)
                continue
        try:
            header = records.slide_record_of(address, record)
        except Corrupt as error:
            damage.append(error)
            broken.add(serial)
            continue
        row = None
        if checkpoint is not None:
            row = checkpoint.row_before_commit(serial, bytes(address), header)
        if row is not None:
            kept[serial] = Kept(row, True)
            ids[row] = header.slide.slide_id
        else:
            headers[serial] = header
    _drop_repeated(headers, {ids[slide.row] for slide in kept.values()}, damage, broken)
    return headers, kept


def _drop_repeated(
    headers: dict[int, SlideRecord],
    committed_ids: set[str],
    damage: list[Corrupt],
    broken: set[int],
) -> None:
    """Take out headers that name a slide (pending ones: a version) which an earlier one named."""
    seen = {(slide_id, "") for slide_id in committed_ids}
    for serial, header in list(headers.items()):
        slide_id, is_committed = header.slide.slide_id, header.state is SlideState.COMMITTED
        identity = (slide_id, "" if is_committed else header.version)
        if identity in seen:
            damage.append(
                Corrupt(
                    f"slide {slide_id!r} is stored twice, again under serial {serial}: drop it with"
                    " `sish shard check --drop-damaged`, or restore a backup",
                    metadata={"kind": "SLIDE", "slide": slide_id, "serial": str(serial)},
                )
            )
            broken.add(serial)
            del headers[serial]
        seen.add(identity)


def _spans(headers: Mapping[int, SlideRecord], kept: Container[int]) -> Iterator[tuple[int, int]]:
    """Yield [first, end) of serials to read: everything, or what lies between those kept."""
    if not kept:
        yield 0, LAST_SERIAL
        return
    every = sorted([*headers, *kept])
    for is_kept, serials in itertools.groupby(every, key=lambda serial: serial in kept):
        if not is_kept:
            span = list(serials)
            yield span[0], span[-1] + 1


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
        self._counted = {kind: dict.fromkeys(headers, 0) for kind in (Kind.KEYS, Kind.BLOB)}

    def fill(
        self, rows: Rows, span: tuple[int, int], damage: list[Corrupt], broken: set[int]
    ) -> None:
        """Read keys and blobs of a span of serials; name what is damaged or left over."""
        for kind, take in ((Kind.KEYS, self._take_keys), (Kind.BLOB, self._take_blob)):
            counted = self._counted[kind]
            for address, record in rows(kind, *span):
                serial = records.serial_of(address)
                chunk = int.from_bytes(address[12:16], "big")
                if serial in counted:
                    counted[serial] += 1
                try:
                    take(serial, chunk, address, record)
                except Corrupt as error:
                    self.note(error, serial, damage, broken)

    def check_counts(self, damage: list[Corrupt], broken: set[int]) -> None:
        """Name the slides of which records are missing."""
        for kind, counted in self._counted.items():
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
            self.note(error, serial, damage, broken)

    def note(self, error: Corrupt, serial: int, damage: list[Corrupt], broken: set[int]) -> None:
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
    store: Store, number: int, found: Totals, lost: int, damage: list[Corrupt]
) -> None:
    """Compare what was found with what the store says it holds: whole lost pages show here.

    ``lost`` of the slides found have no sound header, so that their postings were not counted.
    """
    try:
        said = store.totals(number)
    except Corrupt as error:
        damage.append(error)
        return
    if said.slides != found.slides or (not lost and said != found):
        damage.append(
            Corrupt(
                f"collection {number} says it holds {said.slides} slides and {said.postings}"
                f" postings; found {found.slides} and {found.postings}: restore a backup",
                metadata={"kind": "TOTALS", "address": str(number)},
            )
        )
