"""The evaluation as one HTML file: tables, figures and examples inside it, no other file, no network."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2

from sish_cluster.core.counting import counted
from sish_cluster.evaluation import plots, run_rows
from sish_cluster.evaluation.maps import PatchMap
from sish_cluster.evaluation.montage import Example
from sish_cluster.evaluation.outcome import Evaluated
from sish_cluster.evaluation.settings import ANY_DISTANCE
from sish_cluster.evaluation.speed import SpeedPoint
from sish_cluster.evaluation.summary import RunSummary
from sish_cluster.evaluation.tables import (
    TextTable,
    class_table,
    comparison_of,
    measures_table,
    times_table,
)

MOST_MATRICES = 8
"""Confusion matrices on a page, the first runs': more of them say the same again."""

MOST_FAILURES = 40
"""Failures listed on a page; all are in the JSON."""


@dataclasses.dataclass(frozen=True, slots=True)
class Picture:
    """A figure: its data URI, what it shows, and what a reader should look for."""

    source: str
    title: str
    note: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class PageContents:
    """Everything a page shows besides the evaluation itself.

    Parameters
    ----------
    title
        Heading of the page.
    about
        (what, value) facts: machine, software, command line.
    speed, maps, examples
        Times over parts; collection -> its map; run name -> its examples.
    verdicts
        (what was asked, whether it holds): shown above everything else.
    """

    title: str = "How good the answers are"
    about: Sequence[tuple[str, str]] = ()
    speed: Sequence[SpeedPoint] = ()
    maps: Mapping[str, PatchMap] = dataclasses.field(default_factory=dict)
    examples: Mapping[str, Sequence[Example]] = dataclasses.field(default_factory=dict)
    verdicts: Sequence[tuple[str, bool]] = ()


def page_of(evaluation: Evaluated, summaries: Sequence[RunSummary], contents: PageContents) -> str:
    """Return the page as text; every string is escaped."""
    failures = [
        (f"{s.run.plan.collection}: {s.run.plan}", query_id, problem)
        for s in summaries
        for query_id, problem in s.run.failures
    ]
    return rendered(
        "evaluation.html",
        title=contents.title,
        about=[*_facts_of(evaluation, summaries), *contents.about],
        verdicts=contents.verdicts,
        comparison=comparison_of(summaries),
        quality=_quality_figures(summaries),
        classes=_class_tables(summaries),
        matrices=_matrices(summaries),
        behaviour=_behaviour_figures(summaries, contents),
        maps=_maps(contents),
        examples=contents.examples,
        measures=measures_table(summaries),
        times=times_table(summaries),
        robustness=_robustness_table(summaries),
        failures=failures[:MOST_FAILURES],
        n_failed=counted(len(failures), "failed query"),
        skipped=evaluation.skipped,
    )


def rendered(template: str, **values: Any) -> str:
    """Return a template of this package with values; a value nobody gave is an error."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("sish_cluster.evaluation"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**values)


def _facts_of(evaluation: Evaluated, summaries: Sequence[RunSummary]) -> list[tuple[str, str]]:
    settings = evaluation.settings
    what = "every patch" if settings.is_by_patch else "every slide"
    facts = [
        ("queries", f"{what} with the label {settings.label_field}; {settings.leave_out} left out"),
        ("distance bound", ", ".join(map(_bound_text, settings.bounds))),
        ("lists shorter than k", f"{settings.short_list} rule"),
        ("intervals", _interval_text(settings.bootstrap.resamples, settings.bootstrap.confidence)),
    ]
    for definition in evaluation.collections:
        slides = evaluation.slides[definition.name]
        encoder = definition.encoder or definition.fingerprint
        facts.append(
            (f"collection {definition.name}", f"{counted(len(slides), 'slide')}; {encoder}")
        )
    unreachable = max(summary.unreachable for summary in summaries)
    if unreachable:
        facts.append(
            (
                "beyond reach",
                f"{counted(unreachable, 'query')}: no other group bears the same label",
            )
        )
    return facts


def _bound_text(bound: int | None) -> str:
    if bound is None:
        return "the collection's own"
    return "none (nearest: the k nearest count)" if bound == ANY_DISTANCE else counted(bound, "bit")


def _interval_text(resamples: int, confidence: float) -> str:
    if not resamples:
        return "none drawn"
    return (
        f"{confidence:.0%}, percentile bootstrap, patients resampled {counted(resamples, 'time')}"
    )


def _quality_figures(summaries: Sequence[RunSummary]) -> list[Picture]:
    votes = [name for name in summaries[0].scores if name.startswith("mMV@")]
    shown = list(dict.fromkeys(["Acc@1", votes[-1]]))
    return [
        _class_figure(summaries, name, f"{name} by class")
        for name in shown
        if name in summaries[0].scores
    ]


def _class_figure(summaries: Sequence[RunSummary], name: str, title: str) -> Picture:
    if run_rows.wants_rows(summaries, groups=len(summaries[0].scores[name].per_class)):
        note = "Dots are means, lines bootstrap intervals."
        return Picture(run_rows.class_rows(summaries, name), title, note)
    note = "Bars end at the mean; lines are bootstrap intervals."
    return Picture(plots.class_figure(summaries, name), title, note)


def _class_tables(summaries: Sequence[RunSummary]) -> list[tuple[str, TextTable]]:
    names = plots.names_of(summaries)
    return [(name, class_table(s)) for name, s in zip(names, summaries, strict=True)]


def _matrices(summaries: Sequence[RunSummary]) -> list[Picture]:
    names = plots.names_of(summaries)[:MOST_MATRICES]
    return [
        Picture(plots.confusion_figure(summary), name)
        for name, summary in zip(names, summaries[:MOST_MATRICES], strict=True)
    ]


def _behaviour_figures(summaries: Sequence[RunSummary], contents: PageContents) -> list[Picture]:
    if run_rows.wants_rows(summaries):
        recall = Picture(
            run_rows.recall_rows(summaries) or "",
            "Recall and coverage",
            "A row a run: dots are means, lines span nine tenths of its queries.",
        )
    else:
        recall = Picture(
            plots.recall_figure(summaries) or "",
            "Recall against coverage",
            "A dot a run; lines span nine tenths of its queries.",
        )
    return [picture for picture in (recall, _speed_figure(summaries, contents)) if picture.source]


def _speed_figure(summaries: Sequence[RunSummary], contents: PageContents) -> Picture:
    if contents.speed:
        note = "The same queries over random parts of the collection."
        return Picture(plots.speed_figure(contents.speed) or "", "Speed against size", note)
    note = "The whole call, the exclusion inside it."
    return Picture(run_rows.time_rows(summaries) or "", "Time a query", note)


def _maps(contents: PageContents) -> list[Picture]:
    return [
        Picture(plots.map_figure(found), name, f"{found.method}.")
        for name, found in contents.maps.items()
    ]


def _robustness_table(summaries: Sequence[RunSummary]) -> TextTable | None:
    if not any(summary.robustness.neighbours for summary in summaries):
        return None
    rows = []
    for name, summary in zip(plots.names_of(summaries), summaries, strict=True):
        counts = summary.robustness
        index = "-" if counts.index is None else f"{counts.index:.3f}"
        shared = (counts.label_only, counts.institution_only, counts.both, counts.neither)
        rows.append([name, index, *map(str, shared)])
    return TextTable(["run", "index", "class only", "institution only", "both", "neither"], rows)
