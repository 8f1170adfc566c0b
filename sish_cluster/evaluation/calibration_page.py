"""A calibration drawn: recall by budget, neighbours by distance, and the bounds proposed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sish_cluster.core.counting import counted
from sish_cluster.core.query import Mode
from sish_cluster.evaluation.calibration import Budget, Calibration
from sish_cluster.evaluation.page import Picture, rendered
from sish_cluster.evaluation.plots import colour, drawn, new_figure, with_plain_numbers
from sish_cluster.evaluation.tables import TextTable


def calibration_page(calibration: Calibration, *, about: Sequence[tuple[str, str]] = ()) -> str:
    """Return the page as text; every string is escaped."""
    proposal, settings = calibration.proposal, calibration.settings
    facts = [
        ("collection", f"{calibration.collection}: {counted(calibration.postings, 'posting')}"),
        ("sample", f"{counted(calibration.sample, 'patch')}, their {settings.leave_out} left out"),
        ("max_distance", f"{proposal.max_distance}: {proposal.distance_reason}"),
        ("budget", f"{budget_text(proposal.budget)}: {proposal.budget_reason}"),
    ]
    pictures = [
        Picture(distance_figure(calibration), "Neighbours by distance",
                f"{_looked_at(calibration)} The dashed line is the bound proposed."),
    ]  # fmt: skip
    if calibration.budgets:
        recall = Picture(
            budget_figure(calibration),
            "Recall by budget",
            "A dot a budget; the dashed line is the target, the ring the budget proposed.",
        )
        pictures.insert(0, recall)
    return rendered(
        "calibration.html",
        title=f"Calibration of {calibration.collection}",
        verdicts=[],
        about=[*facts, *about],
        pictures=pictures,
        budgets=budgets_table(calibration),
    )


def _looked_at(calibration: Calibration) -> str:
    """Return which neighbours the curve is of."""
    curve = calibration.distances
    if not curve.within:
        return f"The {calibration.settings.neighbours} nearest of each patch."
    text = f"Every neighbour within {curve.within} {calibration.unit} of each patch"
    if curve.left_out:
        text += f", {counted(curve.left_out, 'patch')} with too many of them left out"
    return text + "."


def budget_text(budget: Budget | None) -> str:
    """Return a budget in words."""
    if budget is None:
        return "none"
    return (
        f"max_steps {budget.max_steps}, seeds_per_side {budget.seeds_per_side}, seed_spacing"
        f" {budget.seed_spacing}"
    )


def budgets_table(calibration: Calibration) -> TextTable:
    """Return every budget tried, the best recall first."""
    headings = ["mode", "max_steps", "seeds", "spacing", "recall", "coverage", "ms a patch"]
    rows = [
        [
            str(budget.mode),
            str(budget.max_steps),
            str(budget.seeds_per_side),
            str(budget.seed_spacing),
            f"{budget.recall:.3f}",
            f"{budget.coverage:.2%}",
            f"{budget.ms:.2f}",
        ]
        for budget in reversed(calibration.budgets)
    ]
    return TextTable(headings, rows)


def budget_figure(calibration: Calibration) -> str:
    """Return recall against coverage: colour tells the spacing, size the seeds."""
    figure, axes = new_figure(4.4, 3.4)
    guided = [budget for budget in calibration.budgets if budget.mode is Mode.GUIDED]
    for number, spacing in enumerate(sorted({budget.seed_spacing for budget in guided})):
        held = [budget for budget in guided if budget.seed_spacing == spacing]
        axes.scatter(
            [100 * budget.coverage for budget in held],
            [budget.recall for budget in held],
            s=[18 + 9 * budget.seeds_per_side for budget in held],
            color=colour(number),
            alpha=0.75,
            linewidths=0,
            label=f"guided, spacing {spacing}",
        )
    for budget in calibration.budgets:
        if budget.mode is Mode.SISH:
            axes.plot([100 * budget.coverage], [budget.recall], "kx", label="sish, as published")
    chosen = calibration.proposal.budget
    if chosen is not None:
        axes.plot([100 * chosen.coverage], [chosen.recall], "o", markersize=15, markerfacecolor="none",
                  markeredgecolor="#1d1f24", label="proposed")  # fmt: skip
    axes.axhline(calibration.settings.target_recall, linestyle="--", color="#8a8f99")
    axes.set_xscale("log")
    with_plain_numbers(axes.xaxis)
    axes.set_ylim(-0.03, 1.05)
    axes.grid(True)
    axes.set_xlabel("postings examined, % of those eligible")
    axes.set_ylabel(f"share of the {calibration.settings.k} nearest found")
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), fontsize=9, frameon=False)
    return drawn(figure)


def distance_figure(calibration: Calibration) -> str:
    """Return how many neighbours of each kind lie at each distance, and the share of the same label."""
    curve = calibration.distances
    edges = np.asarray(curve.edges)
    middles, widths = (edges[:-1] + edges[1:]) / 2, np.diff(edges)
    figure, axes = new_figure(4.4, 3.4)
    field = calibration.settings.label_field
    axes.bar(middles, curve.same, widths, color=colour(2), alpha=0.8, label=f"same {field}")
    axes.bar(middles, curve.other, widths, bottom=curve.same, color=colour(1), alpha=0.8,
             label=f"another {field}")  # fmt: skip
    axes.axvline(calibration.proposal.max_distance, linestyle="--", color="#1d1f24")
    axes.set_xlabel(f"distance, {calibration.unit}")
    axes.set_ylabel("neighbours")
    share = axes.twinx()
    share.step(
        middles, curve.precision, where="mid", color=colour(0), label="share of the same (right)"
    )
    share.axhline(
        (1 + curve.chance) / 2, linestyle=":", color=colour(0), label="half way to chance"
    )
    share.set_ylim(0, 1.05)
    share.spines[["top", "left"]].set_visible(False)
    handles, names = axes.get_legend_handles_labels()
    more, more_names = share.get_legend_handles_labels()
    axes.legend([*handles, *more], [*names, *more_names], loc="upper left",
                bbox_to_anchor=(1.14, 1.0), fontsize=9, frameon=False)  # fmt: skip
    return drawn(figure)
