"""A search as the kernels read it: one block of whole numbers, and the arrays behind its addresses."""

from __future__ import annotations

import copy

import numpy as np
import numpy.typing as npt

from sish_cluster.core.key import COARSE_UNIT, Keys
from sish_cluster.core.query import SearchSettings
from sish_cluster.shard import layout
from sish_cluster.shard.cursors import N_CURSORS
from sish_cluster.shard.found import Hits
from sish_cluster.shard.scope import Scope
from sish_cluster.shard.segment import heads_of

Words = npt.NDArray[np.int64]


def bounds_of(settings: SearchSettings) -> tuple[int, int, int, int]:
    """Return a search's bounds as a task has them; see `layout`."""
    stride = settings.seed_spacing * COARSE_UNIT
    return (settings.seeds_per_side, stride, settings.max_steps, settings.max_distance)


class Task:
    """One search's numbers and addresses; keeps alive whatever they point at.

    Parameters
    ----------
    scope
        What is searched.
    keys, codes
        The query patches: uint64 (n,) and uint8 (n, code_bytes).
    settings
        The search's bounds.
    """

    def __init__(
        self, scope: Scope, keys: Keys, codes: npt.NDArray[np.uint8], settings: SearchSettings
    ) -> None:
        words = np.ascontiguousarray(codes).view(np.int64)
        self._scope = scope
        self._settings = settings
        self.table: Words = scope.table
        self.keys: Words = np.ascontiguousarray(keys).view(np.int64)
        self._heads: Words = heads_of(words)
        self._tails: Words = np.ascontiguousarray(words[:, layout.HEAD :])
        self._fill()

    def _fill(self) -> None:
        """Write the block anew, without buffers for results."""
        n_patches = len(self.keys)
        self.bounds: Words = np.full(n_patches, self._settings.max_distance, np.int64)
        self.counts: Words = np.zeros(n_patches, np.int64)
        self._block: Words = np.zeros(layout.N_TASK, np.int64)
        self._block[: layout.HITS] = (
            *self._scope.words,
            *bounds_of(self._settings),
            self.keys.ctypes.data,
            self._heads.ctypes.data,
            self._tails.ctypes.data,
            self._tails.shape[1],
            n_patches,
            self.bounds.ctypes.data,
            self.counts.ctypes.data,
        )

    @property
    def address(self) -> int:
        """Address of the block, for kernels."""
        return int(self._block.ctypes.data)

    @property
    def hit_capacity(self) -> int:
        """Hits a kernel can write."""
        return int(self._block[layout.HIT_CAPACITY])

    def part(self, patches: slice) -> Task:
        """Return the task of some patches, with bounds and counts of its own."""
        task = copy.copy(self)
        task.keys, task._heads = self.keys[patches], self._heads[patches]
        task._tails = self._tails[patches]
        task._fill()
        return task

    def for_scans(self, capacity: int) -> Task:
        """Return this task with a buffer for hits of its own; the bounds are shared."""
        task = copy.copy(self)
        task._block = self._block.copy()
        task._hold_hits(capacity)
        return task

    def for_walks(self, n_patches: int, capacity: int) -> Task:
        """Return this task with buffers of its own for walks of ``n_patches`` at a time."""
        task = self.for_scans(capacity)
        n_segments = len(self.table)
        most_spans = n_patches * 4 * self._settings.seeds_per_side * n_segments
        task.spans = np.empty((most_spans, layout.SPAN_WORDS), np.int64)
        n_seeds = 2 * self._settings.seeds_per_side - 1
        task._cursors = np.zeros((n_seeds, n_segments, N_CURSORS), np.int64)
        task._block[layout.SPANS] = task.spans.ctypes.data
        task._block[layout.ALL_CURSORS] = task._cursors.ctypes.data
        task.hold(capacity)
        return task

    def hold(self, capacity: int) -> None:
        """Make room for this many hits, and for as many accepted keys."""
        self._hold_hits(capacity)
        self._accepted: Words = np.empty(capacity, np.int64)
        self._block[layout.ACCEPTED] = self._accepted.ctypes.data

    def _hold_hits(self, capacity: int) -> None:
        self._hits: Words = np.empty((capacity + 1, layout.HIT_WORDS), np.int64)
        self._block[layout.HITS] = self._hits.ctypes.data
        self._block[layout.HIT_CAPACITY] = capacity

    def hits(self, n: int) -> Hits:
        """Return a copy of the first ``n`` hits written."""
        written = self._hits[:n]
        return Hits(
            patches=written[:, 0] >> 32,
            groups=written[:, 0] & 0xFFFFFFFF,
            distances=written[:, 2].copy(),
            places=written[:, 1].copy(),
        )

    spans: Words
    """Spans written by walks, int64 (capacity, 3)."""

    _cursors: Words
