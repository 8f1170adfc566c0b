"""Figures of an evaluation, each a data URI that stands in a page without any other file.

matplotlib is imported when a figure is drawn: a server that never draws needs none of it.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sish_cluster.evaluation.maps import PatchMap
from sish_cluster.evaluation.speed import SpeedPoint
from sish_cluster.evaluation.summary import NO_ANSWER, RunSummary

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

COLOURS = (
    "#1f5fa8", "#d1622b", "#2e8b57", "#8e44ad", "#b8860b",
    "#c0392b", "#16a2a2", "#6b7280", "#d94f9b", "#5a7d1a",
)  # fmt: skip
"""Hues that stay apart in print and for most colour-blind readers; used again from the start."""

STYLE: Any = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#8a8f99",
    "axes.labelcolor": "#2b2f36",
    "xtick.color": "#2b2f36",
    "ytick.color": "#2b2f36",
    "axes.grid": False,
    "grid.color": "#e4e2dc",
    "legend.frameon": False,
    "svg.hashsalt": "sish",
}
"""One look for all figures; the salt makes equal figures equal bytes."""


def drawn(figure: Figure, *, as_png: bool = False) -> str:
    """Return a figure as a data URI: SVG, or PNG where there are thousands of points."""
    import matplotlib

    buffer = io.BytesIO()
    kind, mime = ("png", "image/png") if as_png else ("svg", "image/svg+xml")
    metadata = None if as_png else {"Date": None}
    with matplotlib.rc_context(STYLE):
        figure.savefig(buffer, format=kind, dpi=150, bbox_inches="tight", metadata=metadata)
    return f"data:{mime};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def new_figure(
    width: float, height: float, *, columns: int = 1, lines: int = 0
) -> tuple[Figure, Any]:
    """Return a figure of that many inches and its axes: one, or with ``lines`` a row-major list of them."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height))
        axes = figure.subplots(lines or 1, columns, squeeze=False).ravel()
    return figure, axes if lines else axes[0]


def colour(number: int) -> str:
    """Return the colour of series ``number``."""
    return COLOURS[number % len(COLOURS)]


def names_of(summaries: Sequence[RunSummary]) -> list[str]:
    """Return a name a run, with the collection where there are several."""
    several = len({summary.run.plan.collection for summary in summaries}) > 1
    return [
        f"{s.run.plan.collection}: {s.run.plan}" if several else str(s.run.plan) for s in summaries
    ]


def confusion_figure(summary: RunSummary) -> str:
    """Return the confusion matrix: rows are truths, shares of each row in colour, counts in words."""
    truths = sorted({truth for truth, _ in summary.confusion})
    answered = {answer for _, answer in summary.confusion} - {NO_ANSWER}
    answers = sorted(answered | set(truths))
    if any(answer == NO_ANSWER for _, answer in summary.confusion):
        answers.append(NO_ANSWER)
    counts = np.array([[summary.confusion.get((t, a), 0) for a in answers] for t in truths])
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = 0.5 if len(answers) <= 12 else 0.42
    figure, axes = new_figure(1.6 + side * len(answers), 1.2 + side * len(truths))
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="equal")
    axes.set_xticks(range(len(answers)), answers, rotation=40, ha="right")
    axes.set_yticks(range(len(truths)), truths)
    axes.set_xlabel("plurality of the results")
    axes.set_ylabel("truth")
    for row, column in np.ndindex(*counts.shape):
        if counts[row, column]:
            ink = "white" if shares[row, column] > 0.55 else "#2b2f36"
            text = str(counts[row, column])
            axes.text(column, row, text, ha="center", va="center", color=ink, fontsize=9)
    return drawn(figure)


def class_figure(summaries: Sequence[RunSummary], measure: str) -> str:
    """Return bars of one measure: a group a class, a bar a run, with intervals."""
    labels = list(summaries[0].scores[measure].per_class)
    width = 0.8 / len(summaries)
    figure, axes = new_figure(max(5.0, 1.2 + 0.32 * len(labels) * len(summaries)), 3.4)
    for number, (name, summary) in enumerate(zip(names_of(summaries), summaries, strict=True)):
        found = [summary.scores[measure].per_class[label] for label in labels]
        means = [interval.mean for interval in found]
        spread = [
            [max(0.0, i.mean - i.low) for i in found],
            [max(0.0, i.high - i.mean) for i in found],
        ]
        places = np.arange(len(labels)) + (number - (len(summaries) - 1) / 2) * width
        axes.bar(places, means, width * 0.92, color=colour(number), label=name, yerr=spread,
                 error_kw={"ecolor": "#2b2f36", "elinewidth": 0.9, "capsize": 1.5})  # fmt: skip
    turned = len(labels) > 4 or max(map(len, labels)) > 14
    axes.set_xticks(range(len(labels)), labels, rotation=30 if turned else 0,
                    ha="right" if turned else "center")  # fmt: skip
    axes.set_ylim(0, 1.02)
    axes.set_ylabel(measure)
    _legend_outside(axes)
    return drawn(figure)


def ring_size(number: int) -> int:
    """Return the diameter of a run's ring, points: another than its neighbours', never over the plot.

    Examples
    --------
    >>> [ring_size(number) for number in (0, 1, 5, 6, 30)]
    [6, 9, 21, 6, 6]
    """
    return 6 + 3 * (number % 6)


def recall_figure(summaries: Sequence[RunSummary]) -> str | None:
    """Return recall beside EXACT against coverage: a dot a run, bars over nine tenths of its queries."""
    shown = [
        (number, name, summary)
        for number, (name, summary) in enumerate(zip(names_of(summaries), summaries, strict=True))
        if summary.known_recalls
    ]
    if not shown:
        return None
    figure, axes = new_figure(4.4, 3.4)
    for number, name, summary in shown:
        recalls = np.asarray(summary.known_recalls)
        low, high = np.percentile(recalls, [5, 95])
        mean = float(recalls.mean())
        spread = [[max(0.0, mean - low)], [max(0.0, high - mean)]]
        # Runs that agree lie on one spot: rings of different size show how many they are.
        axes.errorbar([summary.coverage], [mean], yerr=spread, fmt="o", markersize=ring_size(number),
                      markerfacecolor="none", markeredgewidth=2, capsize=3, color=colour(number),
                      label=name)  # fmt: skip
    axes.set_xlim(-0.02, 1.04)
    axes.set_ylim(-0.02, 1.06)
    axes.grid(True)
    axes.set_xlabel("coverage: postings examined / eligible")
    axes.set_ylabel("share of EXACT's results found")
    _legend_outside(axes)
    return drawn(figure)


def speed_figure(points: Sequence[SpeedPoint]) -> str | None:
    """Return milliseconds a query patch against eligible postings, both axes logarithmic."""
    figure, axes = new_figure(4.4, 3.4)
    series: dict[str, list[SpeedPoint]] = {}
    several = len({point.collection for point in points}) > 1
    for point in points:
        name = f"{point.collection}: {point.mode}" if several else str(point.mode)
        series.setdefault(name, []).append(point)
    for number, (name, held) in enumerate(series.items()):
        ordered = sorted(held, key=lambda point: point.eligible)
        sizes = [point.eligible for point in ordered]
        axes.plot(sizes, [p.p50_ms for p in ordered], "o-", color=colour(number), label=name)
        axes.fill_between(sizes, [p.p50_ms for p in ordered], [p.p95_ms for p in ordered],
                          color=colour(number), alpha=0.15, linewidth=0)  # fmt: skip
    if not axes.lines:
        return None
    axes.set_xscale("log")
    axes.set_yscale("log")
    with_plain_numbers(axes.xaxis)
    with_plain_numbers(axes.yaxis)
    axes.grid(True, which="major")
    axes.set_xlabel("eligible postings")
    axes.set_ylabel("ms a query patch, p50 to p95")
    _legend_outside(axes)
    return drawn(figure)


def map_figure(points: PatchMap) -> str:
    """Return the map, coloured by label; beyond ten labels the rarest share one grey."""
    by_count: Mapping[str, int] = {name: points.labels.count(name) for name in points.labels}
    names = sorted(by_count, key=lambda name: (-by_count[name], name))
    figure, axes = new_figure(6.6, 5.0)
    labels = np.asarray(points.labels, object)
    for number, name in enumerate(names):
        is_rare = number >= len(COLOURS)
        places = points.places[labels == name]
        axes.scatter(places[:, 0], places[:, 1], s=9, alpha=0.75, linewidths=0,
                     color="#b9bcc4" if is_rare else colour(number),
                     label=None if is_rare else f"{name} ({by_count[name]})")  # fmt: skip
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    _legend_outside(axes)
    return drawn(figure, as_png=True)


def with_plain_numbers(axis: Axis) -> None:
    """Write a logarithmic axis's numbers as people read them: 0.1, 50, 2000 rather than powers."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    low, high = axis.get_view_interval()
    # Less than two decades would show one number or none: then the steps between get theirs too.
    few = FuncFormatter(lambda value, _: f"{value:,g}" if f"{value:e}"[0] in "25" else "")
    axis.set_minor_formatter(few if high < 100 * low else NullFormatter())


def _legend_outside(axes: Axes) -> None:
    """Put the legend to the right of the plot, where it covers nothing."""
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), fontsize=9, frameon=False)
