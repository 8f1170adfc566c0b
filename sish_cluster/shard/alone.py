"""The search of one query patch: what surrounds its one kernel call, kept as small as a walk.

Every thread has a desk: buffers that one search after another uses, whose addresses are known. What a
search wrote there is copied out before the next.
"""

from __future__ import annotations

import operator
import threading

import numpy as np
import numpy.typing as npt

from sish_cluster.core.query import Mode, SearchSettings
from sish_cluster.shard import alone_kernels as answer
from sish_cluster.shard import layout
from sish_cluster.shard.cursors import N_CURSORS
from sish_cluster.shard.found import Found
from sish_cluster.shard.scope import Scope
from sish_cluster.shard.task import bounds_of

FIRST_HITS = 1024
"""Hits a desk has room for at first: most searches of one patch find tens to hundreds."""

MOST_HITS = 32_768
"""Hits of the largest desk, about 2 MB; a search that may find more takes the general way."""

_Size = tuple[int, int, int, int]


class Desk:
    """Buffers of one thread's searches, for at most some segments, seeds, code words and distances."""

    def __init__(self, size: _Size, capacity: int) -> None:
        n_segments, n_seeds, n_words, max_distance = size
        self.size, self.capacity, self.wanted = size, capacity, 0
        self._task = np.zeros(layout.N_TASK, np.int64)
        self._answer = np.zeros(answer.N_ANSWER, np.int64)
        self._key = np.zeros(1, np.int64)
        self._code = np.zeros(max(n_words, layout.HEAD), np.int64)
        self._buffers = (
            np.empty((capacity + 1, layout.HIT_WORDS), np.int64),
            np.empty((2 * n_seeds * n_segments + n_segments, layout.SPAN_WORDS), np.int64),
            np.empty((n_seeds * n_segments, N_CURSORS), np.int64),
            np.empty(capacity, np.int64),
        )
        self._starts = np.empty(max_distance + 1, np.int64)
        self._keys = np.empty(capacity, np.uint64)
        self._corners = np.empty((capacity, 2), np.int32)
        self._ordinals = np.empty(capacity, np.uint32)
        self._numbers = np.empty(capacity, np.uint32)
        self._distances = np.empty(capacity, np.uint16)
        self._write_addresses()

    def _write_addresses(self) -> None:
        hits, spans, cursors, accepted = (buffer.ctypes.data for buffer in self._buffers)
        self._task[layout.HITS :] = 0
        self._task[layout.HITS : layout.ALL_CURSORS + 1] = (hits, self.capacity, spans, cursors)
        self._task[layout.ACCEPTED] = accepted
        columns = (self._keys, self._corners, self._ordinals, self._numbers, self._distances)
        written = (self._starts, *columns)
        self._answer[answer.STARTS :] = [column.ctypes.data for column in written]
        code = self._code.ctypes.data
        self._query = (self._key.ctypes.data, code, code + 8 * layout.HEAD)
        self._count = self._answer.ctypes.data + 8 * answer.COUNT
        self._addresses = (self._task.ctypes.data, self._answer.ctypes.data)

    def search(
        self, scope: Scope, key: int, words: npt.NDArray[np.int64], settings: SearchSettings
    ) -> Found | None:
        """Return the answer; None when slide ids are needed to order it, or room for ``wanted`` hits."""
        self._key[0] = key
        n_words = len(words)
        self._code[:n_words] = words
        self._code[n_words : layout.HEAD] = 0
        n_tail = max(n_words - layout.HEAD, 0)
        self._task[: layout.HITS] = (
            *scope.words,
            *bounds_of(settings),
            *self._query,
            n_tail,
            1,
            0,
            self._count,
        )
        run = answer.published_alone if settings.mode is Mode.SISH else answer.guided_alone
        run(*self._addresses)
        done, n, _, self.wanted, is_tied, count, *_ = self._answer.tolist()
        if not done or is_tied:
            return None
        return self._found(min(n, settings.max_candidates or n), count, scope.n_eligible)

    def _found(self, n: int, count: int, n_eligible: int) -> Found:
        return Found(
            offsets=np.array((0, n), np.int64),
            keys=self._keys[:n].copy(),
            distances=self._distances[:n].copy(),
            ordinals=self._ordinals[:n].copy(),
            numbers=self._numbers[:n].copy(),
            corners=self._corners[:n].copy(),
            examined_keys=None,
            examined_key_counts=None,
            examined_counts=np.array((count,), np.int64),
            eligible=n_eligible,
        )


class _Desks(threading.local):
    """Each thread's desk."""

    desk: Desk | None = None


_DESKS = _Desks()


def found_alone(
    scope: Scope, key: int, codes: npt.NDArray[np.uint8], settings: SearchSettings
) -> Found | None:
    """Return the published or guided answer to one patch, or None where the general way has to.

    Parameters
    ----------
    scope
        What is searched; something is eligible.
    key, codes
        The patch: ``0 <= key < 2**50``, uint8 (1, code_bytes).
    settings
        Bounds; the mode is SISH or GUIDED.
    """
    words = np.ascontiguousarray(codes).view(np.int64)[0]
    n_seeds = 2 * settings.seeds_per_side
    size = (len(scope.segments), n_seeds, len(words), settings.max_distance)
    desk = _desk_for(size, FIRST_HITS)
    found = desk.search(scope, key, words, settings)
    if found is None and desk.capacity < desk.wanted <= MOST_HITS:
        found = _desk_for(size, desk.wanted).search(scope, key, words, settings)
    return found


def _desk_for(size: _Size, capacity: int) -> Desk:
    """Return this thread's desk, made larger where it is too small."""
    desk = _DESKS.desk
    if desk is None:
        desk = _DESKS.desk = Desk(size, capacity)
    elif desk.capacity < capacity or any(map(operator.lt, desk.size, size)):
        a, b, c, d = map(max, desk.size, size)
        desk = _DESKS.desk = Desk((a, b, c, d), max(desk.capacity, capacity))
    return desk
