"""The published walk, replayed at the router over the merged keys of all shards.

The published search is sequential: where a walk stops depends on which keys earlier walks accepted.
Shards cannot know that, so each sends its best posting per key and the keys it examined, and the walk
happens here. Per query patch, the acceptable keys are rows in key order; a walk accepts a run of them,
up to its step limit or to the nearest row accepted before. A walk is therefore two bounds, and all
query patches take their w-th walk together.

Source
------
SISH, "Guided search algorithm", as published: seeds ``q - mC`` then ``q + mC``, m from 0 (0 twice);
from each seed strictly backwards, then strictly forwards; stop at a key already accepted.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from sish_cluster.core.key import COARSE_UNIT
from sish_cluster.core.query import SearchSettings
from sish_cluster.router.neighbourhood import Spans
from sish_cluster.router.rows import Ints

_NEVER = np.iinfo(np.int64).max
"""Start of a run that is not there: above every row."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Replay:
    """What the walks of a slide query accepted and where they stepped.

    Parameters
    ----------
    accepted
        int64 (n,): rows in order of acceptance, grouped by query patch.
    stepped
        Disjoint spans of the merged keys each query patch stepped on.
    """

    accepted: Ints
    stepped: Spans


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Acceptable:
    """The best posting of each key within the bound, one row per (query patch, key).

    Parameters
    ----------
    patches, positions
        int64 (n,): query patch and place in the merged keys, ascending in (patch, position).
    """

    patches: Ints
    positions: Ints


class _Runs:
    """Runs of accepted rows, one per query patch and walk; a run may be missing."""

    def __init__(self, n_patches: int, n_walks: int) -> None:
        self.starts = np.full((n_patches, n_walks), _NEVER)
        self.ends = np.full((n_patches, n_walks), -1, dtype=np.int64)
        self.walks = 0

    def add(self, starts: Ints, ends: Ints) -> None:
        is_there = starts < ends
        self.starts[:, self.walks] = np.where(is_there, starts, _NEVER)
        self.ends[:, self.walks] = np.where(is_there, ends, -1)
        self.walks += 1

    def end_below(self, first: Ints, end: Ints) -> Ints:
        """Return the end of the accepted rows nearest below ``end``, at least ``first``."""
        starts, ends = self.starts[:, : self.walks], self.ends[:, : self.walks]
        reached = np.where(starts < end[:, None], np.minimum(ends, end[:, None]), -1)
        return np.asarray(np.maximum(reached.max(axis=1, initial=-1), first))

    def start_above(self, first: Ints, end: Ints) -> Ints:
        """Return the start of the accepted rows nearest from ``first`` up, at most ``end``."""
        starts, ends = self.starts[:, : self.walks], self.ends[:, : self.walks]
        met = np.where(ends > first[:, None], np.maximum(starts, first[:, None]), _NEVER)
        return np.asarray(np.minimum(met.min(axis=1, initial=_NEVER), end))


def replayed(
    merged_keys: Ints, query_keys: Ints, acceptable: Acceptable, settings: SearchSettings
) -> Replay:
    """Return what the published walk accepts, in order.

    Parameters
    ----------
    merged_keys
        int64 (m,), strictly ascending: every eligible key some shard examined; near each seed that is
        every eligible key there is, out to ``max_steps``.
    query_keys
        int64 (n_query_patches,).
    acceptable
        Keys whose best posting lies within ``max_distance``.
    settings
        Seeds and steps.

    Notes
    -----
    O(n_query_patches * T^2) for the stops, O(log n) per walk to place it, O(accepted) to write out.
    """
    walks = _Walks(merged_keys, query_keys, acceptable, settings)
    for walk in range(2 * settings.seeds_per_side):
        walks.step_backwards(walk)
        walks.step_forwards(walk)
    return Replay(walks.accepted(), walks.stepped())


class _Walks:
    """All walks of a slide query; walk w of every query patch at once."""

    def __init__(
        self, merged_keys: Ints, query_keys: Ints, acceptable: Acceptable, settings: SearchSettings
    ) -> None:
        seeds = query_keys[:, None] + published_offsets(settings)[None, :]
        below = np.searchsorted(merged_keys, seeds, side="left")
        above = np.searchsorted(merged_keys, seeds, side="right")
        limit = settings.max_steps
        self._back = Spans(np.maximum(below - limit, 0), below)
        self._forth = Spans(above, np.minimum(above + limit, len(merged_keys)))
        self._positions = np.append(acceptable.positions, 0)
        self._rows_back = _rows_within(self._back, acceptable, len(merged_keys))
        self._rows_forth = _rows_within(self._forth, acceptable, len(merged_keys))
        self._runs = _Runs(len(query_keys), 4 * settings.seeds_per_side)
        self._stepped: list[tuple[Ints, Ints]] = []

    def step_backwards(self, walk: int) -> None:
        first, end = self._rows_back.starts[:, walk], self._rows_back.ends[:, walk]
        bound = self._runs.end_below(first, end)
        stopped_at = self._positions[bound - 1] + 1
        start = np.where(bound > first, stopped_at, self._back.starts[:, walk])
        self._runs.add(bound, end)
        self._stepped.append((start, self._back.ends[:, walk]))

    def step_forwards(self, walk: int) -> None:
        first, end = self._rows_forth.starts[:, walk], self._rows_forth.ends[:, walk]
        bound = self._runs.start_above(first, end)
        stop = np.where(bound < end, self._positions[bound], self._forth.ends[:, walk])
        self._runs.add(first, bound)
        self._stepped.append((self._forth.starts[:, walk], stop))

    def accepted(self) -> Ints:
        """Return the accepted rows, each backward run from its end down, each forward run up."""
        starts, ends = self._runs.starts.ravel(), self._runs.ends.ravel()
        is_there = np.flatnonzero(ends >= 0)
        starts, ends, is_backward = starts[is_there], ends[is_there], is_there % 2 == 0
        lengths = ends - starts
        run = np.repeat(np.arange(len(lengths)), lengths)
        place = np.arange(len(run)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        rows: Ints = np.where(is_backward[run], ends[run] - 1 - place, starts[run] + place)
        return rows

    def stepped(self) -> Spans:
        starts, ends = zip(*self._stepped, strict=True)
        return Spans(np.stack(starts, axis=1), np.stack(ends, axis=1)).disjoint()


def published_offsets(settings: SearchSettings) -> Ints:
    """Return the distances of the 2T seeds from the query key in published order (0 twice)."""
    below = -np.arange(settings.seeds_per_side, dtype=np.int64)
    return np.concatenate([below, -below]) * (settings.seed_spacing * COARSE_UNIT)


def _rows_within(spans: Spans, acceptable: Acceptable, n_positions: int) -> Spans:
    """Return the acceptable rows, by index, that each span of positions holds."""
    stride = n_positions + 1
    flat = acceptable.patches * stride + acceptable.positions
    base = np.arange(len(spans.starts))[:, None] * stride
    return Spans(
        np.searchsorted(flat, base + spans.starts), np.searchsorted(flat, base + spans.ends)
    )
