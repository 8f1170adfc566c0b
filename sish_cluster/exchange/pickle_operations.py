"""The operations of pickle protocols 0 to 5 that make plain values, by their byte.

Operations that would reach outside the file are here too, to say by name why they are refused: persistent
ids, extension codes, buffers kept elsewhere, and the three ways of making objects.
"""

from __future__ import annotations

import codecs
import struct
from collections.abc import Callable
from typing import Any

from sish_cluster.exchange.pickle_machine import Machine, told

PROTOCOLS = range(6)
"""Pickle protocols there are."""

LARGEST = 1 << 64
"""Bound of a whole number's size: keys, corners and codewords fit, and no number takes long to build."""

MAX_DIGITS = 40
"""Characters of a number written as text."""

Operation = Callable[[Machine], None]
"""One operation: what it does to the machine."""


def _refused(what: str) -> Operation:
    def refuse(machine: Machine) -> None:
        raise ValueError(f"{what}, which is refused")

    return refuse


def _unknown(machine: Machine) -> None:
    raise ValueError("a byte that is no operation of a pickle: it is damaged, or no pickle")


def _object_made(machine: Machine) -> None:
    named = next((told(value) for value in reversed(machine.stack) if _is_name(value)), "an object")
    raise ValueError(f"it makes {named} without a call, which is refused")


def _is_name(value: Any) -> bool:
    return type(value).__name__ == "Global"


def _protocol(machine: Machine) -> None:
    found = machine.number(1)
    if found not in PROTOCOLS:
        raise ValueError(f"pickle protocol {found}; known are 0..{PROTOCOLS[-1]}")


def _stop(machine: Machine) -> None:
    machine.has_stopped = True


def _mark(machine: Machine) -> None:
    machine.spend()
    machine.marks.append(len(machine.stack))


def _pop(machine: Machine) -> None:
    if machine.marks and machine.marks[-1] == len(machine.stack):
        machine.marks.pop()
    else:
        machine.stack.pop()


def _pushed(made: Callable[[Machine], Any], *, objects: int = 0) -> Operation:
    """Return the operation that pushes what ``made`` returns, charged as so many objects."""

    def push(machine: Machine) -> None:
        if objects:
            machine.spend(objects)
        machine.stack.append(made(machine))

    return push


def _small_number(machine: Machine) -> None:
    """Push one byte's number: spelled out, for it is among the most frequent operations."""
    at = machine.at
    machine.stack.append(machine.content[at])
    machine.at = at + 1


def _recall_small(machine: Machine) -> None:
    """Push a memo entry of one byte's number: the most frequent operation of all."""
    at = machine.at
    machine.stack.append(machine.memo[machine.content[at]])
    machine.at = at + 1


def _text(size: int) -> Operation:
    """Return the operation for UTF-8 text after a length of ``size`` bytes."""
    return _pushed(lambda m: m.taken(m.number(size)).decode(), objects=1)


def _bytes(size: int) -> Operation:
    return _pushed(lambda m: m.taken(m.number(size)), objects=1)


def _old_text(size: int) -> Operation:
    """Return the operation for 8-bit text of Python 2, read as Latin-1: raw numbers survive it."""
    return _pushed(lambda m: m.taken(m.number(size)).decode("latin-1"), objects=1)


def _quoted_text(machine: Machine) -> str:
    line = machine.line()
    if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in (b"'", b'"'):
        raise ValueError("text without its quotes")
    return codecs.escape_decode(line[1:-1])[0].decode("latin-1")


def _whole(machine: Machine) -> int | bool:
    line = machine.line().strip()
    if line in (b"00", b"01"):
        return line == b"01"
    return _bounded(int(_digits(line)))


def _long(machine: Machine) -> int:
    return _bounded(int(_digits(machine.line().strip().removesuffix(b"L"))))


def _real(machine: Machine) -> float:
    return float(_digits(machine.line()))


def _digits(line: bytes) -> bytes:
    if len(line) > MAX_DIGITS:
        raise ValueError(f"a number of {len(line)} characters; at most {MAX_DIGITS}")
    return line


def _bounded(number: int) -> int:
    if not -LARGEST < number < LARGEST:
        raise ValueError("a whole number beyond 64 bits")
    return number


def _packed_long(size: int) -> Operation:
    def made(machine: Machine) -> int:
        content = machine.taken(machine.number(size))
        if len(content) > MAX_DIGITS:
            raise ValueError(f"a whole number of {len(content)} bytes")
        return _bounded(int.from_bytes(content, "little", signed=True))

    return _pushed(made)


def _unpacked(layout: str, size: int) -> Operation:
    unpack = struct.Struct(layout).unpack
    return _pushed(lambda m: unpack(m.taken(size))[0])


def _constant(value: Any) -> Operation:
    return _pushed(lambda m: value)


def _append(machine: Machine) -> None:
    item = machine.pop()
    machine.extend(machine.top, [item])


def _appends(machine: Machine) -> None:
    items = machine.marked()
    machine.extend(machine.top, items)


def _set_item(machine: Machine) -> None:
    value, key = machine.pop(), machine.pop()
    machine.set_items(machine.top, [key], [value])


def _set_items(machine: Machine) -> None:
    items = machine.marked()
    machine.set_items(machine.top, items[::2], items[1::2])


def _add_items(machine: Machine) -> None:
    items, target = machine.marked(), machine.top
    if type(target) is not set:
        raise ValueError(f"members are added to {told(target)}")
    machine.check_atoms(items)
    target.update(items)


def _list(machine: Machine) -> None:
    items = machine.marked()
    machine.spend()
    machine.stack.append([])
    machine.extend(machine.top, items)


def _dict(machine: Machine) -> None:
    items = machine.marked()
    machine.spend()
    machine.stack.append({})
    machine.set_items(machine.top, items[::2], items[1::2])


def _tuple_of(count: int) -> Operation:
    def push(machine: Machine) -> None:
        items = [machine.pop() for _ in range(count)]
        machine.push_tuple(reversed(items))

    return push


def _global(machine: Machine) -> None:
    module, name = machine.line(), machine.line()
    machine.push_global(module.decode(), name.decode())


def _stack_global(machine: Machine) -> None:
    name, module = machine.pop(), machine.pop()
    if type(name) is not str or type(module) is not str:
        raise ValueError(f"a name made of {told(module)} and {told(name)}")
    machine.push_global(module, name)


def _instance(machine: Machine) -> None:
    _global(machine)
    function = machine.pop()
    machine.call(function, tuple(machine.marked()))


def _call(machine: Machine) -> None:
    arguments, function = machine.pop(), machine.pop()
    machine.call(function, arguments)


def _table() -> list[Operation]:
    """Return the operations by byte; all others are refused."""
    table: list[Operation] = [_unknown] * 256
    for byte, operation in _KNOWN.items():
        table[byte[0]] = operation
    return table


_KNOWN: dict[bytes, Operation] = {
    b"(": _mark,
    b".": _stop,
    b"0": _pop,
    b"1": lambda m: m.marked().clear(),
    b"2": lambda m: m.stack.append(m.top),
    b"F": _pushed(_real),
    b"I": _pushed(_whole),
    b"J": _unpacked("<i", 4),
    b"K": _small_number,
    b"L": _pushed(_long),
    b"M": lambda m: m.stack.append(m.number(2)),
    b"N": _constant(None),
    b"P": _refused("it refers to a persistent id"),
    b"Q": _refused("it refers to a persistent id"),
    b"R": _call,
    b"S": _pushed(_quoted_text, objects=1),
    b"T": _old_text(4),
    b"U": _old_text(1),
    b"V": _pushed(lambda m: m.line().decode("raw-unicode-escape"), objects=1),
    b"X": _text(4),
    b"a": _append,
    b"b": lambda m: m.build(),
    b"c": _global,
    b"d": _dict,
    b"}": _pushed(lambda m: {}, objects=1),
    b"e": _appends,
    b"g": lambda m: m.recall(int(_digits(m.line()))),
    b"h": _recall_small,
    b"i": _instance,
    b"j": lambda m: m.recall(m.number(4)),
    b"l": _list,
    b"]": _pushed(lambda m: [], objects=1),
    b"o": _object_made,
    b"p": lambda m: m.remember(int(_digits(m.line()))),
    b"q": lambda m: m.remember(m.number(1)),
    b"r": lambda m: m.remember(m.number(4)),
    b"s": _set_item,
    b"t": lambda m: m.push_tuple(m.marked()),
    b")": lambda m: m.push_tuple(()),
    b"u": _set_items,
    b"G": _unpacked(">d", 8),
    b"\x80": _protocol,
    b"\x81": _object_made,
    b"\x82": _refused("it uses an extension code"),
    b"\x83": _refused("it uses an extension code"),
    b"\x84": _refused("it uses an extension code"),
    b"\x85": _tuple_of(1),
    b"\x86": _tuple_of(2),
    b"\x87": _tuple_of(3),
    b"\x88": _constant(True),
    b"\x89": _constant(False),
    b"\x8a": _packed_long(1),
    b"\x8b": _packed_long(4),
    b"B": _bytes(4),
    b"C": _bytes(1),
    b"\x8c": _text(1),
    b"\x8d": _text(8),
    b"\x8e": _bytes(8),
    b"\x8f": _pushed(lambda m: set(), objects=1),
    b"\x90": _add_items,
    b"\x91": _refused("it makes a frozenset"),
    b"\x92": _object_made,
    b"\x93": _stack_global,
    b"\x94": lambda m: m.remember(len(m.memo)),
    b"\x95": lambda m: m.check_frame(m.number(8)),
    b"\x96": _bytes(8),
    b"\x97": _refused("it keeps a buffer elsewhere"),
    b"\x98": _refused("it keeps a buffer elsewhere"),
}

OPERATIONS = _table()
"""Byte -> operation."""
