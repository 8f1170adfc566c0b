"""numpy's scalars and arrays out of a pickle, built here from their bytes.

numpy's own pickles name a handful of functions (``scalar``, ``_reconstruct``, ``dtype`` ...) and hand them
a type and raw bytes. None of those functions is ever called: each name stands for a builder below, which
checks every argument first. Numbers, booleans and fixed-length text are built; objects, records and dates
are not.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

MAX_TEXT_BYTES = 4096
"""Bytes of one numpy text value at most: names and labels are far shorter."""

MAX_AXES = 4
"""Axes of an array at most: latents have three."""

_TYPE = re.compile(r"[|<>=]?([?biufSU])(\d*)")
_SIZES = {"?": {1}, "b": {1}, "i": {1, 2, 4, 8}, "u": {1, 2, 4, 8}, "f": {2, 4, 8}}
_ORDERS = {"C", "F"}


class Dtype:
    """A numpy type being read: named first, its byte order told after."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self.dtype = dtype

    def build(self, state: object) -> None:
        """Take the byte order from a type's state, or raise `ValueError`."""
        if not isinstance(state, tuple) or len(state) < 6 or state[1] not in ("<", ">", "|", "="):
            raise ValueError("a numpy type with a state that is none")
        if any(part is not None for part in state[2:5]) or any(state[8:]):
            raise ValueError("a numpy type with fields of its own")
        if state[1] in "<>":
            self.dtype = self.dtype.newbyteorder(state[1])


class UnbuiltArray:
    """An array announced and not told yet; ``memo_places`` are where a pickle will look for it."""

    def __init__(self) -> None:
        self.memo_places: list[int] = []

    @staticmethod
    def built(state: object) -> npt.NDArray[Any]:
        """Return the array of a state (version, shape, type, is in Fortran's order, bytes)."""
        if not isinstance(state, tuple) or len(state) != 5 or state[0] != 1:
            raise ValueError("a numpy array with a state that is none")
        _, shape, dtype, is_fortran, raw = state
        return _array(raw, dtype, shape, "F" if is_fortran else "C")


@dataclasses.dataclass(frozen=True, slots=True)
class Global:
    """A name of numpy's or Python's that a pickle may use, and what stands for it.

    Parameters
    ----------
    name
        ``module.name`` as the pickle spells it.
    build
        Makes the value from the arguments; None where the name is only ever an argument.
    """

    name: str
    build: Callable[..., object] | None


def dtype_of(name: object, *flags: object) -> Dtype:
    """Return the type called ``i8``, ``<f8``, ``U12`` ..., or raise `ValueError`."""
    text = name.decode("latin-1") if isinstance(name, bytes) else name
    match = _TYPE.fullmatch(text) if isinstance(text, str) else None
    if (
        not isinstance(text, str)
        or match is None
        or any(flag not in (True, False) for flag in flags)
    ):
        raise ValueError(f"numpy values of type {text!r}, where only numbers and text are built")
    kind, digits = match.groups()
    size = int(digits or "1")
    if kind in _SIZES and size not in _SIZES[kind]:
        raise ValueError(f"numpy numbers of {size} bytes ({text!r})")
    if size * (4 if kind == "U" else 1) > MAX_TEXT_BYTES:
        raise ValueError(f"numpy text of {size} characters (at most {MAX_TEXT_BYTES} bytes)")
    return Dtype(np.dtype(text))


def scalar_of(dtype: object, raw: object) -> object:
    """Return the numpy scalar of a type and its bytes."""
    value = _array(raw, dtype, (1,), "C")[0]
    if not isinstance(value, np.generic):
        raise ValueError(f"a numpy scalar of type {type(value).__name__}")
    return value


def unbuilt_array(base: object, shape: object, kind: object) -> UnbuiltArray:
    """Return the empty array numpy's pickles begin with."""
    if not isinstance(base, Global) or shape != (0,) or kind not in ("b", b"b"):
        raise ValueError("an array of a kind of its own")
    return UnbuiltArray()


def array_from_buffer(raw: object, dtype: object, shape: object, order: object) -> object:
    """Return the array of protocol 5: bytes, type, shape, order."""
    return _array(raw, dtype, shape, order)


def _array(raw: object, dtype: object, shape: object, order: object) -> npt.NDArray[Any]:
    """Return a read-only view of the bytes: an array costs no more memory than its file says."""
    content = raw.encode("latin-1") if isinstance(raw, str) else raw
    if not isinstance(content, bytes) or not isinstance(dtype, Dtype) or order not in _ORDERS:
        raise ValueError("a numpy value without its type or its bytes")
    if not isinstance(shape, tuple) or len(shape) > MAX_AXES or not all(map(_is_length, shape)):
        raise ValueError(f"a numpy array of shape {str(shape)[:80]}")
    count = 1
    for length in shape:
        count *= length
    if count * dtype.dtype.itemsize != len(content):
        raise ValueError(
            f"a numpy value of {count} x {dtype.dtype.itemsize} bytes in {len(content)} bytes"
        )
    if dtype.dtype.kind == "b" and content.strip(b"\0\1"):
        raise ValueError("numpy truth values other than 0 and 1")
    array = np.ndarray(shape, dtype.dtype, buffer=content, order="F" if order == "F" else "C")
    array.flags.writeable = False
    return array


def _is_length(length: object) -> bool:
    return type(length) is int and 0 <= length < 1 << 40
