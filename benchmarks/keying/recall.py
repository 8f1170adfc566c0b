"""Recall of guided searches, leave-group-out, as a function of the coverage they pay for it."""

import numpy as np

from sish_cluster.core.clock import NEVER_CANCELLED
from sish_cluster.core.query import Mode, SearchSettings
from sish_cluster.shard.index import PostingIndex

CODE_BITS = 1024


class LeaveGroupOut:
    """Tiles as postings, one ordinal per group; each tile asks for the tiles of other groups.

    Parameters
    ----------
    keys, codes
        uint64 (n,) and uint8 (n, 128).
    groups
        n names.
    queries
        Rows that ask.
    """

    def __init__(self, keys, codes, groups, queries):
        _, self.ordinals = np.unique(groups, return_inverse=True)
        self.keys, self.codes, self.queries = keys.astype(np.uint64), codes, queries
        n = len(keys)
        self.index = PostingIndex.bulk(
            CODE_BITS // 8,
            keys=self.keys,
            codes=codes,
            ordinals=self.ordinals.astype(np.uint32),
            numbers=np.arange(n, dtype=np.uint32),
            corners=np.zeros((n, 2), np.int32),
        )

    def searched(self, query, **bounds):
        """Return (rows, distances) a search of one tile finds, nearest first."""
        eligible = np.ones(self.ordinals.max() + 1, bool)
        eligible[self.ordinals[query]] = False
        found = self.index.snapshot().search(
            self.keys[query : query + 1],
            self.codes[query : query + 1],
            SearchSettings(**bounds),
            eligible=eligible,
            slide_ids_of=lambda ordinals: [f"g{o:06d}" for o in ordinals.tolist()],
            mergeable=False,
            cancellation=NEVER_CANCELLED,
        )
        return found.numbers.astype(np.int64), found.distances.astype(np.int64)

    def exact(self):
        """Return, for each query, (rows, distances) of all eligible tiles, nearest first."""
        return [self.searched(q, mode=Mode.EXACT, max_distance=CODE_BITS) for q in self.queries]

    def row(self, exact, *, max_steps, seeds_per_side, seed_spacing, max_distance, nearest):
        """Return coverage and recalls, means over the queries, of one budget.

        A bound of all bits makes every posting a search examines a candidate, so one search gives the
        recall within any distance.
        """
        coverage, within, near = [], [], []
        for query, (rows, distances) in zip(self.queries, exact, strict=True):
            seen, _ = self.searched(
                query,
                mode=Mode.GUIDED,
                max_distance=CODE_BITS,
                max_steps=max_steps,
                seeds_per_side=seeds_per_side,
                seed_spacing=seed_spacing,
            )
            is_seen = np.isin(rows, seen)
            coverage.append(len(seen) / len(rows))
            near.append(is_seen[:nearest].mean())
            if (distances <= max_distance).any():
                within.append(is_seen[distances <= max_distance].mean())
        return {
            "max_steps": max_steps,
            "seeds_per_side": seeds_per_side,
            "coverage": float(np.mean(coverage)),
            "recall_within": float(np.mean(within)) if within else None,
            "recall_nearest": float(np.mean(near)),
            "queries_with_candidates": len(within),
        }


def recall_at(rows, name, coverage):
    """Return the recall at a coverage, on straight lines between budgets; (0, 0) and (1, 1) are known."""
    points = sorted({(row["coverage"], row[name]) for row in rows if row[name] is not None})
    xs, ys = zip((0.0, 0.0), *points, (1.0, 1.0), strict=True)
    return float(np.interp(coverage, xs, ys))
