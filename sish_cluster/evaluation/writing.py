"""An evaluation on disk: JSON for programs, CSV for tables, each written whole or not at all."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sish_cluster.evaluation.outcome import STAGES, Evaluated
from sish_cluster.evaluation.speed import SpeedPoint
from sish_cluster.evaluation.summary import RunSummary, measures_of

JSON_NAME, QUERIES_NAME, CLASSES_NAME, PAGE_NAME = (
    "evaluation.json",
    "queries.csv",
    "classes.csv",
    "evaluation.html",
)
"""Files of an evaluation's folder."""


def evaluation_as_json(
    evaluation: Evaluated,
    summaries: Sequence[RunSummary],
    speed: Sequence[SpeedPoint] = (),
    *,
    about: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return an evaluation as plain values.

    Parameters
    ----------
    evaluation, summaries, speed
        What was measured.
    about
        The machine, the software, the command line: whatever makes the figures comparable.
    """
    return {
        "about": dict(about or {}),
        "settings": dataclasses.asdict(evaluation.settings),
        "collections": [dataclasses.asdict(c) for c in evaluation.collections],
        "skipped": [{"what": what, "why": why} for what, why in evaluation.skipped],
        "runs": [summary_as_json(summary) for summary in summaries],
        "speed": [dataclasses.asdict(point) for point in speed],
    }


def summary_as_json(summary: RunSummary) -> dict[str, Any]:
    """Return one run's numbers as plain values; its queries are in the CSV."""
    plan, robustness = summary.run.plan, summary.robustness
    return {
        "collection": plan.collection,
        "mode": str(plan.mode),
        "ranking": None if plan.ranking is None else str(plan.ranking),
        "bound": plan.bound,
        "queries": summary.queries,
        "answered": summary.answered,
        "failed": summary.failed,
        "unreachable": summary.unreachable,
        "modes_that_ran": dict(summary.modes),
        "coverage": summary.coverage,
        "eligible": summary.eligible,
        "recall": summary.recall,
        "recall_queries": len(summary.known_recalls),
        "scores": {name: dataclasses.asdict(score) for name, score in summary.scores.items()},
        "times_ms": {stage: dataclasses.asdict(spent) for stage, spent in summary.times.items()},
        "confusion": [
            {"truth": truth, "answer": answer, "queries": n}
            for (truth, answer), n in sorted(summary.confusion.items())
        ],
        "robustness": dataclasses.asdict(robustness) | {"index": robustness.index},
        "failures": [
            {"query": query_id, "problem": problem} for query_id, problem in summary.run.failures
        ],
    }


def queries_as_csv(evaluation: Evaluated, summaries: Sequence[RunSummary]) -> str:
    """Return one row a query and run: truth, results, measures, recall, times."""
    measures = measures_of(evaluation.settings)
    ranks = range(1, evaluation.settings.most + 1)
    columns = ["collection", "search", "ranking", "query", "truth", "group", "institution"]
    columns += [f"{what}_{rank}" for rank in ranks for what in ("slide", "label", "distance")]
    columns += [
        *measures,
        "recall",
        "coverage",
        "eligible",
        *(f"{s}_ms" for s in STAGES),
        "problem",
    ]
    rows: list[Sequence[object]] = []
    for summary in summaries:
        plan = summary.run.plan
        recalls: Sequence[float | None] = summary.recalls or [None] * summary.queries
        for outcome, recall in zip(summary.run.outcomes, recalls, strict=True):
            cells = [(f.slide_id, f.label, str(f.distance)) for f in outcome.found]
            cells += [("", "", "")] * (len(ranks) - len(cells))
            rows.append(
                [
                    *(plan.collection, plan.search, plan.ranking or ""),
                    *(outcome.query_id, outcome.truth, outcome.group, outcome.institution),
                    *(cell for found in cells for cell in found),
                    *(_number(m(outcome.labels, outcome.truth)) for m in measures.values()),
                    *(_number(recall), _number(outcome.coverage), outcome.eligible),
                    *(_number(outcome.ms.get(stage)) for stage in STAGES),
                    outcome.problem,
                ]
            )
    return _csv(columns, rows)


def classes_as_csv(summaries: Sequence[RunSummary]) -> str:
    """Return one row a class, run and measure, with its interval; macro and micro among the classes."""
    columns = [
        "collection",
        "search",
        "ranking",
        "measure",
        "class",
        "queries",
        "mean",
        "low",
        "high",
    ]
    rows: list[Sequence[object]] = []
    for summary in summaries:
        ran = summary.run.plan
        plan = (ran.collection, ran.search, ran.ranking or "")
        for name, score in summary.scores.items():
            means = {"(micro)": score.micro, "(macro)": score.macro, **score.per_class}
            for label, mean in means.items():
                n = score.counts.get(label, summary.queries)
                values = (_number(v) for v in (mean.mean, mean.low, mean.high))
                rows.append([*plan, name, label, n, *values])
    return _csv(columns, rows)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _csv(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return buffer.getvalue()


def written(path: Path, text: str) -> Path:
    """Write a file whole or not at all, its folder made, and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)
    return path


def written_json(path: Path, values: Mapping[str, Any]) -> Path:
    """Write plain values as JSON that people can read."""
    return written(path, json.dumps(values, indent=2, ensure_ascii=False, default=str) + "\n")
