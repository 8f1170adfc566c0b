"""The posting index: postings by key in memory, for one writer and any number of readers.

New postings become small segments; small neighbours are merged at once, larger ones in the background,
so that there are always few. Forgetting marks ordinals; the next compaction drops their rows. What
readers see changes in one assignment, and a snapshot they hold never changes.

Ordinals are dense numbers the store gives to (slide, version) pairs. An ordinal is never used again after
it was forgotten.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from sish_cluster.core.errors import BadMessage, Corrupt, Internal
from sish_cluster.core.key import Keys, checked_keys
from sish_cluster.shard.found import Found, Rows
from sish_cluster.shard.merging import merged, release_freed
from sish_cluster.shard.segment import Segment, segment_of
from sish_cluster.shard.snapshot import Snapshot
from sish_cluster.shard.steps import reached

__all__ = ["Found", "PostingIndex", "Rows", "Snapshot"]

INLINE_ROWS = 32_768
"""Segments up to this many rows are merged by the insert itself: some milliseconds at most."""

RATIO = 4
"""A segment is merged with the newer ones once it has no more than this many times their rows."""

MOST_FORGOTTEN = 0.2
"""Share of forgotten rows at which everything is merged to drop them."""

Flags = npt.NDArray[np.bool_]


class PostingIndex:
    """Postings of one collection; see the module's story.

    Parameters
    ----------
    code_bytes
        Bytes of a packed code, a multiple of 8; 0 for postings without codes.

    Examples
    --------
    >>> index = PostingIndex(code_bytes=8)
    >>> index.insert(
    ...     keys=np.array([7], np.uint64), codes=np.zeros((1, 8), np.uint8),
    ...     ordinals=np.array([0], np.uint32), numbers=np.array([0], np.uint32),
    ...     corners=np.zeros((1, 2), np.int32))
    >>> index.n_postings, index.snapshot().eligible_count(np.array([True]))
    (1, 1)
    """

    def __init__(self, code_bytes: int) -> None:
        if code_bytes < 0 or code_bytes % 8:
            raise BadMessage(f"codes are whole 64-bit words; found {code_bytes} bytes")
        self._code_bytes = code_bytes
        self._publishing = threading.Lock()
        self._compacting = threading.Lock()
        self._busy: frozenset[int] = frozenset()
        no_ordinals = np.zeros(0, np.uint32)
        self._current = Snapshot(code_bytes, (), no_ordinals, np.zeros(0, np.bool_), 0)

    @classmethod
    def bulk(
        cls,
        code_bytes: int,
        *,
        keys: Keys,
        codes: npt.NDArray[np.uint8],
        ordinals: npt.NDArray[np.uint32],
        numbers: npt.NDArray[np.uint32],
        corners: npt.NDArray[np.int32],
    ) -> PostingIndex:
        """Return the index of postings in any order; ascending keys are fastest."""
        index = cls(code_bytes)
        index.insert(keys=keys, codes=codes, ordinals=ordinals, numbers=numbers, corners=corners)
        release_freed(len(keys))
        return index

    @classmethod
    def restored(
        cls, code_bytes: int, segments: Sequence[Segment], forgotten: Sequence[int]
    ) -> PostingIndex:
        """Return the index of whole segments, oldest first, of which some ordinals are forgotten."""
        index = cls(code_bytes)
        tops = [int(segment.ordinals.max()) for segment in segments]
        n_ordinals = 1 + max([-1, *tops, *forgotten])
        is_forgotten = np.zeros(n_ordinals, np.bool_)
        is_forgotten[list(forgotten)] = True
        postings_of = np.zeros(n_ordinals, np.uint32)
        for segment in segments:
            postings_of += _counts(segment, n_ordinals)
        index._current = index._snapshot(segments, postings_of, is_forgotten)
        return index

    @property
    def n_postings(self) -> int:
        """Postings that are not forgotten."""
        return self._current.n_postings

    @property
    def memory_bytes(self) -> int:
        """Bytes of all segments and of what is kept per ordinal."""
        now = self._current
        per_ordinal = now.postings_of.nbytes + now.is_forgotten.nbytes
        return per_ordinal + sum(segment.memory_bytes for segment in now.segments)

    def snapshot(self) -> Snapshot:
        """Return what there is now; O(1), and it never changes."""
        return self._current

    def insert(
        self,
        *,
        keys: Keys,
        codes: npt.NDArray[np.uint8],
        ordinals: npt.NDArray[np.uint32],
        numbers: npt.NDArray[np.uint32],
        corners: npt.NDArray[np.int32],
    ) -> None:
        """Add postings of one or many slides, in any order.

        Raises
        ------
        BadKey, BadMessage
            If a key is out of range or the columns disagree; nothing was added.
        """
        n = len(checked_keys(keys))
        shapes = (codes.shape, ordinals.shape, numbers.shape, corners.shape)
        if shapes != ((n, self._code_bytes), (n,), (n,), (n, 2)):
            raise BadMessage(
                f"{n} keys need codes ({n}, {self._code_bytes}), ordinals ({n},), numbers ({n},) and"
                f" corners ({n}, 2); found {shapes}"
            )
        if n == 0:
            return
        segment = segment_of(
            keys=checked_keys(keys),
            codes=codes,
            ordinals=ordinals,
            numbers=numbers,
            corners=corners,
        )
        with self._publishing:
            self._add(segment)

    def forget(self, ordinals: npt.NDArray[np.uint32]) -> None:
        """Make all postings of these ordinals vanish for later snapshots; unknown ones are ignored."""
        with self._publishing:
            now = self._current
            known = np.unique(ordinals[ordinals < len(now.is_forgotten)])
            is_forgotten = now.is_forgotten.copy()
            is_forgotten[known] = True
            self._current = self._snapshot(now.segments, now.postings_of, is_forgotten)

    def needs_compaction(self) -> bool:
        """Whether `compact` has something to do."""
        return bool(self._next_merge(self._current))

    def compact(self) -> None:
        """Merge segments and drop forgotten rows until none of it is due; readers never wait.

        May run in a thread of its own beside inserts and forgets, which are kept: rows forgotten
        meanwhile stay marked, and segments added meanwhile stay as they are.
        """
        with self._compacting:
            while chosen := self._claim():
                try:
                    reached("compaction begun")
                    replacement = self._merge(chosen)
                    reached("compaction merged")
                    with self._publishing:
                        self._replace(chosen, replacement)
                    reached("compaction swapped")
                finally:
                    self._busy = frozenset()
                    release_freed(sum(map(len, chosen)))

    def check(self) -> None:
        """Raise `Corrupt` unless every invariant of the index holds."""
        now = self._current
        counts = np.zeros(len(now.postings_of), np.int64)
        for segment in now.segments:
            segment.check()
            if len(segment) == 0 or segment.ordinals.max() >= len(counts):
                raise Corrupt("a segment is empty, or has an ordinal nobody counted")
            counts += np.bincount(segment.ordinals, minlength=len(counts))
        if not np.array_equal(counts, now.postings_of):
            raise Corrupt("postings per ordinal are miscounted; rebuild the index from the store")
        if int(counts[~now.is_forgotten].sum()) != now.n_postings:
            raise Corrupt("the number of postings is miscounted; rebuild the index from the store")

    def _add(self, segment: Segment) -> None:
        now = self._current
        n_ordinals = max(len(now.postings_of), int(segment.ordinals.max()) + 1)
        is_forgotten = _grown(now.is_forgotten, n_ordinals)
        if is_forgotten[segment.ordinals].any():
            raise Internal(
                "postings of a forgotten ordinal: a slide stored again needs a new ordinal"
            )
        postings_of = _grown(now.postings_of, n_ordinals)
        first = int(segment.ordinals.min())
        counts = np.bincount(segment.ordinals - np.uint32(first)).astype(np.uint32)
        postings_of[first : first + len(counts)] += counts
        n_postings = now.n_postings + len(segment)
        segments = [*now.segments, segment]
        while self._may_join(segments[-2:]):
            joined = merged(segments[-2:], [None, None])
            segments[-2:] = [joined]
        self._current = Snapshot(
            self._code_bytes, tuple(segments), postings_of, is_forgotten, n_postings
        )

    def _may_join(self, newest: Sequence[Segment]) -> bool:
        """Whether the two newest segments are small, of similar size, and not being compacted."""
        if len(newest) < 2 or any(id(segment) in self._busy for segment in newest):
            return False
        older, newer = map(len, newest)
        return older + newer <= INLINE_ROWS and older <= 2 * newer

    def _snapshot(
        self, segments: Sequence[Segment], postings_of: npt.NDArray[np.uint32], is_forgotten: Flags
    ) -> Snapshot:
        n_postings = int(postings_of[~is_forgotten].sum(dtype=np.int64))
        return Snapshot(self._code_bytes, tuple(segments), postings_of, is_forgotten, n_postings)

    def _next_merge(self, now: Snapshot) -> Sequence[Segment]:
        """Return the newest segments that should become one; empty when none should."""
        sizes = [len(segment) for segment in now.segments]
        n_rows = sum(sizes)
        if n_rows - now.n_postings > MOST_FORGOTTEN * n_rows:
            return now.segments
        newer = 0
        first = len(sizes)
        for i in range(len(sizes) - 1, -1, -1):
            if newer and sizes[i] <= RATIO * newer and n_rows > INLINE_ROWS:
                first = i
            newer += sizes[i]
        return now.segments[first:]

    def _claim(self) -> Sequence[Segment]:
        with self._publishing:
            chosen = self._next_merge(self._current)
            self._busy = frozenset(map(id, chosen))
            return chosen

    def _merge(self, chosen: Sequence[Segment]) -> Segment | None:
        is_forgotten = self._current.is_forgotten
        kept = [_kept_rows(segment, is_forgotten) for segment in chosen]
        whole = merged(chosen, kept)
        return whole if len(whole) else None

    def _replace(self, chosen: Sequence[Segment], replacement: Segment | None) -> None:
        now = self._current
        first = now.segments.index(chosen[0])
        segments = list(now.segments)
        segments[first : first + len(chosen)] = [] if replacement is None else [replacement]
        postings_of = now.postings_of.copy()
        for segment in chosen:
            postings_of -= _counts(segment, len(postings_of))
        if replacement is not None:
            postings_of += _counts(replacement, len(postings_of))
        self._current = self._snapshot(segments, postings_of, now.is_forgotten)


def _kept_rows(segment: Segment, is_forgotten: Flags) -> npt.NDArray[np.int64] | None:
    """Return the rows that are not forgotten, or None when that is all of them."""
    gone = is_forgotten[segment.ordinals]
    return np.flatnonzero(~gone) if gone.any() else None


def _counts(segment: Segment, n_ordinals: int) -> npt.NDArray[np.uint32]:
    return np.bincount(segment.ordinals, minlength=n_ordinals).astype(np.uint32)


def _grown(column: npt.NDArray[Any], length: int) -> npt.NDArray[Any]:
    """Return a copy with zeros up to ``length``."""
    grown = np.zeros(length, column.dtype)
    grown[: len(column)] = column
    return grown
