"""Pickles of published programs, read so that nothing but plain values can come of them.

A pickle is a program for a small stack machine, and Python's own reader lets that program import and call
anything. This is a second machine, which has the harmless operations only: values, containers, the memo.
It was chosen over `pickle.Unpickler` with a restricted ``find_class`` because that class still runs
``__setstate__`` and ``__setitem__`` of whatever it is given, sizes its memo by a number in the file, and
cannot be told how much it may build. Here every operation costs at least one byte of the file and builds at
most what it is charged for, so time and memory are bounded by the size of the file.

Names are looked up in `pickle_machine.GLOBALS`, whose builders are this project's (see `plain_numbers`); any other name is
refused and told. A name can be called, never kept: containers take plain values alone.

Source
------
Python's documentation of ``pickletools``: operations of protocols 0 to 5.
"""

from __future__ import annotations

import dataclasses
import mmap
import struct
from pathlib import Path
from typing import Any, NoReturn

from sish_cluster.core.errors import BadFile
from sish_cluster.exchange.pickle_machine import CONTAINERS, Machine
from sish_cluster.exchange.pickle_operations import OPERATIONS


@dataclasses.dataclass(frozen=True, slots=True)
class PickleBounds:
    """How much one pickle may hold."""

    max_bytes: int = 8 << 30
    """Bytes of the file: a ``meta.pkl`` of three million postings."""
    max_objects: int = 1 << 26
    """Containers, texts and memo entries: the same file has some thirty million."""
    max_depth: int = 12
    """Containers inside each other: published files have four."""
    slack: int = 100_000
    """Values, told once for every place they occur at, beyond one for each byte of the file."""


BOUNDS = PickleBounds()
"""The bounds unless a caller has others."""


def plain_pickle(path: Path, *, bounds: PickleBounds = BOUNDS) -> Any:
    """Return what a pickle file holds.

    Returns
    -------
    dict, list, tuple, set, str, bytes, int, float, bool, None, numpy scalars and arrays of numbers or text
    (arrays are read-only views), and nothing else. Text of Python 2 is read as Latin-1.

    Raises
    ------
    BadFile
        If the file is missing, damaged or too large, names anything that is not needed for these values,
        or goes on after its end; the message says where and what.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            if not 0 < size <= bounds.max_bytes:
                raise BadFile(f"{path}: has {size} bytes; a pickle has 1..{bounds.max_bytes}")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                return _value(content, size, str(path), bounds)
    except OSError as error:
        raise BadFile(f"{path}: cannot be read ({error.strerror or error}); check it") from error


def plain_value(content: bytes, *, source: str, bounds: PickleBounds = BOUNDS) -> Any:
    """Return what a pickle in memory holds; ``source`` names it in errors. See `plain_pickle`."""
    return _value(content, len(content), source, bounds)


def _value(content: bytes | mmap.mmap, size: int, source: str, bounds: PickleBounds) -> Any:
    """Run the program to its end and return its value."""
    machine = Machine(content, size, max_objects=bounds.max_objects)
    operation = 0
    try:
        while not machine.has_stopped:
            operation = machine.at
            machine.at = operation + 1
            OPERATIONS[content[operation]](machine)
        return _result(machine, bounds)
    except KeyError as error:
        _refuse(source, operation, size, f"memo entry {error} was never made", error)
    except (ValueError, TypeError, OverflowError, struct.error) as error:
        _refuse(source, operation, size, str(error) or type(error).__name__, error)
    except IndexError as error:
        at_end = operation >= size
        problem = "the file ends too early" if at_end else "a value is missing: it is damaged"
        _refuse(source, operation, size, problem, error)


def _refuse(source: str, at: int, size: int, problem: str, error: Exception) -> NoReturn:
    raise BadFile(
        f"{source}: at byte {at} of {size}: {problem}. Only plain values are read from pickles (dict, list,"
        " tuple, set, text, numbers, numpy numbers); do not open this file with anything else unless you"
        " trust who wrote it",
        metadata={"file": source, "byte": str(at)},
    ) from error


def _result(machine: Machine, bounds: PickleBounds) -> Any:
    if machine.at != machine.size:
        raise ValueError(f"{machine.size - machine.at} bytes follow the end of the pickle")
    result = machine.pop()
    if machine.stack or machine.marks:
        raise ValueError("values are left over at the end")
    machine.check_plain([result])
    _Measure(bounds.max_depth, machine.size + bounds.slack).take(result, 1)
    return result


class _Measure:
    """Refuses values that hold themselves, lie too deep, or are far larger told than written."""

    def __init__(self, max_depth: int, max_values: int) -> None:
        self._max_depth = max_depth
        self._left = max_values

    def take(self, value: Any, depth: int) -> None:
        if type(value) not in CONTAINERS:
            return
        if depth > self._max_depth:
            raise ValueError(f"containers inside each other more than {self._max_depth} deep")
        self._left -= len(value)
        if self._left < 0:
            raise ValueError("a value that grows far beyond its file when it is told in full")
        if type(value) is not set:
            for item in value.values() if type(value) is dict else value:
                self.take(item, depth + 1)
