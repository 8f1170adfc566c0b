"""One moment of the index, as readers see it: segments that never change, and who is forgotten.

A snapshot is made in O(1) and stays as it is whatever the writer does, so a reader never waits.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from sish_cluster.core.clock import Cancellation
from sish_cluster.core.errors import BadMessage
from sish_cluster.core.key import UNIVERSE, Keys, checked_keys
from sish_cluster.core.query import Mode, SearchSettings
from sish_cluster.shard import found as order
from sish_cluster.shard.alone import found_alone
from sish_cluster.shard.copying import rows_of
from sish_cluster.shard.examined import examined_keys
from sish_cluster.shard.found import Found, Hits, Posted, Rows, SlideIdsOf
from sish_cluster.shard.key_pages import KeyPages
from sish_cluster.shard.merging import merged
from sish_cluster.shard.scope import SELECTIVE, Passing, Scope, Scopes
from sish_cluster.shard.search import Outcome, scanned, walked
from sish_cluster.shard.segment import Segment
from sish_cluster.shard.task import Task

Flags = npt.NDArray[np.bool_]


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """Postings of one moment.

    Parameters
    ----------
    code_bytes
        Bytes of a packed code.
    segments
        Oldest first.
    postings_of
        uint32 (n_ordinals,): postings of each ordinal, forgotten or not.
    is_forgotten
        bool (n_ordinals,).
    n_postings
        Postings that are not forgotten.
    scopes
        What was searched last, worked out.
    """

    code_bytes: int
    segments: Sequence[Segment]
    postings_of: npt.NDArray[np.uint32]
    is_forgotten: Flags
    n_postings: int
    scopes: Scopes = dataclasses.field(default_factory=Scopes, repr=False)

    def search(
        self,
        keys: Keys,
        codes: npt.NDArray[np.uint8],
        settings: SearchSettings,
        *,
        eligible: Flags,
        slide_ids_of: SlideIdsOf,
        mergeable: bool,
        cancellation: Cancellation,
        n_threads: int = 1,
        passing: Passing | None = None,
    ) -> Found:
        """Search all patches of a slide query.

        Parameters
        ----------
        keys, codes
            uint64 (n_patches,) and uint8 (n_patches, code_bytes).
        settings
            Bounds; the mode is SISH, GUIDED or EXACT.
        eligible
            bool by ordinal; ordinals beyond its end are not eligible. What a read-only array selects is
            remembered, so its entries must never change.
        slide_ids_of
            Asked only where a tie needs slide ids.
        mergeable
            Another index's rows will join: rows are the superset that `core.candidate.ShardAnswer`
            describes, and the examined keys come along (not for EXACT, which needs neither).
        cancellation
            Asked between blocks of work; what it raises ends the search, leaving nothing behind.
        n_threads
            Threads that may work on it.
        passing
            Ordinals that pass the labels asked for, eligible or not, when they are known apart from the
            eligible ones; copies of the few postings that pass are then kept from search to search.
        """
        self._check_query(keys, codes)
        scope = self._scope(eligible, passing)
        mode = Mode.GUIDED if mergeable and settings.mode is Mode.SISH else settings.mode
        if mode is Mode.GUIDED and scope.is_everything(settings.max_steps):
            mode = Mode.EXACT
        keys = _checked(keys)
        if len(keys) == 1 and mode is not Mode.EXACT and not mergeable and scope.n_eligible:
            cancellation.check()
            alone = found_alone(scope, int(keys[0]), codes, settings)
            if alone is not None:
                return alone
        task = Task(scope, keys, codes, settings)
        if scope.n_eligible == 0 or len(keys) == 0:
            outcome = _nothing(len(keys))
        elif mode is Mode.EXACT:
            cut = settings.max_candidates if settings.mode is Mode.EXACT or not mergeable else 0
            outcome = scanned(scope, task, cancellation, max_candidates=cut, n_threads=n_threads)
        else:
            outcome = walked(task, mode, cancellation, n_threads)
        cancellation.check()
        posted = _ordered(outcome, scope, settings, slide_ids_of, mergeable)
        is_examined = mergeable and settings.mode is not Mode.EXACT
        examined = examined_keys(outcome, scope, mode) if is_examined else (None, None)
        return _found(posted, outcome, scope, examined)

    def eligible_count(self, eligible: Flags) -> int:
        """Return how many postings are eligible and not forgotten; O(ordinals)."""
        return int(self.postings_of[self._live(eligible)].sum(dtype=np.int64))

    def range_rows(
        self, start: int, end: int, *, eligible: Flags, limit: int, after: int | None
    ) -> Rows:
        """Return the eligible postings with ``start <= key < end``, in key order, whole keys at a time.

        Parameters
        ----------
        limit
            Stop after the key with which there are at least this many; fewer mean the end.
        after
            Only keys above this one.
        """
        first = start if after is None else max(start, after + 1)
        pages = KeyPages(self.segments, self._live(eligible))
        return pages.rows_from(first, end, limit)

    def neighbours(
        self, key: int, *, n_below: int, n_above: int, eligible: Flags
    ) -> tuple[Keys, Keys, bool]:
        """Return the nearest occupied eligible keys below (descending) and above (ascending) ``key``.

        The third value says whether ``key`` itself is occupied by an eligible posting.
        """
        pages = KeyPages(self.segments, self._live(eligible))
        below, above = pages.keys_below(key, n_below), pages.keys_above(key, n_above)
        return below, above, len(pages.rows_from(key, key + 1, 1)) > 0

    def _live(self, eligible: Flags) -> Flags:
        live = ~self.is_forgotten
        n = min(len(live), len(eligible))
        live[:n] &= eligible[:n]
        live[n:] = False
        return live

    def _scope(self, eligible: Flags, passing: Passing | None) -> Scope:
        """Return what to search: the segments, or a copy of the eligible postings where they are few."""
        scope = self.scopes.of(eligible)
        if scope is None:
            scope = self._new_scope(eligible, passing)
            self.scopes.keep(eligible, scope)
        return scope

    def _new_scope(self, eligible: Flags, passing: Passing | None) -> Scope:
        live = self._live(eligible)
        n_eligible = int(self.postings_of.sum(where=live, dtype=np.int64))
        n_rows = sum(len(segment) for segment in self.segments)
        segments = self.segments
        if 0 < n_eligible < n_rows and n_eligible * SELECTIVE <= n_rows:
            segments = self._copies(live, passing)
            n_rows = sum(len(segment) for segment in segments)
        mask = np.append(live, False).view(np.uint8)
        return Scope(segments, mask, all_eligible=n_eligible == n_rows, n_eligible=n_eligible)

    def _copies(self, live: Flags, passing: Passing | None) -> Sequence[Segment]:
        """Return segments of the few eligible postings; others that pass may be among them."""
        if passing is not None and len(passing) >= len(self.postings_of):
            return passing.copies_of(self.segments)
        return [merged(self.segments, [rows_of(s.ordinals, live) for s in self.segments])]

    def _check_query(self, keys: Keys, codes: npt.NDArray[np.uint8]) -> None:
        if codes.ndim != 2 or codes.shape != (len(keys), self.code_bytes):
            raise BadMessage(
                f"query codes must be ({len(keys)}, {self.code_bytes}) bytes, one row per key;"
                f" found {codes.shape}",
                field="patches.codes",
            )


def _checked(keys: Keys) -> Keys:
    """Return query keys, or raise `BadKey`; most queries come with keys as they have to be."""
    if keys.dtype == np.uint64 and keys.ndim == 1 and int(keys.max(initial=0)) < UNIVERSE:
        return keys
    return checked_keys(keys)


def _nothing(n_patches: int) -> Outcome:
    return Outcome(Hits.joined([]), np.zeros((0, 3), np.int64), np.zeros(n_patches, np.int64))


def _ordered(
    outcome: Outcome,
    scope: Scope,
    settings: SearchSettings,
    slide_ids_of: SlideIdsOf,
    mergeable: bool,
) -> Posted:
    posted = Posted.of(outcome.hits, scope.segments)
    if settings.mode is Mode.SISH and not mergeable:
        return order.cut(order.ordered_as_published(posted, slide_ids_of), settings.max_candidates)
    if settings.mode is Mode.SISH:
        posted = order.nearest_of_each_key(posted, slide_ids_of)
    posted = order.ordered_by_distance(posted, slide_ids_of)
    is_final = settings.mode is Mode.EXACT or not mergeable
    return order.cut(posted, settings.max_candidates) if is_final else posted


def _found(
    posted: Posted,
    outcome: Outcome,
    scope: Scope,
    examined: tuple[npt.NDArray[np.uint64] | None, npt.NDArray[np.uint32] | None],
) -> Found:
    n_patches = len(outcome.counts)
    return Found(
        offsets=np.searchsorted(posted.hits.patches, np.arange(n_patches + 1)).astype(np.int64),
        keys=posted.keys.view(np.uint64),
        distances=posted.hits.distances.astype(np.uint16),
        ordinals=posted.ordinals,
        numbers=posted.numbers,
        corners=posted.corners,
        examined_keys=examined[0],
        examined_key_counts=examined[1],
        examined_counts=outcome.counts,
        eligible=scope.n_eligible,
    )
