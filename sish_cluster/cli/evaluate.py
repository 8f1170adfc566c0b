"""``sish evaluate``: how good a collection's answers are, mode beside mode, ranking beside ranking."""

from __future__ import annotations

import dataclasses
import datetime
import os
import platform
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.table import Table

from sish_cluster.cli.choices import AtLeast, AtLeastType, Several
from sish_cluster.cli.failures import warned
from sish_cluster.cli.networks import network_options
from sish_cluster.cli.options import ExampleCommand, cluster_options, open_cluster
from sish_cluster.cli.output import console, failures_table
from sish_cluster.client import Client
from sish_cluster.core.errors import BadRequest
from sish_cluster.core.query import Mode, Ranking

if TYPE_CHECKING:
    from sish_cluster.evaluation.outcome import Evaluated
    from sish_cluster.evaluation.page import PageContents
    from sish_cluster.evaluation.settings import EvaluationSettings
    from sish_cluster.evaluation.speed import SpeedPoint
    from sish_cluster.evaluation.summary import RunSummary
    from sish_cluster.evaluation.tables import TextTable

MISSED = 1
"""Exit code where a figure asked for with ``--at-least`` is missed."""

EXAMPLES = [
    "sish evaluate demo --label diagnosis --leave-out patient --mode guided,exact --out report/",
    "sish evaluate demo --label site --ranking uncertainty,sish,rrf,retccl -k 1,3,5",
    "sish evaluate densenet-demo retccl-demo --mode exact,direct --router 127.0.0.1:7500",
    "sish evaluate --tiles tiles/ --table summary.csv --mode exact --nearest --out report/",
    "sish evaluate demo --mode exact --patches --at-least exact:Acc@1=0.9",
]
"""Slides, organs, encoders side by side, tiles, and a gate for a build."""


@click.command(cls=ExampleCommand, examples=EXAMPLES)
@click.argument("collections", nargs=-1)
@click.option("--tiles", type=click.Path(path_type=Path, file_okay=False), metavar="DIR",
              help="Evaluate a folder of images (any size), each a patch of its own.")  # fmt: skip
@click.option("--table", type=click.Path(path_type=Path, dir_okay=False), metavar="CSV",
              help="Their labels: patch, label[, patient].  [default: the folders' names]")  # fmt: skip
@click.option("--label", "label_field", default="diagnosis", show_default=True,
              help="The label that must agree: diagnosis, site, or any other.")  # fmt: skip
@click.option("--leave-out", type=click.Choice(["patient", "institution", "slide"]),
              default="patient", show_default=True, help="Whose slides a query may not find.")  # fmt: skip
@click.option("--mode", "modes", type=Several(Mode, list(Mode)), default="auto", show_default=True,
              help="Modes, separated by commas.")  # fmt: skip
@click.option("--ranking", "rankings", type=Several(Ranking, list(Ranking)), default="uncertainty",
              show_default=True, help="Rankings, separated by commas.")  # fmt: skip
@click.option("-k", "ks", type=Several(int), default="1,3,5", show_default=True,
              help="Ranks the measures look at.")  # fmt: skip
@click.option("--patches", is_flag=True,
              help="Ask for every patch by itself (always so with --tiles).")  # fmt: skip
@click.option("--nearest", is_flag=True,
              help="Lift the distance bound: the k nearest count, however far.")  # fmt: skip
@click.option("--max-distance", "bounds", type=Several(int), metavar="LIST", default=(),
              help="Bits two codes may differ in, separated by commas; with --nearest, both.  "
              "[default: the collection's]")  # fmt: skip
@click.option("--max-queries", type=click.IntRange(0), default=0,
              help="Ask for a sample of so many slides.  [default: all]")  # fmt: skip
@click.option("--short-list", type=click.Choice(["published", "missing-wrong", "as-found"]),
              default="published", show_default=True,
              help="What a list shorter than k counts for.")  # fmt: skip
@click.option("--resamples", type=click.IntRange(0), default=1000, show_default=True,
              help="Bootstrap resamples of the intervals.")  # fmt: skip
@click.option("--seed", "rng_seed", type=int, default=0, show_default=True,
              help="Draws sample and intervals.")  # fmt: skip
@click.option("--timeout", "timeout_s", type=click.FloatRange(0, min_open=True), default=60.0, show_default=True,
              help="Seconds for one search.")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), metavar="DIR",
              help="Write evaluation.json, .html and the CSV tables there.")  # fmt: skip
@click.option("--slides-dir", type=click.Path(path_type=Path, file_okay=False, exists=True),
              help="Where the page's pictures of slides come from.")  # fmt: skip
@click.option("--at-least", type=AtLeastType(), multiple=True, metavar="MODE:MEASURE=VALUE",
              help="Exit with 1 when a figure is missed, such as exact:Acc@1=0.92.")  # fmt: skip
@network_options
@cluster_options
def evaluate(collections: tuple[str, ...], **options: Any) -> None:
    """Measure how good the answers of COLLECTIONS are: every slide searched among the others."""
    if not collections and not options["tiles"]:
        raise click.UsageError("name a collection, or give --tiles DIR")
    if options["table"] and not options["tiles"]:
        raise click.UsageError("--table holds the labels of --tiles; give --tiles too")
    settings = settings_of(options)
    with open_cluster(options["router"], options["home"]) as client:
        names = [*collections, *_encoded(client, options)]
        evaluation = _asked(client, names, settings)
        results = _summarised(client, evaluation, wants_speed=options["out"] is not None)
        verdicts = verdicts_of(results[0], options["at_least"])
        if options["out"]:
            _written(client, evaluation, results, verdicts, options)
    _printed(evaluation, results[0], verdicts)
    if not all(holds for _, holds in verdicts):
        raise SystemExit(MISSED)


def settings_of(options: dict[str, Any]) -> EvaluationSettings:
    """Return what the options ask for."""
    from sish_cluster.evaluation.measures import ShortList
    from sish_cluster.evaluation.scores import BootstrapSettings
    from sish_cluster.evaluation.settings import ANY_DISTANCE, EvaluationSettings, LeaveOut

    return EvaluationSettings(
        label_field=options["label_field"],
        leave_out=LeaveOut(options["leave_out"]),
        modes=options["modes"],
        rankings=options["rankings"],
        ks=options["ks"],
        is_by_patch=bool(options["patches"] or options["tiles"]),
        bounds=(*([ANY_DISTANCE] if options["nearest"] else []), *options["bounds"]) or (None,),
        short_list=ShortList(options["short_list"]),
        bootstrap=BootstrapSettings(options["resamples"], rng_seed=options["rng_seed"]),
        max_queries=options["max_queries"],
        rng_seed=options["rng_seed"],
        timeout_s=options["timeout_s"],
    )


def _encoded(client: Client, options: dict[str, Any]) -> list[str]:
    """Return the collection of the tiles, encoded unless it is there; none without tiles."""
    from sish_cluster.cli.tile_collection import tile_collection

    if not options["tiles"]:
        return []
    with bar("encoding tiles") as advance:
        name, failures = tile_collection(
            client, options["tiles"], options["table"], options=options, advance=advance
        )
    if failures:
        console().print(failures_table(failures))
    return [name]


def _asked(client: Client, names: Sequence[str], settings: EvaluationSettings) -> Evaluated:
    from sish_cluster.evaluation.protocol import evaluated

    with bar("searching") as advance:
        return evaluated(
            client, names, settings=settings, watch=lambda _, done, total: advance(done, total)
        )


def _summarised(
    client: Client, evaluation: Evaluated, *, wants_speed: bool
) -> tuple[list[RunSummary], list[SpeedPoint]]:
    from sish_cluster.evaluation.speed import speed_points
    from sish_cluster.evaluation.summary import summaries_of

    speed = speed_points(client, evaluation) if wants_speed else []
    return summaries_of(evaluation), speed


def verdicts_of(
    summaries: Sequence[RunSummary], asked: Sequence[AtLeast]
) -> list[tuple[str, bool]]:
    """Return what was asked with what was found, and whether it holds in every run that is meant.

    ``exact`` means every run of that mode, ``exact nearest`` or ``exact <=128`` those of one bound.
    """
    verdicts = []
    for one in asked:
        runs = [s for s in summaries if one.mode in (s.run.plan.search, s.run.plan.mode)]
        if not runs or one.measure not in runs[0].scores:
            known = ", ".join(summaries[0].scores)
            raise BadRequest(f"--at-least {one}: no run of that mode, or none of: {known}")
        least = min(summary.micro(one.measure) for summary in runs)
        verdicts.append((f"{one}: {least:.3f}", least >= one.least))
    return verdicts


def _written(
    client: Client,
    evaluation: Evaluated,
    results: tuple[list[RunSummary], list[SpeedPoint]],
    verdicts: list[tuple[str, bool]],
    options: dict[str, Any],
) -> None:
    from sish_cluster.evaluation import writing
    from sish_cluster.evaluation.page import page_of

    (summaries, speed), out = results, options["out"]
    about = about_run()
    values = writing.evaluation_as_json(evaluation, summaries, speed, about=about)
    values["asked"] = [{"what": what, "holds": holds} for what, holds in verdicts]
    writing.written_json(out / writing.JSON_NAME, values)
    writing.written(out / writing.QUERIES_NAME, writing.queries_as_csv(evaluation, summaries))
    writing.written(out / writing.CLASSES_NAME, writing.classes_as_csv(summaries))
    contents = _contents(client, evaluation, speed, options)
    page = page_of(evaluation, summaries, dataclasses.replace(contents, verdicts=verdicts))
    path = writing.written(out / writing.PAGE_NAME, page)
    click.echo(f"wrote {path} and its tables", err=True)


def _contents(
    client: Client,
    evaluation: Evaluated,
    speed: Sequence[SpeedPoint],
    options: dict[str, Any],
) -> PageContents:
    from sish_cluster.cli.tile_collection import slide_pictures, tile_pictures
    from sish_cluster.evaluation.maps import map_of
    from sish_cluster.evaluation.montage import examples_of
    from sish_cluster.evaluation.page import PageContents

    maps, examples = {}, {}
    for name, slides in evaluation.slides.items():
        drawn = map_of(client, name, slides, label_field=evaluation.settings.label_field)
        if drawn is not None:
            maps[name] = drawn
    run = next((r for r in evaluation.runs if r.plan.mode is Mode.EXACT), evaluation.runs[0])
    if options["tiles"]:
        picture = tile_pictures(options["tiles"], options["table"])
        examples[str(run.plan)] = examples_of(run, picture)
    elif options["slides_dir"]:
        held = evaluation.slides[run.plan.collection]
        picture = slide_pictures(options["slides_dir"], client, run.plan.collection, held)
        examples[str(run.plan)] = examples_of(run, picture)
    about = [(what, value) for what, value in about_run().items() if what != "python"]
    return PageContents(about=about, speed=speed, maps=maps, examples=examples)


def about_run() -> dict[str, str]:
    """Return what makes figures comparable: command, time, software, machine."""
    import importlib.metadata

    command = ["sish", *(shlex.quote(argument) for argument in sys.argv[1:])]
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return {
        "command": " ".join(command),
        "finished": now,
        "software": f"sish-cluster {importlib.metadata.version('sish-cluster')}",
        "machine": f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores, {platform.system()}",
        "python": platform.python_version(),
    }


def _printed(
    evaluation: Evaluated, summaries: Sequence[RunSummary], verdicts: list[tuple[str, bool]]
) -> None:
    from sish_cluster.evaluation.tables import comparison_of

    settings, out = evaluation.settings, console()
    title = f"{settings.label_field}, {settings.leave_out} left out"
    out.print(rich_table(comparison_of(summaries), title=title))
    failures = [failure for summary in summaries for failure in summary.run.failures]
    if failures:
        out.print(failures_table(failures[:20]))
    for what, why in evaluation.skipped:
        warned(f"{what}: {why}")
    for what, holds in verdicts:
        mark = "[green]holds[/]" if holds else "[bold red]missed[/]"
        out.print(f"{mark} {escape(what)}")


def rich_table(rows: TextTable, *, title: str = "") -> Table:
    """Return a table of text as a terminal shows it."""
    table = Table(title=escape(title) or None, title_justify="left", header_style="bold")
    for number, heading in enumerate(rows.headings):
        table.add_column(escape(heading), justify="right" if number else "left", overflow="fold")
    for row in rows.rows:
        table.add_row(*map(escape, row))
    return table


@contextmanager
def bar(title: str) -> Iterator[Any]:
    """Show a bar on a terminal; yield what advances it: a function of (done, total)."""
    screen = Console(file=sys.stderr, highlight=False)
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn())
    with Progress(*columns, console=screen, disable=not screen.is_terminal) as progress:
        task: TaskID = progress.add_task(title, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
