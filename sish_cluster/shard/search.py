"""Running a search over segments: kernels in blocks, spread over threads, cancelled between blocks."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from sish_cluster.core.clock import Cancellation
from sish_cluster.core.query import Mode
from sish_cluster.shard import exact, published, walk
from sish_cluster.shard.found import Hits
from sish_cluster.shard.layout import N_ROWS
from sish_cluster.shard.scope import Scope
from sish_cluster.shard.task import Task

PATCHES_PER_BLOCK = 8
"""Query patches walked between two looks at the cancellation: about a millisecond."""

PATCHES_PER_SCAN = 128
"""Query patches that pass over a block of rows together: their codes stay in the nearest cache."""

ROWS_PER_PIECE = 32_768
"""Rows scanned between two looks at the cancellation: some milliseconds with 100 patches."""

HITS_HELD = 32_768
"""Hits a scan can write before they are taken away."""

WALK_HITS_HELD = 4096
"""The same for walks, which find fewer; a patch that finds more asks for more."""

_Piece = TypeVar("_Piece")
_Result = TypeVar("_Result")


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What the kernels found: hits, joined spans of rows examined (n, 3), counts per patch."""

    hits: Hits
    spans: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]


class Walker:
    """Runs the guided or the published kernel on blocks of patches, with buffers of its own."""

    def __init__(self, task: Task, mode: Mode, cancellation: Cancellation) -> None:
        self._task = task.for_walks(min(PATCHES_PER_BLOCK, len(task.keys)), WALK_HITS_HELD)
        self._kernel = published.published if mode is Mode.SISH else walk.guided
        self._cancellation = cancellation

    def walked(self, chosen: npt.NDArray[np.int64]) -> Outcome:
        """Search the patches ``chosen`` (at most PATCHES_PER_BLOCK)."""
        progress = np.zeros(4, np.int64)
        hits: list[Hits] = []
        spans: list[npt.NDArray[np.int64]] = []
        while progress[0] < len(chosen):
            self._cancellation.check()
            address = self._task.address
            self._kernel(address, chosen.ctypes.data, len(chosen), progress.ctypes.data)
            hits.append(self._task.hits(int(progress[1])))
            spans.append(self._task.spans[: progress[2]].copy())
            if progress[3] > self._task.hit_capacity:
                self._task.hold(int(progress[3]))
            progress[1:] = 0
        return Outcome(Hits.joined(hits), np.concatenate(spans), self._task.counts[chosen])


def walked(task: Task, mode: Mode, cancellation: Cancellation, n_threads: int) -> Outcome:
    """Run the guided or published search of every patch; neighbouring keys share cache."""
    order = np.argsort(task.keys, kind="stable")
    blocks = [order[i : i + PATCHES_PER_BLOCK] for i in range(0, len(order), PATCHES_PER_BLOCK)]
    local = threading.local()

    def run(block: npt.NDArray[np.int64]) -> Outcome:
        if not hasattr(local, "walker"):
            local.walker = Walker(task, mode, cancellation)
        outcome: Outcome = local.walker.walked(block)
        return outcome

    outcomes = list(_mapped(run, blocks, n_threads))
    counts = np.zeros(len(order), np.int64)
    counts[order] = np.concatenate([outcome.counts for outcome in outcomes])
    spans = np.concatenate([outcome.spans for outcome in outcomes])
    return Outcome(Hits.joined([o.hits for o in outcomes]), spans, counts)


def scanned(
    scope: Scope, task: Task, cancellation: Cancellation, *, max_candidates: int, n_threads: int
) -> Outcome:
    """Run the exact scan of every patch over every row."""
    parts = []
    for first in range(0, len(task.keys), PATCHES_PER_SCAN):
        some = task.part(slice(first, first + PATCHES_PER_SCAN))
        kept = _Kept(some, max_candidates)
        _scan(some, kept, cancellation, n_threads)
        hits = kept.hits()
        parts.append(dataclasses.replace(hits, patches=hits.patches + first))
    counts = np.full(len(task.keys), scope.n_eligible, np.int64)
    return Outcome(Hits.joined(parts), np.zeros((0, 3), np.int64), counts)


class _Kept:
    """Hits so far; once there are many, each patch's bound falls to its k-th distance (k > 0)."""

    def __init__(self, task: Task, k: int) -> None:
        self._bounds = task.bounds
        self._k = k
        self._parts: list[Hits] = []
        self._rows = 0
        self._most_rows = 4 * k * len(task.bounds)
        self._lock = threading.Lock()

    def add(self, hits: Hits) -> None:
        with self._lock:
            self._parts.append(hits)
            self._rows += len(hits)
            if self._k and self._rows > self._most_rows:
                self._parts = [self._nearest(Hits.joined(self._parts))]
                self._rows = len(self._parts[0])
                self._most_rows = max(self._most_rows, 2 * self._rows)

    def _nearest(self, hits: Hits) -> Hits:
        """Return the hits within each patch's k-th distance, ties included, and lower the bounds."""
        ordered = hits.taken(np.lexsort((hits.distances, hits.patches)))
        starts = np.searchsorted(ordered.patches, np.arange(len(self._bounds) + 1))
        for patch in np.flatnonzero(np.diff(starts) >= self._k):
            self._bounds[patch] = ordered.distances[starts[patch] + self._k - 1]
        return ordered.taken(ordered.distances <= self._bounds[ordered.patches])

    def hits(self) -> Hits:
        return Hits.joined(self._parts)


def _scan(task: Task, kept: _Kept, cancellation: Cancellation, n_threads: int) -> None:
    pieces = [
        (s, start, min(start + ROWS_PER_PIECE, int(n_rows)))
        for s, n_rows in enumerate(task.table[:, N_ROWS])
        for start in range(0, int(n_rows), ROWS_PER_PIECE)
    ]
    local = threading.local()

    def run(piece: tuple[int, int, int]) -> None:
        if not hasattr(local, "task"):
            local.task = task.for_scans(max(HITS_HELD, exact.BLOCK * len(task.keys)))
        state = np.array([*piece, 0], np.int64)
        while state[1] < state[2]:
            cancellation.check()
            exact.exact(local.task.address, state.ctypes.data)
            kept.add(local.task.hits(int(state[3])))

    for _ in _mapped(run, pieces, n_threads):
        pass


def _mapped(
    run: Callable[[_Piece], _Result], pieces: Sequence[_Piece], n_threads: int
) -> Iterable[_Result]:
    """Map pieces, on several threads when that can help; the first error ends it."""
    if n_threads <= 1 or len(pieces) <= 1:
        return map(run, pieces)
    with ThreadPoolExecutor(min(n_threads, len(pieces)), "search") as pool:
        return list(pool.map(run, pieces))
