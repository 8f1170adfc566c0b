"""``sish calibrate``: what a collection says about the bounds of its own searches."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.markup import escape

from sish_cluster.cli.choices import Several
from sish_cluster.cli.evaluate import about_run, bar, rich_table
from sish_cluster.cli.options import ExampleCommand, cluster_options, open_cluster
from sish_cluster.cli.output import console
from sish_cluster.local.home import home_folder

if TYPE_CHECKING:
    from sish_cluster.evaluation.calibration import Calibration

MOST_ROWS = 12
"""Budgets shown on a terminal, the best and the proposed; all are on the page and in the JSON."""

EXAMPLES = [
    "sish calibrate demo --out calibration/",
    "sish calibrate demo --sample 500 --target-recall 0.95 --max-steps 100,375,1500",
    "sish calibrate demo --router 127.0.0.1:7500 --calibration demo-calibration.json",
]
"""With a page, with more care, of a cluster elsewhere."""


@click.command(cls=ExampleCommand, examples=EXAMPLES)
@click.argument("collection")
@click.option("--sample", type=click.IntRange(1), default=200, show_default=True,
              help="Query patches.")  # fmt: skip
@click.option("--target-recall", type=click.FloatRange(0, 1, min_open=True), default=0.9,
              show_default=True, help="Share of EXACT's nearest a guided search ought to find.")  # fmt: skip
@click.option("-k", "k", type=click.IntRange(1), default=5, show_default=True,
              help="Neighbours whose recall counts.")  # fmt: skip
@click.option("--label", "label_field", default="diagnosis", show_default=True,
              help="The label neighbours are compared by.")  # fmt: skip
@click.option("--leave-out", type=click.Choice(["patient", "institution", "slide"]),
              default="patient", show_default=True, help="Whose slides a query may not find.")  # fmt: skip
@click.option("--max-steps", type=Several(int), default="25,100,375,1500", show_default=True,
              help="Budgets tried: steps each way.")  # fmt: skip
@click.option("--seeds", "seeds_per_side", type=Several(int), default="1,4,10", show_default=True,
              help="Budgets tried: seeds a side.")  # fmt: skip
@click.option("--spacing", "seed_spacing", type=Several(int), default="10,50,200",
              show_default=True, help="Budgets tried: coarse units between seeds.")  # fmt: skip
@click.option("--seed", "rng_seed", type=int, default=0, show_default=True,
              help="Draws the sample.")  # fmt: skip
@click.option("--timeout", "timeout_s", type=click.FloatRange(0, min_open=True), default=60.0, show_default=True,
              help="Seconds for one search.")  # fmt: skip
@click.option("--calibration", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="Where the result goes.  [default: beside the embedded cluster]")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), metavar="DIR",
              help="Write a page with figures, and the JSON, there too.")  # fmt: skip
@cluster_options
def calibrate(collection: str, **options: Any) -> None:
    """Measure recall by budget and neighbours by distance in COLLECTION; propose bounds.

    The bound on distances comes from every neighbour within the distance that can be looked at whole (up to
    2000 of each sampled patch), so it is at most that; the page says how far.
    """
    from sish_cluster.evaluation.calibrating import calibrated
    from sish_cluster.evaluation.calibration import CalibrationSettings, calibration_path
    from sish_cluster.evaluation.settings import LeaveOut
    from sish_cluster.evaluation.writing import written_json

    names = ("sample", "target_recall", "k", "label_field", "max_steps", "seeds_per_side",
             "seed_spacing", "rng_seed", "timeout_s")  # fmt: skip
    chosen = {name: options[name] for name in names}
    settings = CalibrationSettings(leave_out=LeaveOut(options["leave_out"]), **chosen)
    with open_cluster(options["router"], options["home"]) as client, bar("measuring") as advance:
        found = calibrated(
            client,
            collection,
            settings=settings,
            watch=lambda _, done, total: advance(done, total),
        )
    home = home_folder(options["home"])
    path = options["calibration"] or calibration_path(home, collection)
    written_json(path, found.to_json())
    _printed(found)
    click.echo(f"wrote {path}", err=True)
    if options["out"]:
        _draw(found, options["out"])


def _printed(found: Calibration) -> None:
    from sish_cluster.evaluation.calibration_page import budget_text, budgets_table

    out, proposal = console(), found.proposal
    if found.budgets:
        rows = budgets_table(found)
        best = type(rows)(rows.headings, rows.rows[:MOST_ROWS])
        out.print(rich_table(best, title=f"recall of the {found.settings.k} nearest, best budgets"))
    out.print(f"[bold]max_distance {proposal.max_distance}[/]  {escape(proposal.distance_reason)}")
    out.print(f"[bold]{budget_text(proposal.budget)}[/]  {escape(proposal.budget_reason)}")


def _draw(found: Calibration, folder: Path) -> None:
    from sish_cluster.evaluation.calibration_page import calibration_page
    from sish_cluster.evaluation.writing import written, written_json

    written_json(folder / "calibration.json", found.to_json())
    about = [(what, value) for what, value in about_run().items() if what != "python"]
    page = written(folder / "calibration.html", calibration_page(found, about=about))
    click.echo(f"wrote {page}", err=True)
