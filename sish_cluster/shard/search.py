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
from sish_cluster.core.key import COARSE_UNIT
from sish_cluster.core.query import Mode, SearchSettings
from sish_cluster.shard import exact, walk
from sish_cluster.shard.found import Hits
from sish_cluster.shard.layout import HEAD_WORDS, N_FIELDS, N_ROWS, Sink, Task
from sish_cluster.shard.segment import Segment

PATCHES_PER_BLOCK = 8
"""Query patches walked between two looks at the cancellation: about a millisecond."""

PATCHES_PER_SCAN = 128
"""Query patches that pass over a block of rows together: their codes stay in the nearest cache."""

ROWS_PER_PIECE = 32_768
"""Rows scanned between two looks at the cancellation: some milliseconds with 100 patches."""

_SINK_ROWS = 32_768
"""Rows a new sink holds."""

Mask = npt.NDArray[np.uint8]

_Piece = TypeVar("_Piece")
_Result = TypeVar("_Result")


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Scope:
    """What is searched: segments, which ordinals are eligible, how many postings that makes."""

    segments: Sequence[Segment]
    is_eligible: Mask
    all_eligible: bool
    n_eligible: int


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What the kernels found: hits, joined spans of rows examined (n, 3), counts per patch."""

    hits: Hits
    spans: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]


def task_of(
    scope: Scope,
    keys: npt.NDArray[np.uint64],
    codes: npt.NDArray[np.uint8],
    settings: SearchSettings,
) -> Task:
    """Return the kernels' task: query codes cut like the segments', the table of addresses."""
    words = np.ascontiguousarray(codes).view(np.int64)
    n_head = min(HEAD_WORDS, words.shape[1])
    table = np.array([s.fields for s in scope.segments], np.int64).reshape(-1, N_FIELDS)
    return Task(
        segments=table,
        heads=np.ascontiguousarray(words[:, :n_head]),
        tails=np.ascontiguousarray(words[:, n_head:]),
        keys=np.ascontiguousarray(keys).view(np.int64),
        is_eligible=scope.is_eligible,
        all_eligible=int(scope.all_eligible),
        seeds_per_side=settings.seeds_per_side,
        stride=settings.seed_spacing * COARSE_UNIT,
        max_steps=settings.max_steps,
        max_distance=settings.max_distance,
    )


class Walker:
    """Runs the guided or the published kernel on blocks of patches, with buffers of its own."""

    def __init__(self, task: Task, mode: Mode, cancellation: Cancellation) -> None:
        self._task = task
        self._is_published = mode is Mode.SISH
        self._cancellation = cancellation
        n_segments = len(task.segments)
        self._cursors = np.zeros((walk.N_CURSORS + 1, max(n_segments, 2)), np.int64)
        self._spans = np.empty(
            (PATCHES_PER_BLOCK * 4 * task.seeds_per_side * n_segments, 3), np.int64
        )
        self._counts = np.zeros(len(task.keys), np.int64)
        self._grow(_SINK_ROWS)

    def _grow(self, rows: int) -> None:
        self._sink = _sink_of(rows, self._spans, self._counts)
        size = 1 << (2 * rows).bit_length() if self._is_published else 2
        self._accepted = np.zeros(size, np.int64)

    def walked(self, chosen: npt.NDArray[np.int64]) -> Outcome:
        """Search the patches ``chosen`` (at most PATCHES_PER_BLOCK)."""
        progress = np.zeros(4, np.int64)
        parts: list[Hits] = []
        spans: list[npt.NDArray[np.int64]] = []
        while progress[0] < len(chosen):
            self._cancellation.check()
            self._run(chosen, progress)
            parts.append(_hits_of(self._sink, int(progress[1])))
            spans.append(self._spans[: progress[2]].copy())
            if progress[3] > len(self._sink.places):
                self._grow(int(progress[3]))
            progress[1:] = 0
        return Outcome(Hits.joined(parts), np.concatenate(spans), self._counts)

    def _run(self, chosen: npt.NDArray[np.int64], progress: npt.NDArray[np.int64]) -> None:
        if self._is_published:
            walk.published(self._task, self._sink, chosen, self._cursors, progress, self._accepted)
        else:
            walk.guided(self._task, self._sink, chosen, self._cursors, progress)


def walked(task: Task, mode: Mode, cancellation: Cancellation, n_threads: int) -> Outcome:
    """Run the guided or published search of every patch; neighbouring keys share cache."""
    order = np.argsort(task.keys, kind="stable")
    blocks = [order[i : i + PATCHES_PER_BLOCK] for i in range(0, len(order), PATCHES_PER_BLOCK)]
    local = threading.local()

    def run(block: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], Outcome]:
        if not hasattr(local, "walker"):
            local.walker = Walker(task, mode, cancellation)
        outcome: Outcome = local.walker.walked(block)
        return outcome.counts[block], outcome

    counts = np.zeros(len(order), np.int64)
    outcomes = []
    for block, (block_counts, outcome) in zip(blocks, _mapped(run, blocks, n_threads), strict=True):
        counts[block] = block_counts
        outcomes.append(outcome)
    spans = [outcome.spans for outcome in outcomes] or [np.zeros((0, 3), np.int64)]
    return Outcome(Hits.joined([o.hits for o in outcomes]), np.concatenate(spans), counts)


def scanned(
    scope: Scope, task: Task, cancellation: Cancellation, *, max_candidates: int, n_threads: int
) -> Outcome:
    """Run the exact scan of every patch over every row."""
    n_patches = len(task.keys)
    bounds = np.full(n_patches, task.max_distance, np.int64)
    parts = []
    for first in range(0, n_patches, PATCHES_PER_SCAN):
        part = slice(first, first + PATCHES_PER_SCAN)
        some = task._replace(heads=task.heads[part], tails=task.tails[part], keys=task.keys[part])
        kept = _Kept(bounds[part], max_candidates)
        _scan(some, kept, cancellation, n_threads)
        hits = kept.hits()
        parts.append(dataclasses.replace(hits, patches=hits.patches + np.int32(first)))
    counts = np.full(n_patches, scope.n_eligible, np.int64)
    return Outcome(Hits.joined(parts), np.zeros((0, 3), np.int64), counts)


class _Kept:
    """Hits so far; once there are many, each patch's bound falls to its k-th distance (k > 0)."""

    def __init__(self, bounds: npt.NDArray[np.int64], k: int) -> None:
        self.bounds = bounds
        self._k = k
        self._parts: list[Hits] = []
        self._rows = 0
        self._lock = threading.Lock()

    def add(self, hits: Hits) -> None:
        with self._lock:
            self._parts.append(hits)
            self._rows += len(hits)
            if self._k and self._rows > 4 * self._k * len(self.bounds):
                self._parts = [self._nearest(Hits.joined(self._parts))]
                self._rows = max(len(self._parts[0]), 2 * self._k * len(self.bounds))

    def _nearest(self, hits: Hits) -> Hits:
        """Return the hits within each patch's k-th distance, ties included, and lower the bounds."""
        ordered = hits.taken(np.lexsort((hits.distances, hits.patches)))
        starts = np.searchsorted(ordered.patches, np.arange(len(self.bounds) + 1))
        for patch in np.flatnonzero(np.diff(starts) >= self._k):
            self.bounds[patch] = ordered.distances[starts[patch] + self._k - 1]
        return ordered.taken(ordered.distances <= self.bounds[ordered.patches])

    def hits(self) -> Hits:
        return Hits.joined(self._parts)


def _scan(task: Task, kept: _Kept, cancellation: Cancellation, n_threads: int) -> None:
    pieces = [
        (s, start, min(start + ROWS_PER_PIECE, int(n_rows)))
        for s, n_rows in enumerate(task.segments[:, N_ROWS])
        for start in range(0, int(n_rows), ROWS_PER_PIECE)
    ]
    local = threading.local()

    def run(piece: tuple[int, int, int]) -> None:
        if not hasattr(local, "sink"):
            rows = max(_SINK_ROWS, 256 * len(task.keys))
            local.sink = _sink_of(rows, np.empty((0, 3), np.int64), np.empty(0, np.int64))
        state = np.array([*piece, 0], np.int64)
        while state[1] < state[2]:
            cancellation.check()
            state[1] = exact.exact(task, local.sink, kept.bounds, state)
            kept.add(_hits_of(local.sink, int(state[3])))

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


def _sink_of(rows: int, spans: npt.NDArray[np.int64], counts: npt.NDArray[np.int64]) -> Sink:
    patches, groups, distances = np.empty((3, rows), np.int32)
    return Sink(patches, groups, distances, np.empty(rows, np.int64), spans, counts)


def _hits_of(sink: Sink, n: int) -> Hits:
    columns = (sink.patches, sink.groups, sink.distances, sink.places)
    return Hits(*(column[:n].copy() for column in columns))
