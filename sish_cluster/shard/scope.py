"""What a search looks at: segments, which postings are eligible, and how many.

Working that out costs as much as a walk, so a snapshot remembers it for the eligible flags it was last
asked with. Where few postings are eligible they are copied out first, so that no walk crawls over keys
it may not look at. A copy depends only on a segment, which never changes, and on which ordinals pass a
filter's labels, which never changes once an ordinal is written; so copies outlive commits and forgets,
and a new commit costs copying only what it brought.
"""

from __future__ import annotations

import dataclasses
import threading
import weakref
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from sish_cluster.shard import layout
from sish_cluster.shard.copying import rows_of
from sish_cluster.shard.merging import merged
from sish_cluster.shard.segment import Segment

SELECTIVE = 8
"""Where at most one posting in this many is eligible, the eligible ones are copied out before a search."""

SCOPES_KEPT = 4
"""Scopes a snapshot remembers: that many filters in use at once find theirs at no cost."""

SMALL_STEPS = 64
"""Distinct keys are counted where there are at most this many times ``max_steps`` postings: when they
are no more than a walk's steps, every neighbourhood is everything, and the exact scan answers."""

Flags = npt.NDArray[np.bool_]


class Passing:
    """Which ordinals pass a filter's labels, and the copies of segments made for it.

    An entry never changes once written; new ordinals are added at the end. Safe for any number of
    threads.
    """

    def __init__(self) -> None:
        self._flags: Flags = np.zeros(64, np.bool_)
        self._length = 0
        self._copies: dict[int, tuple[weakref.ref[Segment], Segment | None]] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return self._length

    @property
    def copied_rows(self) -> int:
        """Rows of all copies kept."""
        return sum(len(copy) for _, copy in list(self._copies.values()) if copy is not None)

    def flags(self, length: int) -> Flags:
        """Return the entries of the first ``length`` ordinals, which must have been added."""
        return self._flags[:length]

    def add(self, first: int, flags: Flags) -> None:
        """Add the entries of the ordinals from ``first`` on; those that are known stay as they are."""
        with self._lock:
            past = first + len(flags)
            if past <= self._length:
                return
            if past > len(self._flags):
                grown = np.zeros(max(2 * len(self._flags), past), np.bool_)
                grown[: self._length] = self._flags[: self._length]
                self._flags = grown
            self._flags[self._length : past] = flags[self._length - first :]
            self._length = past

    def copies_of(self, segments: Sequence[Segment]) -> list[Segment]:
        """Return the passing rows of each segment that has any, copied; ordinals not added do not pass."""
        with self._lock:
            self._copies = {
                key: kept for key, kept in self._copies.items() if kept[0]() is not None
            }
            for segment in segments:
                if id(segment) not in self._copies:
                    copy = copy_of(segment, self._flags)
                    self._copies[id(segment)] = (weakref.ref(segment), copy)
            copies = [self._copies[id(segment)][1] for segment in segments]
        return [copy for copy in copies if copy is not None]


def copy_of(segment: Segment, flags: Flags) -> Segment | None:
    """Return a segment's rows whose ordinals are flagged; None when there are none."""
    rows = rows_of(segment.ordinals, flags)
    return merged([segment], [rows]) if len(rows) else None


class Scope:
    """What one search looks at.

    Parameters
    ----------
    segments
        Oldest first.
    is_eligible
        uint8, one per ordinal: 1 = eligible.
    all_eligible
        Whether every row of the segments is.
    n_eligible
        Eligible postings.
    """

    def __init__(
        self,
        segments: Sequence[Segment],
        is_eligible: npt.NDArray[np.uint8],
        *,
        all_eligible: bool,
        n_eligible: int,
    ) -> None:
        self.segments = segments
        self.n_eligible = n_eligible
        fields = [segment.fields for segment in segments]
        self.table = np.array(fields, np.int64).reshape(-1, layout.N_FIELDS)
        self.is_eligible = is_eligible
        eligible_address = is_eligible.ctypes.data
        self.words = (self.table.ctypes.data, len(segments), eligible_address, int(all_eligible))
        """The first words of a task; see `layout`."""
        self.all_eligible = all_eligible
        self._n_keys: int | None = None

    def is_everything(self, max_steps: int) -> bool:
        """Whether the eligible keys are so few that every walk reaches both ends.

        A seed's own key is outside that seed's walks, but the query's key belongs to every
        neighbourhood, and any other seed's key lies on the walks of the query's.
        """
        if not self.all_eligible or not 0 < self.n_eligible <= SMALL_STEPS * max_steps:
            return False
        if self._n_keys is None:
            self._n_keys = len(np.unique(np.concatenate([s.keys for s in self.segments])))
        return self._n_keys <= max_steps


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class _Kept:
    eligible: Flags
    scope: Scope


class Scopes:
    """The scopes of one snapshot that were asked for last."""

    def __init__(self) -> None:
        self._kept: tuple[_Kept, ...] = ()

    def of(self, eligible: Flags) -> Scope | None:
        """Return the scope kept for these flags, if they are the same array."""
        for kept in self._kept:
            if kept.eligible is eligible:
                return kept.scope
        return None

    def keep(self, eligible: Flags, scope: Scope) -> None:
        """Keep the scope of flags that nobody can change."""
        if not eligible.flags.writeable:
            self._kept = (_Kept(eligible, scope), *self._kept[: SCOPES_KEPT - 1])
