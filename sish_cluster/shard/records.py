"""Records of the store: what lies under each key, sealed with a checksum.

LMDB keeps no checksum of its pages, so every record carries one (CRC-32C over its kind, its address
and its payload): a flipped byte, a torn page or a record that ended up under another address is found
when the record is read. A slide is one header (JSON, a few hundred bytes) and, per chunk of rows, one
record of keys and one blob of codes, corners and numbers; embeddings, where there are any, come in chunks of
their own. A chunk fills at most 16 overflow pages of 4 KiB, less LMDB's 16 bytes, so large slides waste
nothing and need no long run of free pages. A collection without embeddings has the very records it had
before there were any.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import struct
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import crc32c
import numpy as np

from sish_cluster.core.collection import Collection
from sish_cluster.core.errors import Corrupt, SishError
from sish_cluster.core.posting import PatchColumns
from sish_cluster.core.seams import SlideState
from sish_cluster.core.slide import Slide, canonical_bytes

RECORD_LAYOUT = 1
"""Layout of the frame and the payloads; another number is refused, never guessed at."""

_FRAME = struct.Struct("<BBHII")
"""Layout, kind, zero, payload bytes, CRC-32C: 12 bytes in front of every payload."""

_SLIDE_ADDRESS = struct.Struct(">IQ")
_CHUNK_ADDRESS = struct.Struct(">IQI")
_TOTALS = struct.Struct("<QQ")

CHUNK_BYTES = 16 * 4096 - 16 - _FRAME.size
"""Most payload bytes of one blob: 16 overflow pages less LMDB's and our headers."""

ROW_EXTRA_BYTES = 12
"""Bytes of a row's corner (2 x i32) and number (u32) beside its code."""

Buffer = bytes | memoryview
"""A record as LMDB lends it."""


class Kind(enum.IntEnum):
    """What a record is."""

    COLLECTION = 1
    TOTALS = 2
    SLIDE = 3
    KEYS = 4
    BLOB = 5
    EMBEDDING = 6


CHUNK_KINDS = (Kind.KEYS, Kind.BLOB, Kind.EMBEDDING)
"""Kinds of which a slide has a record per chunk of rows."""

_SLIDE_KINDS = (Kind.SLIDE, *CHUNK_KINDS)

_ADDED_LATER = {"dimensions": 0, "has_keys": True}
"""Properties of a collection that stores of before do not know, with what they mean there: they are
written only where they say something else."""


@dataclasses.dataclass(frozen=True, slots=True)
class SlideRecord:
    """A slide's header: who it is, which version, and whether it may be found.

    Parameters
    ----------
    slide
        Identity and labels.
    version, fingerprint
        Digest of the whole slide's content; encoder fingerprint.
    state
        PENDING or COMMITTED.
    is_home, home
        Whether this shard counts the slide and decides its fate; the name of the shard that does.
    stored_at_s
        Wall-clock seconds since 1970 when it was stored.
    postings
        Rows stored here (a shard's share of the slide).
    """

    slide: Slide
    version: str
    fingerprint: str
    state: SlideState
    is_home: bool
    home: str
    stored_at_s: float
    postings: int

    def committed(self) -> SlideRecord:
        """Return the same header, COMMITTED."""
        return dataclasses.replace(self, state=SlideState.COMMITTED)


@dataclasses.dataclass(frozen=True, slots=True)
class Totals:
    """How many slides and postings a collection has here, pending ones included."""

    slides: int = 0
    postings: int = 0


def slide_address(number: int, serial: int) -> bytes:
    """Return the 12-byte address of slide ``serial`` of collection ``number``."""
    return _SLIDE_ADDRESS.pack(number, serial)


def chunk_address(number: int, serial: int, chunk: int) -> bytes:
    """Return the 16-byte address of a slide's chunk."""
    return _CHUNK_ADDRESS.pack(number, serial, chunk)


def serial_of(address: Buffer) -> int:
    """Return the slide serial of a slide's or a chunk's address."""
    return int.from_bytes(address[4:12], "big")


def sealed(kind: Kind, address: bytes, *parts: Buffer) -> bytes:
    """Return a record: frame and payload, for one address."""
    payload = b"".join(parts)
    frame = _FRAME.pack(RECORD_LAYOUT, kind, 0, len(payload), _checksum(kind, address, payload))
    return frame + payload


def opened(kind: Kind, address: Buffer, record: Buffer) -> memoryview:
    """Return a record's payload.

    Raises
    ------
    Corrupt
        If the frame, the length or the checksum is wrong, naming the record.
    """
    view = memoryview(record)
    if len(view) < _FRAME.size:
        raise damaged(kind, address, f"is {len(view)} bytes, shorter than its frame")
    layout, found_kind, _, length, checksum = _FRAME.unpack(view[: _FRAME.size])
    payload = view[_FRAME.size :]
    if (layout, found_kind, length) != (RECORD_LAYOUT, kind, len(payload)):
        raise damaged(
            kind,
            address,
            f"says layout {layout}, kind {found_kind}, {length} bytes; expected layout"
            f" {RECORD_LAYOUT}, kind {int(kind)}, {len(payload)} bytes",
        )
    if _checksum(kind, address, payload) != checksum:
        raise damaged(kind, address, "does not match its CRC-32C")
    return payload


def damaged(kind: Kind, address: Buffer, problem: str) -> Corrupt:
    """Return the error that names a broken record."""
    place = bytes(address)
    name = place.hex() if kind in _SLIDE_KINDS else place.decode("latin-1")
    metadata = {"kind": kind.name, "address": name}
    if kind in _SLIDE_KINDS and len(place) >= _SLIDE_ADDRESS.size:
        metadata["serial"] = str(serial_of(place))
    return Corrupt(
        f"{kind.name} record {name} {problem}: run `sish shard check`, then restore a backup, or drop"
        " the damaged slides with `sish shard check --drop-damaged` and ingest them again",
        metadata=metadata,
    )


def _checksum(kind: Kind, address: Buffer, payload: Buffer) -> int:
    head = bytes((RECORD_LAYOUT, kind)) + bytes(address)
    return int(crc32c.crc32c(payload, crc32c.crc32c(head)))


def slide_payload(record: SlideRecord) -> bytes:
    """Return a header as canonical JSON."""
    return canonical_bytes(
        {
            "slide": record.slide.to_dict(),
            "version": record.version,
            "fingerprint": record.fingerprint,
            "state": int(record.state),
            "is_home": record.is_home,
            "home": record.home,
            "stored_at_s": record.stored_at_s,
            "postings": record.postings,
        }
    )


def slide_record_of(address: Buffer, record: Buffer) -> SlideRecord:
    """Return the header stored at ``address``, or raise `Corrupt`."""
    payload = opened(Kind.SLIDE, address, record)
    try:
        return header_from(bytes(payload))
    except (ValueError, TypeError, KeyError, SishError) as error:
        raise damaged(Kind.SLIDE, address, f"cannot be understood ({error})") from error


def header_of(record: Buffer) -> Buffer:
    """Return the payload of a header's record, unchecked; see `header_mark`."""
    return record[_FRAME.size :]


def header_mark(address: Buffer, payload: Buffer) -> int:
    """Return 64 bits by which a header at an address is known again: CRC-32C, then CRC-32."""
    return _checksum(Kind.SLIDE, bytes(address), payload) << 32 | zlib.crc32(payload)


def header_from(payload: bytes) -> SlideRecord:
    """Return the header of a payload that was checked before."""
    values = json.loads(payload)
    values["slide"] = Slide.from_dict(values["slide"])
    values["state"] = SlideState(values["state"])
    return SlideRecord(**values)


def collection_values(collection: Collection) -> dict[str, Any]:
    """Return a collection's properties as JSON values, without those added later that say nothing."""
    values = dataclasses.asdict(collection)
    return {name: v for name, v in values.items() if _ADDED_LATER.get(name, ...) != v}


def collection_payload(number: int, collection: Collection) -> bytes:
    """Return a collection's definition and number as canonical JSON."""
    return canonical_bytes({"number": number, "collection": collection_values(collection)})


def collection_of(address: Buffer, record: Buffer) -> tuple[int, Collection]:
    """Return the number and definition stored at ``address``, or raise `Corrupt`."""
    payload = opened(Kind.COLLECTION, address, record)
    try:
        values = json.loads(bytes(payload))
        return int(values["number"]), Collection(**values["collection"])
    except (ValueError, TypeError, KeyError, SishError) as error:
        raise damaged(Kind.COLLECTION, address, f"cannot be understood ({error})") from error


def totals_payload(totals: Totals) -> bytes:
    """Return totals as 16 bytes."""
    return _TOTALS.pack(totals.slides, totals.postings)


def totals_of(address: Buffer, record: Buffer) -> Totals:
    """Return the totals stored at ``address``, or raise `Corrupt`."""
    return Totals(*_TOTALS.unpack(opened(Kind.TOTALS, address, record)))


def chunk_rows_of(code_bytes: int) -> int:
    """Return the rows of a full chunk.

    Examples
    --------
    >>> chunk_rows_of(128)
    467
    """
    return max(1, CHUNK_BYTES // (code_bytes + ROW_EXTRA_BYTES))


def chunks_of(postings: int, code_bytes: int) -> int:
    """Return how many chunks hold ``postings`` rows; none for none."""
    return -(-postings // chunk_rows_of(code_bytes))


def embedding_rows_of(dimensions: int) -> int:
    """Return the rows of a full chunk of embeddings.

    Examples
    --------
    >>> embedding_rows_of(1024)
    31
    """
    return max(1, CHUNK_BYTES // (2 * dimensions))


def chunk_counts(postings: int, collection: Collection) -> Mapping[Kind, int]:
    """Return how many records of each kind of chunk a slide's ``postings`` rows have."""
    n = chunks_of(postings, collection.code_bytes)
    dimensions = collection.dimensions
    n_embedding = -(-postings // embedding_rows_of(dimensions)) if dimensions else 0
    return {Kind.KEYS: n, Kind.BLOB: n, Kind.EMBEDDING: n_embedding}


def embedding_payloads(patches: PatchColumns) -> Iterator[bytes]:
    """Yield each chunk of embeddings, little-endian halves; nothing where there are none."""
    if not patches.dimensions:
        return
    rows = embedding_rows_of(patches.dimensions)
    for start in range(0, len(patches), rows):
        yield patches.embeddings[start : start + rows].astype("<f2", copy=False).tobytes()


def chunk_payloads(patches: PatchColumns) -> Iterator[tuple[bytes, bytes]]:
    """Yield each chunk's keys and blob: ``u64 keys`` and ``codes | i32 corners | u32 numbers``."""
    rows = chunk_rows_of(patches.code_bytes)
    for start in range(0, len(patches), rows):
        part = slice(start, start + rows)
        blob = (
            np.ascontiguousarray(patches.codes[part]).tobytes()
            + patches.corners[part].astype("<i4", copy=False).tobytes()
            + patches.numbers[part].astype("<u4", copy=False).tobytes()
        )
        yield patches.keys[part].astype("<u8", copy=False).tobytes(), blob
