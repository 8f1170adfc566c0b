"""From merged candidates to a patch search's answer: the same rows, over the slides they refer to."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from sish_cluster.core.candidate import Candidates
from sish_cluster.core.result import PatchesResult
from sish_cluster.router.merge import Merged
from sish_cluster.router.rows import Rows


def patches_result(
    merged: Merged, *, mode_reason: str, missing_shards: Sequence[str], began_s: float
) -> PatchesResult:
    """Return each query patch's candidates.

    Parameters
    ----------
    merged
        The candidates.
    mode_reason, missing_shards
        As found.
    began_s
        ``time.perf_counter()`` when the search began.
    """
    found, places = np.unique(merged.rows.slides, return_inverse=True)
    return PatchesResult(
        candidates=_candidates(merged.rows, places, len(merged.examined_counts)),
        slides=[merged.slides[place] for place in found.tolist()],
        examined_counts=merged.examined_counts,
        eligible=merged.eligible,
        mode=merged.mode,
        mode_reason=mode_reason,
        missing_shards=tuple(missing_shards),
        elapsed_ms=(time.perf_counter() - began_s) * 1e3,
    )


def _candidates(
    rows: Rows, slides: np.ndarray[tuple[int, ...], np.dtype[np.intp]], n_query_patches: int
) -> Candidates:
    offsets = np.searchsorted(rows.patches, np.arange(n_query_patches + 1))
    return Candidates(
        offsets.astype(np.int64),
        rows.keys.astype(np.uint64),
        rows.distances.astype(np.uint16),
        slides.reshape(-1).astype(np.uint32),
        rows.numbers.astype(np.uint32),
        rows.corners,
    )
