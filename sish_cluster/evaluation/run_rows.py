"""Figures of many runs or classes: rows with names, and panels that share them.

A bar a run and a legend beside them can be read while runs are few. Beyond that each run gets a row with its
name at the left, and every class a panel of the same rows: nothing has to be looked up by colour, and a run is
followed across all panels. Few runs of many classes get it the other way round. Colour only tells the searches
(mode and bound) apart.
"""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from sish_cluster.evaluation.outcome import SEARCH
from sish_cluster.evaluation.plots import (
    colour,
    drawn,
    names_of,
    new_figure,
    with_plain_numbers,
)
from sish_cluster.evaluation.scores import Interval
from sish_cluster.evaluation.summary import RunSummary
from sish_cluster.evaluation.tables import NOT_APPLICABLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_IN_LEGEND = 6
"""Runs that a legend still tells apart; more of them get rows."""

MOST_BARS = 48
"""Bars that stand side by side on a page before their labels shrink beyond reading."""

PANELS_A_LINE = 6
"""Panels side by side: with the runs' names they fill the page at its natural size."""

ROW_IN, PANEL_IN, NAMES_IN, TITLE_IN = 0.2, 1.5, 2.4, 0.75
"""Inches of a row, a panel's width, the names' width, and a line's titles and ticks."""

BAND = "#f1efea"
"""Behind every second search's rows, so that the eye keeps its row."""


@dataclasses.dataclass(frozen=True, slots=True)
class Rows:
    """What the panels share: a name and the number of a series (colour and band) for each row."""

    names: Sequence[str]
    series: Sequence[int]


@dataclasses.dataclass(frozen=True, slots=True)
class Panel:
    """One column of rows.

    Parameters
    ----------
    title
        What is shown.
    values
        One a row: its dot and the ends of its line; None where there is nothing to tell.
    is_share
        Whether values are shares, drawn from 0 to 1; else they are drawn on a logarithmic axis.
    """

    title: str
    values: Sequence[Interval | None]
    is_share: bool = True


def wants_rows(summaries: Sequence[RunSummary], *, groups: int = 1) -> bool:
    """Whether runs are too many for a legend, or their bars (``groups`` of them) for a page."""
    return len(summaries) > MOST_IN_LEGEND or len(summaries) * groups > MOST_BARS


def rows_of(summaries: Sequence[RunSummary]) -> Rows:
    """Return a row a run, a series a search."""
    searches = [(s.run.plan.collection, s.run.plan.search) for s in summaries]
    known = list(dict.fromkeys(searches))
    return Rows(names_of(summaries), [known.index(search) for search in searches])


def class_rows(summaries: Sequence[RunSummary], measure: str) -> str:
    """Return one measure with bootstrap intervals: a panel a class, of few runs a panel a run."""
    found = [summary.scores[measure].per_class for summary in summaries]
    labels = list(found[0])
    if len(summaries) > MOST_IN_LEGEND:
        panels = [Panel(label, [of_run[label] for of_run in found]) for label in labels]
        return rows_figure(rows_of(summaries), panels)
    panels = [
        Panel(name, [of_run[label] for label in labels])
        for name, of_run in zip(names_of(summaries), found, strict=True)
    ]
    return rows_figure(Rows(labels, [0] * len(labels)), panels)


def recall_rows(summaries: Sequence[RunSummary]) -> str | None:
    """Return recall beside EXACT (lines over nine tenths of a run's queries) and coverage."""
    recalls = [_spread(summary.known_recalls) for summary in summaries]
    if not any(recalls):
        return None
    coverage = [Interval(s.coverage, s.coverage, s.coverage) for s in summaries]
    panels = [Panel("share of EXACT's results found", recalls), Panel("coverage", coverage)]
    return rows_figure(rows_of(summaries), panels)


def time_rows(summaries: Sequence[RunSummary]) -> str | None:
    """Return the milliseconds a query, a dot at the median and a line to p95."""
    spent = [summary.times.get(SEARCH) for summary in summaries]
    values = [None if t is None else Interval(t.p50, t.p50, t.p95) for t in spent]
    if not any(values):
        return None
    panel = Panel("ms a query, p50 to p95", values, is_share=False)
    return rows_figure(rows_of(summaries), [panel])


def _spread(recalls: Sequence[float]) -> Interval | None:
    if not recalls:
        return None
    low, high = np.percentile(recalls, [5, 95])
    mean = float(np.mean(recalls))
    return Interval(mean, min(mean, float(low)), max(mean, float(high)))


def rows_figure(rows: Rows, panels: Sequence[Panel]) -> str:
    """Return the panels, at most `PANELS_A_LINE` beside each other, as a data URI."""
    columns = min(len(panels), PANELS_A_LINE)
    lines = -(-len(panels) // columns)
    width = NAMES_IN + columns * (PANEL_IN if columns > 2 else 2 * PANEL_IN)
    height = lines * (TITLE_IN + ROW_IN * len(rows.names))
    figure, grid = new_figure(width, height, columns=columns, lines=lines)
    for number, axes in enumerate(grid):
        if number >= len(panels):
            axes.set_visible(False)
            continue
        _draw_rows(axes, panels[number], rows.series)
        names = [] if number % columns else rows.names
        axes.set_yticks(range(len(rows.names)), names, fontsize=8)
    figure.tight_layout(w_pad=0.8, h_pad=1.2)
    return drawn(figure)


def _draw_rows(axes: Axes, panel: Panel, series: Sequence[int]) -> None:
    for row, (number, value) in enumerate(zip(series, panel.values, strict=True)):
        if number % 2:
            axes.axhspan(row - 0.5, row + 0.5, color=BAND, linewidth=0, zorder=0)
        if value is None:
            axes.text(0.02, row, NOT_APPLICABLE, fontsize=7, va="center", color="#8a8f99",
                      transform=axes.get_yaxis_transform())  # fmt: skip
            continue
        axes.plot([value.low, value.high], [row, row], "-", color=colour(number), linewidth=1.4)
        axes.plot([value.mean], [row], "o", color=colour(number), markersize=4.5)
    axes.set_ylim(len(series) - 0.5, -0.5)
    axes.set_title("\n".join(textwrap.wrap(panel.title, 32)[:2]), fontsize=9)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelsize=8)
    axes.grid(True, axis="x")
    axes.set_axisbelow(True)
    if panel.is_share:
        axes.set_xlim(-0.04, 1.04)
        axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    else:
        axes.set_xscale("log")
        with_plain_numbers(axes.xaxis)
