"""The keys a search examined, which travel with an answer that others will join.

Source
------
The project's specification of the algorithms, section 3: a router finds the global cut among them.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sish_cluster.core.query import Mode
from sish_cluster.shard.scope import Scope
from sish_cluster.shard.search import Outcome


def examined_keys(
    outcome: Outcome, scope: Scope, mode: Mode
) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint32]]:
    """Return the distinct eligible keys of the spans (of everything after an exact scan), with counts."""
    parts = [np.zeros(0, np.int64)]
    for s, segment in enumerate(scope.segments):
        if len(outcome.counts) == 0:
            break
        rows = (
            slice(None) if mode is Mode.EXACT else _rows_in(outcome.spans[outcome.spans[:, 0] == s])
        )
        keys = segment.keys[rows]
        parts.append(
            keys if scope.all_eligible else keys[scope.is_eligible[segment.ordinals[rows]] != 0]
        )
    keys = np.concatenate(parts)
    if len(parts) > 2 or mode is not Mode.EXACT:
        keys = np.sort(keys, kind="stable")
    starts = np.flatnonzero(np.append(True, keys[1:] != keys[:-1])[: len(keys)])
    counts = np.diff(np.append(starts, len(keys)))
    return keys[starts].view(np.uint64), counts.astype(np.uint32)


def _rows_in(spans: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the ascending distinct rows of one segment's spans."""
    by_start = spans[np.argsort(spans[:, 1], kind="stable")]
    covered = (
        np.maximum.accumulate(np.append(0, by_start[:-1, 2])) if len(by_start) else by_start[:, 2]
    )
    starts = np.maximum(by_start[:, 1], covered)
    lengths = np.maximum(by_start[:, 2] - starts, 0)
    ends = np.cumsum(lengths)
    rows: npt.NDArray[np.int64] = np.arange(int(lengths.sum()))
    return np.asarray(rows + np.repeat(starts - (ends - lengths), lengths))
