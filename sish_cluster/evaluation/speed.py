"""Speed against size: the same queries over ever larger parts of a collection.

A part is a random share of the slides, kept by the search's filter; so the time of a search is set
beside the postings that were eligible. Every part holds the smaller ones.
"""

from __future__ import annotations

import dataclasses
import random
import time
from collections.abc import Sequence

import numpy as np

from sish_cluster.core.query import Filter, Mode
from sish_cluster.core.slide import Slide
from sish_cluster.evaluation.asked import AskedCluster
from sish_cluster.evaluation.outcome import Evaluated, RunPlan
from sish_cluster.evaluation.queries import query_of

SHARES = (0.125, 0.25, 0.5, 1.0)
"""Shares of the slides: three doublings tell a constant from a line."""

MOST_NAMED_SLIDES = 20_000
"""Slides beyond which no parts are timed: a filter that names them all would cost more than the search."""


@dataclasses.dataclass(frozen=True, slots=True)
class SpeedPoint:
    """How long searches of one part took.

    Parameters
    ----------
    collection, mode
        What was searched, and how.
    eligible
        Postings eligible, mean over the queries.
    p50_ms, p95_ms
        Milliseconds a query patch: the part of the call that the router saw, filter included.
    coverage
        Postings examined / eligible, mean over the queries.
    """

    collection: str
    mode: Mode
    eligible: float
    p50_ms: float
    p95_ms: float
    coverage: float


def speed_points(
    cluster: AskedCluster, evaluation: Evaluated, *, queries: int = 24
) -> list[SpeedPoint]:
    """Return the times of searches of parts of each collection, in each of the evaluation's modes.

    Parameters
    ----------
    cluster
        Who is asked.
    evaluation
        Whose collections, modes and bounds are taken.
    queries
        Slides asked for at each size.
    """
    points = []
    for definition in evaluation.collections:
        slides = evaluation.slides[definition.name]
        if len(slides) > MOST_NAMED_SLIDES:
            continue
        rng = random.Random(evaluation.settings.rng_seed)
        order = rng.sample(list(slides), len(slides))
        asked = order[:queries]
        plans = (r.plan for r in evaluation.runs if r.plan.collection == definition.name)
        # One bound a mode: what is examined, and so the time, hardly depends on it.
        first = {plan.mode: plan for plan in reversed(list(plans))}
        modes = dict.fromkeys(run.plan.mode for run in evaluation.runs if run.plan.mode in first)
        for share in SHARES:
            part = order[: max(1, round(share * len(order)))]
            for mode in modes:
                points.append(_point(cluster, evaluation, first[mode], (part, asked)))
    return points


def _point(
    cluster: AskedCluster,
    evaluation: Evaluated,
    plan: RunPlan,
    slides: tuple[Sequence[Slide], Sequence[Slide]],
) -> SpeedPoint:
    name, (part, asked) = plan.collection, slides
    definition = next(c for c in evaluation.collections if c.name == name)
    names = [slide.slide_id for slide in part]
    spent, eligible, coverage = [], [], []
    for slide in asked:
        encoded = cluster.encoded_slide(name, slide.slide_id)
        where = Filter.of(keep={"slide": names}, leave_out={"slide": [slide.slide_id]})
        query = query_of(encoded, plan, where, definition, evaluation.settings)
        started = time.perf_counter()
        result = cluster.search_patches(name, query, timeout_s=evaluation.settings.timeout_s)
        ms = result.elapsed_ms or (time.perf_counter() - started) * 1000
        spent.append(ms / len(query.patches))
        eligible.append(result.eligible)
        coverage.append(result.coverage)
    p50, p95 = np.percentile(spent, [50, 95])
    means = float(np.mean(eligible)), float(np.mean(coverage))
    return SpeedPoint(name, plan.mode, means[0], float(p50), float(p95), means[1])
