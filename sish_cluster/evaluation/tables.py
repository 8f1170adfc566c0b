"""The comparison as rows of text: the same table on a terminal and on the page."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from sish_cluster.evaluation.outcome import SEARCH
from sish_cluster.evaluation.summary import RunSummary

UNKNOWN_CELL = "-"
"""What a cell says that nobody could measure."""

NOT_APPLICABLE = "n/a"
"""What a recall says where EXACT found nothing that could be missed."""


@dataclasses.dataclass(frozen=True, slots=True)
class TextTable:
    """Headings and rows of equal length; the first column names the row, the others are numbers."""

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]


def comparison_of(summaries: Sequence[RunSummary]) -> TextTable:
    """Return one row a run: quality (macro and micro), recall beside EXACT, coverage, times.

    Quality columns are means over queries; each with its interval is on the page and in the JSON. Recall
    has the queries it is over in brackets: those for which EXACT found something.
    """
    names = [name for name in summaries[0].scores if "/" not in name and "mean" not in name]
    # Of the average precisions the table shows the last only: the largest k.
    quality = [name for name in names if not name.startswith("AP@")] + names[-1:]
    if len(quality) > 3:  # One result is its own majority: mMV@1 says what Acc@1 says.
        quality = [name for name in quality if name != "mMV@1"]
    several = len({summary.run.plan.collection for summary in summaries}) > 1
    last = [name for name in quality if name.startswith("mMV@")][-1]
    headings = [
        "run",
        *quality,
        f"{last} macro",
        "recall (of)",
        "coverage",
        "answered",
        "p50 ms",
        "p95 ms",
    ]
    return TextTable(headings, [_row(s, quality, last, several=several) for s in summaries])


def _row(summary: RunSummary, quality: Sequence[str], last: str, *, several: bool) -> list[str]:
    plan = summary.run.plan
    spent = summary.times.get(SEARCH)
    return [
        f"{plan.collection}: {plan}" if several else str(plan),
        *(f"{summary.micro(name):.3f}" for name in quality),
        f"{summary.scores[last].macro.mean:.3f}",
        _recall_cell(summary),
        f"{summary.coverage:.1%}",
        f"{summary.answered}/{summary.queries}",
        f"{spent.p50:.2f}" if spent else UNKNOWN_CELL,
        f"{spent.p95:.2f}" if spent else UNKNOWN_CELL,
    ]


def _recall_cell(summary: RunSummary) -> str:
    """Return the recall and how many queries it is over; without EXACT there is nothing to tell."""
    if summary.recalls is None:
        return UNKNOWN_CELL
    share = NOT_APPLICABLE if summary.recall is None else f"{summary.recall:.3f}"
    return f"{share} ({len(summary.known_recalls)})"


def measures_table(summaries: Sequence[RunSummary]) -> TextTable:
    """Return every measure of every run with its interval: micro, then macro."""
    headings = ["run", "mean over", *summaries[0].scores]
    rows = []
    for summary in summaries:
        name = f"{summary.run.plan.collection}: {summary.run.plan}"
        rows.append([name, "queries", *(str(s.micro) for s in summary.scores.values())])
        rows.append([name, "classes", *(str(s.macro) for s in summary.scores.values())])
    return TextTable(headings, rows)


def class_table(summary: RunSummary) -> TextTable:
    """Return a run's classes: queries, each accuracy and majority vote, precision and F1 of the vote."""
    names = [n for n in summary.scores if n.startswith(("Acc@", "mMV@"))]
    counts = next(iter(summary.scores.values())).counts
    rows = []
    for label, queries in counts.items():
        cells = [f"{summary.scores[name].per_class[label].mean:.3f}" for name in names]
        precision, f1 = vote_precision(summary, label)
        rows.append([label, str(queries), *cells, f"{precision:.3f}", f"{f1:.3f}"])
    return TextTable(["class", "queries", *names, "vote precision", "vote F1"], rows)


def vote_precision(summary: RunSummary, label: str) -> tuple[float, float]:
    """Return precision and F1 of a label among the plurality votes; 0 where nobody voted for it."""
    right = summary.confusion.get((label, label), 0)
    voted = sum(n for (_, answer), n in summary.confusion.items() if answer == label)
    asked = sum(n for (truth, _), n in summary.confusion.items() if truth == label)
    return right / max(voted, 1), 2 * right / max(voted + asked, 1)


def times_table(summaries: Sequence[RunSummary]) -> TextTable:
    """Return p50 and p95 of each stage, milliseconds a query."""
    stages = list(dict.fromkeys(stage for s in summaries for stage in s.times))
    headings = ["run", *(f"{stage} {end} ms" for stage in stages for end in ("p50", "p95"))]
    rows = []
    for summary in summaries:
        cells: list[str] = []
        for stage in stages:
            spent = summary.times.get(stage)
            cells += [f"{spent.p50:.2f}", f"{spent.p95:.2f}"] if spent else [UNKNOWN_CELL] * 2
        rows.append([f"{summary.run.plan.collection}: {summary.run.plan}", *cells])
    return TextTable(headings, rows)
