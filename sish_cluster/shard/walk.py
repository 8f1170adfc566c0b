"""The guided search of query patches, as a kernel over segments.

The search is order-free: each walk only has to find how far its ``max_steps`` nearest eligible keys reach.
The rows that walks cover become spans, overlapping spans are joined, and every span is scanned once.

Source
------
SISH, "Guided search algorithm"; the project's specification of the algorithms, section 3.
"""

# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from sish_cluster.shard.compiled import inner, kernel
from sish_cluster.shard.cursors import choose_seed
from sish_cluster.shard.layout import COUNTS, HIT_CAPACITY, SEEDS_PER_SIDE, SPANS
from sish_cluster.shard.reaches import reach_everything
from sish_cluster.shard.spans import (
    SPAN_BYTES,
    add_spans,
    eligible_rows,
    join_spans,
    rows_covered,
    scan_rows,
)
from sish_cluster.shard.words import put_word, word_at


@inner
def finish_patch(task: int, patch: int, progress: int, spans: int, n_spans: int) -> None:
    """Count what a patch examined and go on to the next."""
    put_word(word_at(task, COUNTS), patch, eligible_rows(task, spans, n_spans))
    put_word(progress, 0, word_at(progress, 0) + 1)
    put_word(progress, 2, word_at(progress, 2) + n_spans)


@inner
def covered_spans(task: int, spans: int) -> int:
    """Write the joined spans of everything the walks of a patch reached; return how many."""
    n_spans, seeds_per_side = 0, word_at(task, SEEDS_PER_SIDE)
    for m in range(1 - seeds_per_side, seeds_per_side):
        choose_seed(task, m)
        n_spans = add_spans(task, spans, n_spans, 1 if m == 0 else 0)
    return join_spans(spans, n_spans)


@kernel
def guided(task: int, chosen: int, n_chosen: int, progress: int) -> None:
    """Search the patches numbered at ``chosen``, from ``progress[0]`` on.

    ``progress`` is (patches done, hits, spans, hits wanted): it stops at a patch whose hits do not fit,
    asking for room for all it covers.
    """
    while word_at(progress, 0) < n_chosen:
        patch = word_at(chosen, word_at(progress, 0))
        at = word_at(progress, 1)
        spans = word_at(task, SPANS) + SPAN_BYTES * word_at(progress, 2)
        reach_everything(task, patch)
        n_spans = covered_spans(task, spans)
        for i in range(n_spans):
            span = spans + SPAN_BYTES * i
            rows = (word_at(span, 0), word_at(span, 1), word_at(span, 2))
            at = scan_rows(task, patch, rows, at)
        if at >= word_at(task, HIT_CAPACITY):
            put_word(progress, 3, rows_covered(spans, n_spans) + 1)
            return
        put_word(progress, 1, at)
        finish_patch(task, patch, progress, spans, n_spans)
