"""The merge: several shards' answers become the answer one index would give.

A shard sees only its own keys, so it answers with a superset: every candidate of its local
neighbourhoods, and the keys it examined. The keys of all shards together contain, around each seed,
the nearest keys of the whole collection. So the router joins them, finds the global neighbourhood of
each query patch (GUIDED) or walks it as published (SISH), and drops what lies outside. EXACT
and DIRECT need only the union. The cut of a collection into shards therefore never changes an answer.

Pure: no clock, no network, the same output for the same answers in any order.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from sish_cluster.core.candidate import ShardAnswer
from sish_cluster.core.errors import Internal
from sish_cluster.core.query import Mode, Query
from sish_cluster.core.seams import PatchCandidates
from sish_cluster.core.slide import Slide
from sish_cluster.router.neighbourhood import neighbourhoods
from sish_cluster.router.replay import Acceptable, replayed
from sish_cluster.router.rows import Ints, Rows, order_of, rows_of, slide_table


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Merged:
    """The candidates of a slide query over all shards.

    Parameters
    ----------
    slides
        The slide table, in slide id order.
    rows
        The candidates, grouped by query patch, in the mode's order.
    examined_counts
        int64 (n_query_patches,): postings examined per query patch.
    eligible
        Eligible postings of all shards.
    label_counts
        Label value -> eligible slides, without the query's patient.
    mode
        The mode that ran.
    """

    slides: Sequence[Slide]
    rows: Rows
    examined_counts: Ints
    eligible: int
    label_counts: Mapping[str, int]
    mode: Mode

    @property
    def patches(self) -> list[PatchCandidates]:
        """One view per query patch, those without candidates included."""
        return self.rows.by_patch(len(self.examined_counts))


def merged_answer(answers: Sequence[ShardAnswer], query: Query) -> Merged:
    """Return the one answer of several shards.

    Parameters
    ----------
    answers
        At least one, all of the same mode. A single answer without examined keys is final already.
    query
        What was asked; its patches' keys and its settings decide the cut.

    Raises
    ------
    Internal
        If modes differ or a shard that shares a search sent no examined keys: a bug, not a request.
    """
    mode = _mode_of(answers)
    table = slide_table(answers)
    rows = rows_of(answers, table)
    eligible = sum(answer.eligible for answer in answers)
    is_union = mode in (Mode.EXACT, Mode.DIRECT)
    if len(answers) == 1 and (is_union or answers[0].examined is None):
        kept, examined_counts = rows, answers[0].examined_counts.astype(np.int64)
    elif is_union:
        kept, examined_counts = _union(rows), np.full(len(query.patches), eligible)
    else:
        kept, examined_counts = _cut(rows, answers, query, mode)
    return Merged(
        table,
        kept.first_of_each_patch(query.settings.max_candidates),
        examined_counts,
        eligible,
        _summed_counts(answers),
        mode,
    )


def _mode_of(answers: Sequence[ShardAnswer]) -> Mode:
    modes = {answer.mode for answer in answers}
    if len(modes) != 1 or Mode.AUTO in modes:
        raise Internal(f"shards to be merged answer in one resolved mode; found {sorted(modes)}")
    return modes.pop()


def _summed_counts(answers: Sequence[ShardAnswer]) -> Mapping[str, int]:
    total: Counter[str] = Counter()
    for answer in answers:
        total.update(answer.label_counts)
    # Sums of floats follow this order: it may not depend on the order of the shards.
    return dict(sorted(total.items()))


def _union(rows: Rows) -> Rows:
    """Return rows ordered by (query patch, distance, slide id, number)."""
    return rows.taken(order_of(rows.patches, rows.distances, rows.slides, rows.numbers))


def _cut(rows: Rows, answers: Sequence[ShardAnswer], query: Query, mode: Mode) -> tuple[Rows, Ints]:
    """Return the rows that one index would give, and the postings it would examine per patch."""
    keys, counts = merged_keys(answers)
    positions = np.searchsorted(keys, rows.keys)
    if not np.array_equal(np.append(keys, -1)[positions], rows.keys):
        raise Internal("a shard sent a candidate at a key it does not name as examined")
    if mode is Mode.SISH:
        return _walked(rows, positions, keys, counts, query)
    spans = neighbourhoods(keys, query.patches.keys.astype(np.int64), query.settings)
    inside = spans.contain(rows.patches, positions, n_positions=len(keys))
    return _union(rows.taken(inside)), spans.counted(counts)


def merged_keys(answers: Sequence[ShardAnswer]) -> tuple[Ints, Ints]:
    """Return the distinct examined keys of all shards, ascending, and the postings at each.

    Returns
    -------
    tuple[Ints, Ints]
        Keys int64 (m,) and eligible postings int64 (m,), equal keys of several shards added up.
    """
    examined = [answer.examined for answer in answers]
    present = [part for part in examined if part is not None]
    if len(present) != len(examined):
        raise Internal("a shard that shares a search must send the keys it examined; one sent none")
    keys = np.concatenate([part.keys for part in present]).astype(np.int64)
    counts = np.concatenate([part.counts for part in present]).astype(np.int64)
    order = np.argsort(keys, kind="stable")
    keys, counts = keys[order], counts[order]
    firsts = np.flatnonzero(np.diff(keys, prepend=-1))
    return keys[firsts], np.add.reduceat(counts, firsts) if len(firsts) else counts


def _walked(
    rows: Rows, positions: Ints, keys: Ints, counts: Ints, query: Query
) -> tuple[Rows, Ints]:
    """Return the published walk's accepted rows, nearest first, ties in order of acceptance."""
    order = order_of(rows.patches, positions, rows.distances, rows.slides, rows.numbers)
    patches, positions = rows.patches[order], positions[order]
    is_best = (np.diff(patches, prepend=-1) != 0) | (np.diff(positions, prepend=-1) != 0)
    best = rows.taken(order[is_best])
    replay = replayed(
        keys,
        query.patches.keys.astype(np.int64),
        Acceptable(best.patches, positions[is_best]),
        query.settings,
    )
    accepted = best.taken(replay.accepted)
    nearest_first = order_of(accepted.patches, accepted.distances)
    return accepted.taken(nearest_first), replay.stepped.counted(counts)
