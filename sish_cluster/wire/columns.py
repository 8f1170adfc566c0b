"""Packed columns: numpy arrays as little-endian bytes, checked on the way in.

Lengths, checksums and bounds are verified before an array is believed: a message comes from outside.
"""

from __future__ import annotations

from collections.abc import Sequence

import crc32c
import numpy as np
import numpy.typing as npt

from sish_cluster.core.errors import BadMessage


def bytes_of(column: npt.NDArray[np.generic], dtype: str) -> bytes:
    """Return a column as the little-endian bytes of ``dtype`` (such as ``<u8``)."""
    return np.ascontiguousarray(column, dtype=dtype).tobytes()


def column_of(data: bytes, dtype: str, *, count: int, field: str, width: int = 1) -> npt.NDArray:  # type: ignore[type-arg]
    """Return bytes as a column of ``count`` rows of ``width`` items.

    Raises
    ------
    BadMessage
        If the length differs from ``count * width`` items, naming the field.
    """
    kind = np.dtype(dtype)
    expected = count * width * kind.itemsize
    if len(data) != expected:
        raise BadMessage(
            f"{field}: {count} rows of {width} x {kind.itemsize} bytes are {expected} bytes;"
            f" found {len(data)}: the sender packed another count or layout",
            field=field,
        )
    array = np.frombuffer(data, dtype=kind)
    return array.reshape(count, width) if width != 1 else array


def checksum_of(columns: Sequence[bytes]) -> int:
    """Return the CRC-32C over the columns, one after the other."""
    checksum = 0
    for column in columns:
        checksum = crc32c.crc32c(column, checksum)
    return checksum


def check_checksum(expected: int, columns: Sequence[bytes], *, field: str) -> None:
    """Raise `BadMessage` unless the columns' CRC-32C is ``expected``."""
    found = checksum_of(columns)
    if found != expected:
        raise BadMessage(
            f"{field}: CRC-32C is {found:#010x}, the message says {expected:#010x}: it was damaged"
            " or packed wrongly; send it again",
            field=field,
        )


def pack_deltas(keys: npt.NDArray[np.uint64]) -> tuple[bytes, bytes]:
    """Return ascending keys as (lengths, deltas): each difference in as few bytes as it needs.

    Parameters
    ----------
    keys
        uint64 (n,), ascending.

    Returns
    -------
    tuple[bytes, bytes]
        Byte lengths (0..8) of the deltas, two to a byte, low nibble first; the deltas' bytes.

    Examples
    --------
    >>> unpack_deltas(*pack_deltas(np.array([5, 300, 300], np.uint64)), count=3).tolist()
    [5, 300, 300]
    """
    deltas = np.diff(keys.astype(np.uint64), prepend=np.uint64(0))
    planes = deltas.astype("<u8").view(np.uint8).reshape(-1, 8)
    occupied = planes != 0
    lengths = np.where(occupied.any(axis=1), 8 - occupied[:, ::-1].argmax(axis=1), 0)
    used = np.arange(8) < lengths[:, None]
    even = np.zeros(len(lengths) + len(lengths) % 2, np.uint8)
    even[: len(lengths)] = lengths
    return (even[::2] | (even[1::2] << 4)).tobytes(), planes[used].tobytes()


def unpack_deltas(lengths: bytes, deltas: bytes, *, count: int) -> npt.NDArray[np.uint64]:
    """Return the keys `pack_deltas` packed.

    Raises
    ------
    BadMessage
        If lengths and bytes disagree.
    """
    nibbles = column_of(lengths, "u1", count=-(-count // 2), field="examined.lengths")
    sizes = np.stack([nibbles & 15, nibbles >> 4], axis=1).ravel()[:count]
    data = np.frombuffer(deltas, np.uint8)
    if (sizes.size and sizes.max() > 8) or int(sizes.sum()) != len(data):
        raise BadMessage(
            f"examined keys: lengths add up to {int(sizes.sum())} bytes of at most 8 each;"
            f" found {len(data)} bytes",
            field="examined.deltas",
        )
    planes = np.zeros((count, 8), np.uint8)
    planes[np.arange(8) < sizes[:, None]] = data
    return np.cumsum(planes.reshape(-1).view("<u8"), dtype=np.uint64)
