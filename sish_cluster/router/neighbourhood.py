"""Neighbourhoods of a query key over the merged examined keys, as spans of positions.

Once the shards' examined keys are one sorted array, "the ``max_steps`` nearest keys strictly below a
seed" is a span of positions in it. A query patch's neighbourhood U is a union of such spans. Spans
stay spans: nothing here is as long as the number of keys times the number of query patches.

Source
------
The guided search of SISH ("Guided search algorithm"), made order-free: U holds the query key, where
present, and for each distinct seed its ``max_steps`` nearest keys strictly below and strictly above.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from sish_cluster.core.key import COARSE_UNIT
from sish_cluster.core.query import SearchSettings
from sish_cluster.router.rows import Ints, Mask


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Spans:
    """Half-open spans of positions, the same number for each query patch.

    Parameters
    ----------
    starts, ends
        int64 (n_query_patches, n_spans): span j of patch i is ``starts[i, j] <= p < ends[i, j]``;
        it may be empty.
    """

    starts: Ints
    ends: Ints

    def disjoint(self) -> Spans:
        """Return spans with the same union per patch, ascending and without overlap."""
        order = np.argsort(self.starts, axis=1, kind="stable")
        starts = np.take_along_axis(self.starts, order, axis=1)
        reached = np.maximum.accumulate(np.take_along_axis(self.ends, order, axis=1), axis=1)
        before = np.zeros_like(reached)
        before[:, 1:] = reached[:, :-1]
        starts = np.maximum(starts, before)
        return Spans(starts, np.maximum(reached, starts))

    def counted(self, counts: npt.NDArray[np.integer]) -> Ints:
        """Return, per query patch, the sum of ``counts`` over the positions of disjoint spans."""
        below = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
        return np.asarray((below[self.ends] - below[self.starts]).sum(axis=1), dtype=np.int64)

    def contain(self, patches: Ints, positions: Ints, *, n_positions: int) -> Mask:
        """Return whether each (query patch, position) lies in a span; spans must be disjoint."""
        stride = n_positions + 1
        base = np.arange(len(self.starts))[:, None] * stride
        flat_starts, flat_ends = (base + self.starts).ravel(), (base + self.ends).ravel()
        wanted = patches * stride + positions
        place = np.searchsorted(flat_starts, wanted, side="right") - 1
        inside: Mask = (place >= 0) & (wanted < flat_ends[np.maximum(place, 0)])
        return inside


def seed_offsets(settings: SearchSettings) -> Ints:
    """Return the distances of the distinct seeds from the query key, ascending, int64 (2T - 1,)."""
    steps = np.arange(1 - settings.seeds_per_side, settings.seeds_per_side, dtype=np.int64)
    return steps * (settings.seed_spacing * COARSE_UNIT)


def neighbourhoods(merged_keys: Ints, query_keys: Ints, settings: SearchSettings) -> Spans:
    """Return U of each query patch as disjoint spans over ``merged_keys``.

    Parameters
    ----------
    merged_keys
        int64 (m,), strictly ascending: every key some shard examined.
    query_keys
        int64 (n_query_patches,).
    settings
        Seeds and steps.
    """
    seeds = query_keys[:, None] + seed_offsets(settings)[None, :]
    below = np.searchsorted(merged_keys, seeds, side="left")
    above = np.searchsorted(merged_keys, seeds, side="right")
    own = slice(settings.seeds_per_side - 1, settings.seeds_per_side)
    starts = [np.maximum(below - settings.max_steps, 0), above, below[:, own]]
    ends = [below, np.minimum(above + settings.max_steps, len(merged_keys)), above[:, own]]
    return Spans(np.concatenate(starts, axis=1), np.concatenate(ends, axis=1)).disjoint()
