"""The direct search over one view: blocks of slides on threads, cancelled between blocks.

How the answer stays the same however it is computed: kernels choose pairs by products of single precision
that come within `vectors_patches.margin_of` of their bound, and keep those whose exact cosine reaches it
(`vectors_kernels`); the rows kept get the order (distance, slide id, patch number), in which no two are
equal. Where only some candidates of each patch are wanted, bounds fall to the k-th distance found so far, ties
kept, so no candidate of the answer is ever dropped.

Source
------
RetCCL, "Search": all patches with a cosine of at least 0.7 to the query patch.
"""

from __future__ import annotations

import dataclasses
import functools
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from sish_cluster.core.clock import Cancellation
from sish_cluster.core.embedding import Embeddings
from sish_cluster.core.query import SearchSettings
from sish_cluster.shard import found as order
from sish_cluster.shard import vectors_kernels as kernels
from sish_cluster.shard.found import Found, Hits, Posted, SlideIdsOf
from sish_cluster.shard.layout import ROW_BITS
from sish_cluster.shard.segment import Segment
from sish_cluster.shard.snapshot import Snapshot
from sish_cluster.shard.vectors import VectorsView, width_of
from sish_cluster.shard.vectors_lanes import LANES, ROW_GAP, TILE_ROWS, TILE_VECTORS
from sish_cluster.shard.vectors_patches import Patches
from sish_cluster.shard.words import aligned_empty

PATCHES_PER_PASS = 128
"""Query patches that pass over the rows together: with 1024 dimensions 512 KiB, half of a second cache."""

NUMBERS_PER_BLOCK = 1 << 22
"""Numbers of embeddings between two looks at the cancellation: 10 to 30 ms with 100 patches."""

HITS_HELD = 16_384
"""Hits a kernel can write before they are taken away; at least those of one tile always fit."""

Flags = npt.NDArray[np.bool_]
Table = npt.NDArray[np.int64]


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """Candidates as the kernels found them: columns int64 (n,); ``rows`` are places within a slide."""

    patches: Table
    ordinals: Table
    rows: Table
    distances: Table

    def __len__(self) -> int:
        return len(self.patches)

    def taken(self, chosen: npt.NDArray[np.generic]) -> Pairs:
        """Return the pairs at ``chosen`` (indices or mask)."""
        return Pairs(*(column[chosen] for column in self.columns()))

    def columns(self) -> tuple[Table, ...]:
        """Return the four columns."""
        return (self.patches, self.ordinals, self.rows, self.distances)

    @classmethod
    def joined(cls, parts: Sequence[Pairs]) -> Pairs:
        """Return all pairs of several."""
        empty = np.zeros(0, np.int64)
        every = [cls(empty, empty, empty, empty), *parts]
        columns = zip(*(part.columns() for part in every), strict=True)
        return cls(*(np.concatenate(column) for column in columns))


class _Nearest:
    """Pairs so far; once there are many, each patch's bound falls to its k-th distance (k > 0)."""

    def __init__(self, patches: Patches, k: int) -> None:
        self._farthest = patches.farthest
        self._k = k
        self._parts: list[Pairs] = []
        self._n = 0
        self._most = 4 * k * len(patches)
        self._lock = threading.Lock()

    def add(self, pairs: Pairs) -> None:
        with self._lock:
            self._parts.append(pairs)
            self._n += len(pairs)
            if self._k and self._n > self._most:
                self._parts = [self._cut(Pairs.joined(self._parts))]
                self._n = len(self._parts[0])
                self._most = max(self._most, 2 * self._n)

    def _cut(self, pairs: Pairs) -> Pairs:
        """Return the pairs within each patch's k-th distance, ties included, and lower the bounds."""
        ordered = pairs.taken(np.lexsort((pairs.distances, pairs.patches)))
        starts = np.searchsorted(ordered.patches, np.arange(len(self._farthest) + 1))
        for patch in np.flatnonzero(np.diff(starts) >= self._k):
            self._farthest[patch] = ordered.distances[starts[patch] + self._k - 1]
        return ordered.taken(ordered.distances <= self._farthest[ordered.patches])

    def pairs(self) -> Pairs:
        return Pairs.joined(self._parts)


class _Scanner:
    """Runs the kernel on blocks of slides, with room of its own."""

    def __init__(self, patches: Patches, vectors: VectorsView, cancellation: Cancellation) -> None:
        self._patches = patches
        self._vectors = vectors
        self._cancellation = cancellation
        wide = LANES * TILE_VECTORS
        n_hits = max(HITS_HELD, TILE_ROWS * len(patches))
        self._singles = aligned_empty((TILE_ROWS, patches.width + ROW_GAP), np.float32)
        self._singles[:] = 0.0
        self._products = aligned_empty((TILE_ROWS * wide,), np.float32)
        self._products[:] = 0.0
        self._hits = np.empty((n_hits, kernels.HIT_WORDS), np.int64)

    def scanned(self, ordinals: Table) -> Iterator[Pairs]:
        """Yield the pairs of some slides."""
        columns = (self._vectors.rows, self._vectors.factors, self._vectors.counts)
        slides = [np.ascontiguousarray(column[ordinals]) for column in columns]
        state = np.zeros(kernels.N_STATE, np.int64)
        while state[kernels.SLIDE] < len(ordinals):
            self._cancellation.check()
            state[kernels.N_HITS] = 0
            state[kernels.ROWS_LEFT] = _rows_per_block(self._patches.width)
            bounds = self._patches.bounds()
            job = self._job(slides, bounds)
            kernels.scan(job.ctypes.data, state.ctypes.data)
            written = self._hits[: state[kernels.N_HITS]]
            patches, places, rows, distances = written.T.copy()
            yield Pairs(patches, ordinals[places], rows, distances)

    def _job(self, slides: list[Table], bounds: npt.NDArray[np.float32]) -> Table:
        fields = self._patches.fields() | {
            kernels.N_SLIDES: len(slides[0]),
            kernels.ROWS: slides[0].ctypes.data,
            kernels.FACTORS: slides[1].ctypes.data,
            kernels.COUNTS: slides[2].ctypes.data,
            kernels.BOUNDS: bounds.ctypes.data,
            kernels.SINGLES: self._singles.ctypes.data,
            kernels.PRODUCTS: self._products.ctypes.data,
            kernels.HITS: self._hits.ctypes.data,
            kernels.HIT_CAPACITY: len(self._hits),
        }
        job = np.zeros(kernels.N_JOB, np.int64)
        job[list(fields)] = list(fields.values())
        return job


def _rows_per_block(width: int) -> int:
    return max(TILE_ROWS, NUMBERS_PER_BLOCK // width)


def direct(
    snapshot: Snapshot,
    vectors: VectorsView,
    embeddings: Embeddings,
    settings: SearchSettings,
    *,
    eligible: Flags,
    slide_ids_of: SlideIdsOf,
    cancellation: Cancellation,
    n_threads: int = 1,
) -> Found:
    """Return every eligible posting whose cosine to a query patch reaches ``settings.min_cosine``.

    Parameters
    ----------
    snapshot, vectors
        Postings and embeddings of one moment; the caller holds their view.
    embeddings
        float16 (n_patches, dimensions) of the query patches.
    settings
        ``min_cosine`` and ``max_candidates`` count.
    eligible
        bool by ordinal.
    slide_ids_of
        Asked only where a tie needs slide ids.
    cancellation
        Asked between blocks; what it raises ends the search.
    n_threads
        Threads that may work on it; the answer does not depend on it.
    """
    ordinals = np.flatnonzero(eligible[: len(vectors.counts)] & (vectors.counts > 0))
    n_eligible = int(vectors.counts[ordinals].sum())
    parts = []
    for first in range(0, len(embeddings), PATCHES_PER_PASS):
        some = Patches(embeddings[first : first + PATCHES_PER_PASS], settings.min_cosine)
        nearest = _Nearest(some, settings.max_candidates)
        scanner = functools.partial(_Scanner, some, vectors, cancellation)
        _scan(nearest, scanner, _blocks(vectors, ordinals), n_threads)
        pairs = nearest.pairs()
        parts.append(dataclasses.replace(pairs, patches=pairs.patches + first))
    cancellation.check()
    pairs = Pairs.joined(parts)
    hits = Hits(pairs.patches, np.zeros_like(pairs.rows), pairs.distances, _places(snapshot, pairs))
    posted = order.ordered_by_distance(Posted.of(hits, snapshot.segments), slide_ids_of)
    return _found(order.cut(posted, settings.max_candidates), len(embeddings), n_eligible)


def _scan(
    nearest: _Nearest, scanner: Callable[[], _Scanner], blocks: Sequence[Table], n_threads: int
) -> None:
    """Scan every block, with a scanner per thread."""
    local = threading.local()

    def run(block: Table) -> None:
        if not hasattr(local, "scanner"):
            local.scanner = scanner()
        for pairs in local.scanner.scanned(block):
            nearest.add(pairs)

    _run_all(run, blocks, n_threads)


def _run_all(run: Callable[[Table], None], blocks: Sequence[Table], n_threads: int) -> None:
    """Run every block, on several threads when that can help; the first error ends it."""
    if n_threads <= 1 or len(blocks) <= 1:
        for block in blocks:
            run(block)
        return
    with ThreadPoolExecutor(min(n_threads, len(blocks)), "direct") as pool:
        for done in [pool.submit(run, block) for block in blocks]:
            done.result()


def _blocks(vectors: VectorsView, ordinals: Table) -> list[Table]:
    """Return the slides in blocks of whole slides, of about `NUMBERS_PER_BLOCK` numbers each."""
    ends = np.cumsum(vectors.counts[ordinals])
    numbers = (ends - 1) // _rows_per_block(width_of(vectors.dimensions))
    cuts = np.flatnonzero(np.diff(numbers)) + 1
    return [block for block in np.split(ordinals, cuts) if len(block)]


def _places(snapshot: Snapshot, pairs: Pairs) -> Table:
    """Return where each pair's posting lies in the index: the slide's rows there, by patch number."""
    is_wanted = np.zeros(len(snapshot.postings_of), np.bool_)
    is_wanted[pairs.ordinals] = True
    empty = np.zeros(0, np.int64)
    columns = [_wanted(segment, s, is_wanted) for s, segment in enumerate(snapshot.segments)]
    ordinals, numbers, places = map(
        np.concatenate, zip((empty, empty, empty), *columns, strict=True)
    )
    by_row = np.lexsort((numbers, ordinals))
    starts = np.searchsorted(ordinals[by_row], pairs.ordinals)
    return np.asarray(places[by_row[starts + pairs.rows]])


def _wanted(segment: Segment, s: int, is_wanted: Flags) -> tuple[Table, Table, Table]:
    """Return ordinals, patch numbers and places of a segment's rows of the slides wanted."""
    rows = np.flatnonzero(is_wanted[segment.ordinals])
    ordinals = segment.ordinals[rows].astype(np.int64)
    return ordinals, segment.numbers[rows].astype(np.int64), rows | (s << ROW_BITS)


def _found(posted: Posted, n_patches: int, n_eligible: int) -> Found:
    return Found(
        offsets=np.searchsorted(posted.hits.patches, np.arange(n_patches + 1)).astype(np.int64),
        keys=posted.keys.view(np.uint64),
        distances=posted.hits.distances.astype(np.uint16),
        ordinals=posted.ordinals,
        numbers=posted.numbers,
        corners=posted.corners,
        examined_keys=None,
        examined_key_counts=None,
        examined_counts=np.full(n_patches, n_eligible, np.int64),
        eligible=n_eligible,
    )
