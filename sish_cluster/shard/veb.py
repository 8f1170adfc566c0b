"""VebTree: an ordered set of keys in which every step costs O(log log U).

A van Emde Boas tree over ``U = 2**50`` whose clusters exist only where there are keys: all of them are
entries of one hash table, so memory is linear in the keys, and an empty tree takes 5 KB. Batch forms take
and return arrays; they run compiled, without the GIL. One writer at a time; readers must not overlap
with a writer of the same tree (the posting index never changes a tree that it has shown to readers).

Source
------
van Emde Boas, "Preserving order in a forest in less than logarithmic time", 1975; SISH, "Guided search
algorithm", which walks such a tree.

Examples
--------
>>> tree = VebTree([5, 9, 1 << 49])
>>> tree.successor(5), tree.predecessor(5), 9 in tree, len(tree)
(9, None, True, 3)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from sish_cluster.core.errors import Internal
from sish_cluster.core.key import UNIVERSE, Keys, checked_keys
from sish_cluster.shard import veb_kernels as kernels
from sish_cluster.shard.veb_check import check_tree
from sish_cluster.shard.veb_table import ABSENT, HIGH, LOW, N_KEYS, SLOTS, SUMMARY, TABLE, USED

_SMALLEST_SLOTS = 64
"""Slots of an empty tree's table: 1 KB."""

_PAGE_KEYS = 4096
"""Keys an iteration fetches at a time."""


class VebTree:
    """An ordered set of keys; see the module's story.

    Parameters
    ----------
    keys
        Keys to start with, in any order; ascending order is fastest.

    Raises
    ------
    BadKey
        If a key is outside ``0 <= key < 2**50``.
    """

    def __init__(self, keys: Iterable[int] | Keys = ()) -> None:
        self._block = _empty_block(_SMALLEST_SLOTS)
        array = keys if isinstance(keys, np.ndarray) else np.array(list(keys), np.int64)
        if array.size:
            self.insert_all(array)

    @property
    def address(self) -> int:
        """Address of the tree's words, for kernels; valid until the next insert."""
        return int(self._block.ctypes.data)

    @property
    def memory_bytes(self) -> int:
        """Bytes the tree occupies."""
        return int(self._block.nbytes)

    def __len__(self) -> int:
        return int(self._block[N_KEYS])

    def __contains__(self, key: int) -> bool:
        return bool(self._answer(kernels.CONTAINS, np.array([key], np.int64))[0])

    def __iter__(self) -> Iterator[int]:
        return self.keys_between(0, UNIVERSE)

    @property
    def min(self) -> int | None:
        """The smallest key, or None."""
        return int(self._block[LOW]) if len(self) else None

    @property
    def max(self) -> int | None:
        """The greatest key, or None."""
        return int(self._block[HIGH]) if len(self) else None

    def insert(self, key: int) -> bool:
        """Add a key; return whether it was new."""
        return bool(self.insert_all(np.array([key], np.int64))[0])

    def delete(self, key: int) -> bool:
        """Remove a key; return whether it was there."""
        return bool(self.delete_all(np.array([key], np.int64))[0])

    def successor(self, key: int) -> int | None:
        """Return the smallest key strictly above any int64 ``key``, or None."""
        return _or_none(self.successors_of(np.array([key], np.int64))[0])

    def predecessor(self, key: int) -> int | None:
        """Return the greatest key strictly below any int64 ``key``, or None."""
        return _or_none(self.predecessors_of(np.array([key], np.int64))[0])

    def insert_all(self, keys: npt.NDArray[np.integer]) -> npt.NDArray[np.bool_]:
        """Add keys (n,) in their order; return which were new (n,)."""
        wanted = checked_keys(keys).view(np.int64)
        is_new = np.zeros(wanted.size, np.bool_)
        done = 0
        while True:
            done = kernels.insert_keys(self.address, wanted, is_new, done)
            if done == wanted.size:
                return is_new
            self._resize(int(self._block[SLOTS]) * 2)

    def delete_all(self, keys: npt.NDArray[np.integer]) -> npt.NDArray[np.bool_]:
        """Remove keys (n,) in their order; return which were there (n,)."""
        wanted = checked_keys(keys).view(np.int64)
        was_there = np.zeros(wanted.size, np.bool_)
        kernels.delete_keys(self.address, wanted, was_there)
        while (
            _SMALLEST_SLOTS < int(self._block[SLOTS]) > 8 * (int(self._block[USED]) + kernels.ROOM)
        ):
            self._resize(int(self._block[SLOTS]) // 2)
        return was_there

    def contains_all(self, keys: npt.NDArray[np.integer]) -> npt.NDArray[np.bool_]:
        """Return which keys (n,) are in the tree."""
        return self._answer(kernels.CONTAINS, keys).astype(np.bool_)

    def successors_of(self, keys: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
        """Return, for each int64 key (n,), the smallest key strictly above it, or -1."""
        return self._answer(kernels.SUCCESSOR, keys)

    def predecessors_of(self, keys: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
        """Return, for each int64 key (n,), the greatest key strictly below it, or -1."""
        return self._answer(kernels.PREDECESSOR, keys)

    def keys_between(self, start: int, end: int) -> Iterator[int]:
        """Yield the keys of ``[start, end)`` in order; the tree must not change meanwhile."""
        page = np.empty(_PAGE_KEYS, np.int64)
        while start < end:
            n = kernels.list_keys(self.address, start, end, page)
            yield from page[:n].tolist()
            if n < page.size:
                return
            start = int(page[-1]) + 1

    def set_payloads(self, keys: Keys, payloads: npt.NDArray[np.int64]) -> None:
        """Let a number ride with each of the tree's keys; build such trees once, never delete from them."""
        while int(self._block[SLOTS]) * 5 // 8 < int(self._block[USED]) + len(keys):
            self._resize(int(self._block[SLOTS]) * 2)
        kernels.set_payloads(self.address, keys.view(np.int64), payloads)

    def trim(self) -> None:
        """Give back room that inserts left in the table."""
        slots = max(_SMALLEST_SLOTS, (int(self._block[USED]) + kernels.ROOM) * 8 // 5 + 1)
        if slots < int(self._block[SLOTS]):
            self._resize(slots)

    def payloads_of(self, keys: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
        """Return the numbers that ride with keys (n,), -1 where there is none."""
        return self._answer(kernels.PAYLOADS, keys)

    def check(self) -> None:
        """Compare every node with what the keys demand; raise `Corrupt` at the first difference."""
        check_tree(self._block, np.fromiter(self, np.int64))

    def _answer(self, question: int, keys: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
        answers = np.empty(len(keys), np.int64)
        asked = np.ascontiguousarray(keys)
        asked = (
            asked.view(np.int64) if asked.dtype == np.uint64 else asked.astype(np.int64, copy=False)
        )
        is_neighbour = question in (kernels.SUCCESSOR, kernels.PREDECESSOR)
        answer = kernels.answer_neighbours if is_neighbour else kernels.answer_keys
        answer(self.address, question, asked, answers)
        return answers

    def _resize(self, slots: int) -> None:
        if slots >= 1 << 32:
            raise Internal(f"a tree's table has fewer than 2**32 slots; asked for {slots}")
        block = _empty_block(slots)
        block[N_KEYS:TABLE] = self._block[N_KEYS:TABLE]
        kernels.copy_entries(self.address, int(block.ctypes.data))
        self._block = block


def _empty_block(slots: int) -> npt.NDArray[np.int64]:
    block = np.zeros(TABLE + 2 * slots, np.int64)
    block[SLOTS] = slots
    block[SUMMARY] = ABSENT
    return block


def _or_none(key: Any) -> int | None:
    return int(key) if key >= 0 else None
