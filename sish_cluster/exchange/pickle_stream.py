"""Writing a dict as a plain pickle without holding it: protocol 2, which every Python reads.

A dict's pickle is an opening, a run of (key, value) pairs, a closing. Each pair is pickled alone, by Python,
and joined to the others; memo entries are numbered anew in each pair and read only there.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sish_cluster.core.errors import BadRequest

PROTOCOL = 2
"""Oldest protocol with compact text: Python 2.3 and later, and numpy of any age."""

_OPENING, _MARK, _ITEMS, _STOP = b"\x80\x02}", b"(", b"u", b"."


def write_pickle(path: Path, value: Any) -> None:
    """Write one plain value."""
    path.write_bytes(pickle.dumps(value, PROTOCOL))


def write_pickled_items(path: Path, items: Iterable[tuple[Any, Any]]) -> int:
    """Write a dict of items as they come; return how many there were."""
    count = 0
    with path.open("wb") as file:
        file.write(_OPENING)
        for key, value in items:
            file.write(_MARK + _bare(key) + _bare(value) + _ITEMS)
            count += 1
        file.write(_STOP)
    return count


def _bare(value: Any) -> bytes:
    """Return a value's pickle without its opening (protocol) and its closing."""
    return pickle.dumps(value, PROTOCOL)[2:-1]


def empty_folder(folder: Path) -> Path:
    """Return a folder to write into, made if it is missing.

    Raises
    ------
    BadRequest
        If it holds something: files of two exports must not mix.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BadRequest(f"{folder}: is not an empty folder; give a new one, or empty it")
    folder.mkdir(parents=True, exist_ok=True)
    return folder
