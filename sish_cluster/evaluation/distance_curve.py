"""How much a neighbour is worth at each distance: the share of neighbours that bear the same label.

Only distances within which *every* neighbour was looked at count. The nearest few of each query would not do:
at larger distances they are those of lonely patches alone, and where they end is a matter of how many there
are, not of their worth. Of a large collection a query sees only its nearest some thousand; the curve then ends
where nine tenths of the queries still see everything, and the tenth with the most neighbours is left out of it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from sish_cluster.evaluation.calibration import DistanceCurve

BINS = 80
"""Bins of the distance curve: of the 500 bits that codes lie apart, six each."""

LEFT_OUT = 0.1
"""Share of the queries, those with the most neighbours, that the curve may do without to reach further."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Neighbours:
    """The neighbours of one query patch.

    Parameters
    ----------
    distances
        int64 (n,), ascending.
    is_same
        bool (n,): whether each bears the query's label.
    reach
        Largest distance within which these are all neighbours there are; infinite where none was cut.
    is_labelled
        Whether the query has a label.
    """

    distances: npt.NDArray[np.int64]
    is_same: npt.NDArray[np.bool_]
    reach: float
    is_labelled: bool


def curve_of(queries: Sequence[Neighbours], *, chances: Sequence[float], k: int) -> DistanceCurve:
    """Return the curve of some query patches, at least one of which has a neighbour.

    Parameters
    ----------
    queries
        Their neighbours.
    chances
        Share of the label among all eligible slides, one a labelled slide that was sampled.
    k
        Neighbours a search is after: how far the k-th is, is told beside the curve.
    """
    bound = _bound_of(queries)
    seen = [q for q in queries if q.reach >= bound and q.is_labelled]
    at = np.concatenate([np.zeros(0, np.int64), *(q.distances for q in seen)])
    is_same = np.concatenate([np.zeros(0, bool), *(q.is_same for q in seen)])
    at, is_same = at[at <= bound], is_same[at <= bound]
    first = min(int(q.distances[0]) for q in queries if len(q.distances))
    # Whole widths: distances are whole numbers, and narrower bins would stay empty by turns.
    width = -(-(bound - first + 1) // BINS)
    edges = np.arange(first, bound + width + 1, width)
    same = np.histogram(at[is_same], edges)[0]
    other = np.histogram(at[~is_same], edges)[0]
    kth = [int(q.distances[min(k, len(q.distances)) - 1]) for q in queries if len(q.distances)]
    return DistanceCurve(
        [float(edge) for edge in edges],
        [int(n) for n in same],
        [int(n) for n in other],
        falling(same, same + other),
        float(np.mean(chances)) if chances else 0.0,
        sorted(kth),
        bound,
        sum(1 for q in queries if q.reach < bound),
    )


def _bound_of(queries: Sequence[Neighbours]) -> int:
    """Return the distance within which the curve counts: what all but `LEFT_OUT` of the queries see whole."""
    reaches = sorted(q.reach for q in queries)
    reach = reaches[math.floor(LEFT_OUT * len(reaches))]
    found = [q.distances for q in queries if len(q.distances)]
    nearest, furthest = min(int(d[0]) for d in found), max(int(d[-1]) for d in found)
    return max(nearest, int(min(reach, furthest)))


def falling(same: npt.NDArray[np.int64], total: npt.NDArray[np.int64]) -> list[float]:
    """Return the share ``same / total`` of each bin, made to fall: neighbouring bins that rise are pooled.

    The pool-adjacent-violators solution of isotonic regression, bins weighing as many neighbours as they
    hold; empty bins take what stands before them.

    Examples
    --------
    >>> falling(np.array([3, 1, 2, 0]), np.array([3, 2, 2, 0]))
    [1.0, 0.75, 0.75, 0.75]
    """
    pools: list[list[float]] = []
    for hits, n in zip(same.tolist(), total.tolist(), strict=True):
        if not n and pools:
            pools[-1][2] += 1
            continue
        pools.append([hits, n, 1])
        while len(pools) > 1 and _share(pools[-1]) > _share(pools[-2]):
            last = pools.pop()
            pools[-1] = [a + b for a, b in zip(pools[-1], last, strict=True)]
    return [_share(pool) for pool in pools for _ in range(int(pool[2]))]


def _share(pool: Sequence[float]) -> float:
    """Return a pool's share; 1 for the empty bins before the first neighbour."""
    return pool[0] / pool[1] if pool[1] else 1.0
