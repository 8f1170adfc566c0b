"""One run in numbers: every measure, recall beside EXACT, coverage, times, what was confused with what."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from sish_cluster.evaluation.measures import (
    Precision,
    accuracy_at,
    average_precision_at,
    majority_vote_at,
    plurality_of,
)
from sish_cluster.evaluation.outcome import STAGES, Evaluated, QueryOutcome, Run
from sish_cluster.evaluation.robustness import Robustness, robustness_of
from sish_cluster.evaluation.scores import Score, score_of
from sish_cluster.evaluation.settings import EvaluationSettings

NO_ANSWER = "(none)"
"""Column of the confusion matrix for queries without a labelled result."""

Measure = Callable[[Sequence[str], str], float]
"""Labels found and truth -> what the list is worth."""


@dataclasses.dataclass(frozen=True, slots=True)
class Times:
    """One stage's milliseconds a query."""

    p50: float
    p95: float


@dataclasses.dataclass(frozen=True, slots=True)
class RunSummary:
    """One run in numbers.

    Parameters
    ----------
    run
        Whose numbers they are.
    scores
        Measure name (``Acc@1``, ``mMV@5``, ``AP@5``, ``AP@5 /5`` ...) -> its score.
    queries, answered, failed, unreachable
        How many there are; with a result; whose search failed; whose label no eligible slide has.
    modes
        What ran -> how many queries.
    coverage, eligible
        Means over the queries that were answered or searched in vain.
    recalls
        Each query's share of EXACT's first results that this run found too, in query order, None for a
        query for which EXACT found nothing; None where no EXACT run of the same ranking stands beside
        it.
    times
        Stage -> p50 and p95 over the queries.
    confusion
        (truth, label voted for by the first max(k) results) -> queries.
    robustness
        What neighbours share with their queries.
    """

    run: Run
    scores: Mapping[str, Score]
    queries: int
    answered: int
    failed: int
    unreachable: int
    modes: Mapping[str, int]
    coverage: float
    eligible: float
    recalls: Sequence[float | None] | None
    times: Mapping[str, Times]
    confusion: Mapping[tuple[str, str], int]
    robustness: Robustness

    @property
    def known_recalls(self) -> list[float]:
        """The recalls of the queries for which EXACT found something."""
        return [recall for recall in self.recalls or () if recall is not None]

    @property
    def recall(self) -> float | None:
        """Mean of the known recalls; None where there is none."""
        return float(np.mean(self.known_recalls)) if self.known_recalls else None

    def micro(self, measure: str) -> float:
        """Return a measure's mean over queries."""
        return self.scores[measure].micro.mean


def measures_of(settings: EvaluationSettings) -> dict[str, Measure]:
    """Return the measures of an evaluation by name, in the order of its tables."""
    named: dict[str, Measure] = {}
    for k in sorted(settings.ks):
        named[f"Acc@{k}"] = _bound(accuracy_at, k)
    for k in sorted(settings.ks):
        named[f"mMV@{k}"] = _bound(majority_vote_at, k, short_list=settings.short_list)
    spellings = {Precision.CORRECT: "", Precision.FIVE: " /5", Precision.MEAN: " mean"}
    for k in sorted(settings.ks):
        for precision, suffix in spellings.items():
            policy = {"precision": precision, "short_list": settings.short_list}
            named[f"AP@{k}{suffix}"] = _bound(average_precision_at, k, **policy)
    return named


def _bound(measure: Callable[..., float], k: int, **policy: object) -> Measure:
    return lambda found, truth: measure(k, found, truth, **policy)


def summary_of(evaluation: Evaluated, run: Run) -> RunSummary:
    """Return a run's numbers."""
    outcomes, settings = run.outcomes, evaluation.settings
    truths = [outcome.truth for outcome in outcomes]
    groups = [outcome.group for outcome in outcomes]
    scores = {
        name: score_of(
            [measure(outcome.labels, outcome.truth) for outcome in outcomes],
            truths,
            groups,
            settings=settings.bootstrap,
        )
        for name, measure in measures_of(settings).items()
    }
    searched = [outcome for outcome in outcomes if not outcome.problem]
    return RunSummary(
        run,
        scores,
        queries=len(outcomes),
        answered=sum(bool(outcome.found) for outcome in outcomes),
        failed=len(run.failures),
        unreachable=sum(not outcome.is_reachable for outcome in outcomes),
        modes=collections.Counter(str(outcome.mode) for outcome in searched),
        coverage=_mean([outcome.coverage for outcome in searched]),
        eligible=_mean([float(outcome.eligible) for outcome in searched]),
        recalls=recalls_of(run, evaluation.reference_of(run), settings.most),
        times=times_of(searched),
        confusion=confusion_of(outcomes, settings.most),
        robustness=robustness_of(_neighbours(outcomes)),
    )


def summaries_of(evaluation: Evaluated) -> list[RunSummary]:
    """Return every run's numbers, in the order of the runs."""
    return [summary_of(evaluation, run) for run in evaluation.runs]


def recalls_of(run: Run, reference: Run | None, k: int) -> list[float | None] | None:
    """Return each query's share of the reference's first ``k`` results that the run's first ``k`` hold.

    A query for which the reference found nothing (or failed) has no recall: None. So has a run without a
    reference, or whose queries differ (one of the two runs failed as a whole).
    """
    if reference is None:
        return None
    wanted = {outcome.query_id: _names(outcome, k) for outcome in reference.outcomes}
    if any(outcome.query_id not in wanted for outcome in run.outcomes):
        return None
    return [
        len(_names(outcome, k) & wanted[outcome.query_id]) / len(wanted[outcome.query_id])
        if wanted[outcome.query_id]
        else None
        for outcome in run.outcomes
    ]


def _names(outcome: QueryOutcome, k: int) -> set[tuple[str, int]]:
    """Return what was found; slides by id alone, for another ranking pair may have ranked them."""
    is_slide = outcome.number < 0
    return {(f.slide_id, -1) if is_slide else f.name for f in outcome.found[:k]}


def times_of(outcomes: Sequence[QueryOutcome]) -> dict[str, Times]:
    """Return the stages' p50 and p95 over the queries; stages nobody timed are left out."""
    times = {}
    for stage in STAGES:
        spent = [outcome.ms[stage] for outcome in outcomes if stage in outcome.ms]
        if spent:
            times[stage] = Times(*(float(p) for p in np.percentile(spent, [50, 95])))
    return times


def confusion_of(outcomes: Sequence[QueryOutcome], k: int) -> dict[tuple[str, str], int]:
    """Return how often each truth was answered by each label: the plurality of the first ``k``."""
    return dict(
        collections.Counter(
            (outcome.truth, plurality_of(outcome.labels[:k]) or NO_ANSWER) for outcome in outcomes
        )
    )


def _neighbours(
    outcomes: Sequence[QueryOutcome],
) -> list[tuple[tuple[str, str], tuple[str, str]]]:
    return [
        ((outcome.truth, outcome.institution), (found.label, found.institution))
        for outcome in outcomes
        for found in outcome.found
    ]


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else 0.0
