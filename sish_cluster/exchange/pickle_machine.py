"""The stack, the memo and the names of a restricted pickle reading; see `plain_pickle`.

What an operation may do is here: push, keep in a container, remember, call one of a few builders. A name or a
half-built value can lie on the stack and in the arguments of a call; no container takes it, so it can
never be part of a result.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from sish_cluster.exchange.plain_numbers import (
    Dtype,
    Global,
    UnbuiltArray,
    array_from_buffer,
    dtype_of,
    scalar_of,
    unbuilt_array,
)

_NUMBERS = (np.bool_, np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32,
            np.uint64, np.float16, np.float32, np.float64)  # fmt: skip
ATOMS = frozenset({type(None), bool, int, float, str, bytes, np.str_, np.bytes_, *_NUMBERS})
"""Types of values that hold no others: what may be a key."""

CONTAINERS = frozenset({dict, list, tuple, set})
"""Types of values that hold others."""

PLAIN = ATOMS | CONTAINERS | {np.ndarray}
"""Every type a result may have."""

BYTES_PER_OBJECT = 64
"""Bytes a builder makes that are charged like one object."""


class Arguments(tuple[Any, ...]):
    """A tuple that holds more than plain values: good for a call, for no container."""


class Machine:
    """The stack, the memo and the place in the file of one reading."""

    def __init__(self, content: bytes | mmap.mmap, size: int, *, max_objects: int) -> None:
        self.content = content
        self.size = size
        self.at = 0
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.made = 0
        self.has_stopped = False
        self._max_objects = max_objects

    def spend(self, count: int = 1) -> None:
        """Count objects made, or raise `ValueError` beyond the bound."""
        self.made += count
        if self.made > self._max_objects:
            raise ValueError(f"more than {self._max_objects} objects")

    def taken(self, count: int) -> bytes:
        """Return the next ``count`` bytes."""
        start, self.at = self.at, self.at + count
        if count < 0 or self.at > self.size:
            raise ValueError(f"the file ends too early: {count} bytes are announced")
        return self.content[start : self.at]

    def check_frame(self, count: int) -> None:
        """Refuse a frame that reaches beyond the file."""
        if self.at + count > self.size:
            raise ValueError(f"the file ends too early: a frame of {count} bytes is announced")

    def number(self, size: int) -> int:
        """Return the next unsigned little-endian number of ``size`` bytes."""
        return int.from_bytes(self.taken(size), "little")

    def line(self) -> bytes:
        """Return the next line without its end."""
        end = self.content.find(b"\n", self.at)
        if end < 0:
            raise ValueError("the file ends too early: a line has no end")
        start, self.at = self.at, end + 1
        return self.content[start:end]

    def marked(self) -> list[Any]:
        """Take and return what was pushed since the last mark."""
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    @property
    def top(self) -> Any:
        """The value an operation works on, above the last mark."""
        if self.marks and len(self.stack) <= self.marks[-1]:
            raise IndexError
        return self.stack[-1]

    def pop(self) -> Any:
        """Take the top value, above the last mark."""
        if self.marks and len(self.stack) <= self.marks[-1]:
            raise IndexError
        return self.stack.pop()

    def push_tuple(self, items: Iterable[Any]) -> None:
        """Push a tuple; one that holds more than plain values serves for calls alone."""
        self.spend()
        whole = tuple(items)
        is_plain = PLAIN.issuperset(map(type, whole))
        self.stack.append(whole if is_plain else Arguments(whole))

    def check_plain(self, items: Iterable[Any]) -> None:
        """Raise `ValueError` unless all are plain values."""
        for item in items:
            if type(item) not in PLAIN:
                raise ValueError(f"{told(item)} is kept as a value")

    def set_items(self, target: Any, keys: list[Any], values: list[Any]) -> None:
        """Put keys and values into a dict."""
        if type(target) is not dict or len(keys) != len(values):
            raise ValueError(f"items are put into {told(target)}")
        self.check_atoms(keys)
        if not PLAIN.issuperset(map(type, values)):
            self.check_plain(values)
        target.update(zip(keys, values, strict=True))

    def extend(self, target: Any, items: list[Any]) -> None:
        """Append items to a list."""
        if type(target) is not list:
            raise ValueError(f"items are appended to {told(target)}")
        if not PLAIN.issuperset(map(type, items)):
            self.check_plain(items)
        target.extend(items)

    def check_atoms(self, items: Iterable[Any]) -> None:
        """Raise `ValueError` unless all may be keys: text and numbers."""
        for item in items:
            if type(item) not in ATOMS:
                raise ValueError(f"{told(item)} is used as a key")

    def remember(self, place: int) -> None:
        """Put the top value into the memo."""
        self.made += 1
        if self.made > self._max_objects:
            self.spend(0)
        value = self.memo[place] = self.top
        if type(value) is UnbuiltArray:
            value.memo_places.append(place)

    def recall(self, place: int) -> None:
        """Push a value of the memo."""
        self.stack.append(self.memo[place])

    def push_global(self, module: str, name: str) -> None:
        """Push what stands for a name, or refuse it."""
        found = GLOBALS.get(f"{module}.{name}")
        if found is None:
            raise ValueError(f"it asks for {module[:200]}.{name[:200]}, which is refused")
        self.stack.append(found)

    def call(self, function: Any, arguments: Any) -> None:
        """Push what a name's builder makes of the arguments."""
        if type(function) is not Global or function.build is None:
            raise ValueError(f"{told(function)} is called, which is refused")
        if not isinstance(arguments, tuple):
            raise ValueError(f"{function.name} is called with {told(arguments)}")
        made = function.build(*arguments)
        self.spend(_cost(made))
        self.stack.append(made)

    def build(self) -> None:
        """Give a numpy type or array its state; refuse any other."""
        state, target = self.pop(), self.top
        if type(target) is Dtype:
            target.build(state)
        elif type(target) is UnbuiltArray:
            self.stack[-1] = target.built(state)
            self.spend(_cost(self.stack[-1]))
            for place in target.memo_places:
                self.memo[place] = self.stack[-1]
        else:
            raise ValueError(f"it sets the state of {told(target)}, which is refused")


def _cost(made: object) -> int:
    """Return what a builder's work is charged, in objects."""
    if isinstance(made, set):
        return 1 + len(made)
    size = len(made) if isinstance(made, bytes) else getattr(made, "nbytes", 0)
    return 1 + int(size) // BYTES_PER_OBJECT


def told(value: Any) -> str:
    """Return a value's name for a message: of a global its own, else its type's."""
    if type(value) is Global:
        return value.name
    name = type(value).__name__.lstrip("_").lower()
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def _encoded(text: object, encoding: object = "latin1") -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise ValueError("_codecs.encode with another encoding than latin1")
    return text.encode("latin-1")


def _no_bytes() -> bytes:
    return b""


def _set_of(items: object = ()) -> set[Any]:
    if type(items) not in (list, tuple) or not ATOMS.issuperset(map(type, items)):  # type: ignore[call-overload]
        raise ValueError("a set of more than text and numbers")
    return set(items)  # type: ignore[call-overload,no-any-return]


def _globals() -> dict[str, Global]:
    builders: dict[str, Callable[..., object] | None] = {
        "_codecs.encode": _encoded,
        "numpy.dtype": dtype_of,
        "numpy.ndarray": None,
    }
    for core in ("numpy.core", "numpy._core"):
        builders[f"{core}.multiarray.scalar"] = scalar_of
        builders[f"{core}.multiarray._reconstruct"] = unbuilt_array
        builders[f"{core}.numeric._frombuffer"] = array_from_buffer
    for module in ("builtins", "__builtin__"):
        builders[f"{module}.bytes"] = _no_bytes
        builders[f"{module}.set"] = _set_of
    return {name: Global(name, build) for name, build in builders.items()}


GLOBALS = _globals()
"""Every name a pickle may use -> what stands for it; the found thing itself is never imported."""
