"""From what a calibration measured to the bounds it proposes, each with the rule that chose it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from sish_cluster.core.counting import counted
from sish_cluster.core.query import Mode
from sish_cluster.evaluation.calibration import (
    Budget,
    CalibrationSettings,
    DistanceCurve,
    Proposal,
)

LEAST_LABELLED = 50
"""Labelled neighbours below which a share of the same label is noise (standard error 0.07 and more)."""


def proposal_of(
    budgets: Sequence[Budget], curve: DistanceCurve, settings: CalibrationSettings, *, unit: str
) -> Proposal:
    """Return the bounds to use, each with its reason."""
    max_distance, distance_reason = _distance(curve, settings, unit)
    budget, budget_reason = _budget(budgets, settings)
    return Proposal(max_distance, distance_reason, budget, budget_reason)


def _distance(curve: DistanceCurve, settings: CalibrationSettings, unit: str) -> tuple[int, str]:
    wanted = (1 + curve.chance) / 2
    worth = [share >= wanted for share in curve.precision]
    n = sum(curve.same) + sum(curve.other)
    if n >= LEAST_LABELLED and curve.chance < 1 and worth[0] and (curve.same[0] or curve.other[0]):
        last = len(worth) if all(worth) else worth.index(False)
        # Bins without a neighbour say nothing: the bound is where the last worthy neighbour was seen.
        last = 1 + max(row for row in range(last) if curve.same[row] or curve.other[row])
        bound = math.ceil(curve.edges[last])
        kept = sum(distance <= bound for distance in curve.kth) / len(curve.kth)
        how = "has not fallen below" if all(worth) else "falls below"
        return bound, (
            f"at {bound} {unit} the share of neighbours with the same {settings.label_field} {how}"
            f" {wanted:.0%}, half way between chance ({curve.chance:.0%}) and certainty; {kept:.0%} of the"
            f" patches have {counted(settings.k, 'neighbour')} within"
        )
    place = min(len(curve.kth) - 1, math.ceil(settings.target_recall * len(curve.kth)) - 1)
    bound = curve.kth[max(place, 0)]
    why = (
        "too few labelled neighbours"
        if n < LEAST_LABELLED
        else "labels do not tell neighbours apart"
    )
    return bound, (
        f"within {bound} {unit} {settings.target_recall:.0%} of the patches have {counted(settings.k, 'neighbour')}"
        f" ({why}, so nothing is said about their worth)"
    )


def _budget(budgets: Sequence[Budget], settings: CalibrationSettings) -> tuple[Budget | None, str]:
    guided = [budget for budget in budgets if budget.mode is Mode.GUIDED]
    if not guided:
        return None, "the collection has no keys to walk: it is searched exhaustively"
    enough = [budget for budget in guided if budget.recall >= settings.target_recall]
    if not enough:
        best = max(guided, key=lambda budget: (budget.recall, -budget.coverage))
        return best, (
            f"no budget tried reaches a recall of {settings.target_recall:.0%}; the best finds"
            f" {best.recall:.0%}: search with --mode exact"
        )
    cheapest = min(enough, key=lambda budget: (budget.coverage, budget.max_steps))
    return cheapest, (
        f"of {counted(len(guided), 'budget')} tried, {len(enough)} find at least {settings.target_recall:.0%} of the"
        f" {settings.k} nearest; this one examines the fewest postings ({cheapest.coverage:.1%} of those"
        f" eligible, recall {cheapest.recall:.0%})"
    )
