"""What a person or a script reads: tables on a terminal, JSON for programs."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from sish_cluster.core.collection import CollectionState
from sish_cluster.core.counting import counted
from sish_cluster.core.embedding import cosine_of
from sish_cluster.core.query import Mode
from sish_cluster.core.result import SearchResult
from sish_cluster.core.slide import Slide

FILE_COLUMNS = 160
"""Columns of output that goes to a file or a pipe: a log keeps whole slide names."""

LEAST_SHARE = 0.005
"""Share of a vote that is printed: less would read 0%."""


def console() -> Console:
    """Return the console of results: standard output, wide enough for a table when it is a file."""
    width = None if sys.stdout.isatty() else FILE_COLUMNS
    return Console(file=sys.stdout, width=width, soft_wrap=False, highlight=False)


def printed_json(value: Any) -> None:
    """Print a value as JSON."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def result_as_json(query: Slide, result: SearchResult) -> dict[str, Any]:
    """Return a search as plain values: everything the answer says."""
    return {
        "query": query.to_dict(),
        **dataclasses.asdict(result),
        "mode": str(result.mode),
        "ranking": str(result.ranking),
        "coverage": result.coverage,
        "results": [
            {**dataclasses.asdict(found), "slide": found.slide.to_dict()}
            for found in result.results
        ],
    }


def results_table(searches: Sequence[tuple[str, SearchResult]], *, title: str = "") -> Table:
    """Return the ranked slides of some searches, (query name, answer) each.

    Coverage stands beside each query's first slide: it belongs to the search, not to a slide. Where no
    slide has the label that was voted on, or the ranking weighs no labels, there is no certainty.
    """
    table = Table(title=title or None, title_justify="left", header_style="bold")
    for heading in ("query", "rank", "slide", "diagnosis", "site"):
        table.add_column(heading, overflow="fold", justify="right" if heading == "rank" else "left")
    for heading in ("certainty", "distance", "matched", "coverage"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, result in searches:
        _add_search(table, name, result)
    return table


def _add_search(table: Table, name: str, result: SearchResult) -> None:
    coverage = f"{result.coverage:.1%}"
    if not result.results:
        why = result.reason or "nothing within the distance bound"
        table.add_row(
            escape(name), "-", f"[dim]no slide: {escape(why)}[/]", "", "", "", "", "", coverage
        )
    for row, found in enumerate(result.results):
        table.add_row(
            "" if row else escape(name),
            str(found.rank),
            escape(found.slide.slide_id),
            escape(found.slide.diagnosis or "-"),
            escape(found.slide.site or "-"),
            f"{found.certainty:.2f}" if result.has_certainty else "-",
            distance_cell(found.distance, result),
            str(len(found.matches)),
            "" if row else coverage,
        )
    table.add_section()


def distance_cell(distance: int, result: SearchResult) -> str:
    """Return a distance as its search means it: bits, or the cosine after a DIRECT search."""
    if result.mode is Mode.DIRECT:
        return f"cos {float(cosine_of(distance)):.3f}"
    return str(distance)


def summary_of(result: SearchResult) -> str:
    """Return the lines under a search's table: the vote, what ran, what is missing."""
    lines = []
    if result.votes:
        shares = sorted(result.votes.items(), key=lambda vote: (-vote[1], vote[0]))
        votes = ", ".join(
            f"{escape(label or 'unknown')} {share:.0%}" for label, share in shares[:5]
        )
        winner = escape(result.predicted_label or "undecided")
        lines.append(f"prediction [bold]{winner}[/]  (votes: {votes})")
    lines.append(
        f"[dim]mode {result.mode}, ranking {result.ranking}: {counted(result.n_query_patches, 'query patch')},"
        f" coverage {result.coverage:.1%} of {counted(result.eligible, 'eligible patch')},"
        f" {result.elapsed_ms:.0f} ms[/]"
    )
    if result.mode_reason:
        lines.append(f"[dim]{escape(result.mode_reason)}[/]")
    if result.missing_shards:
        names = escape(", ".join(result.missing_shards))
        lines.append(f"[yellow]incomplete: no answer from shard {names}[/]")
    return "\n".join(lines)


def failures_table(failures: Sequence[tuple[str, str]]) -> Table:
    """Return slides that failed and why, (slide, what is wrong and what to do) each."""
    title = f"{counted(len(failures), 'slide')} failed"
    table = Table(title=title, title_style="bold red", show_lines=True)
    table.add_column("slide", overflow="fold")
    table.add_column("what is wrong, and what to do", overflow="fold", ratio=1)
    for name, problem in failures:
        table.add_row(escape(name), escape(problem))
    return table


def collections_table(states: Sequence[CollectionState]) -> Table:
    """Return collections with what they hold."""
    table = Table(title="collections", title_justify="left", header_style="bold")
    for heading in ("name", "slides", "patches", "pending", "code bits", "bound"):
        table.add_column(heading, justify="left" if heading == "name" else "right")
    table.add_column("encoder", overflow="fold")
    for state in states:
        definition = state.collection
        counts = (state.slides, state.postings, state.pending)
        table.add_row(
            escape(definition.name),
            *(f"{count:,}" for count in counts),
            str(definition.code_bits),
            str(definition.max_distance),
            escape(definition.encoder or "-"),
        )
    return table


def bytes_text(count: int) -> str:
    """Return bytes as people read them.

    Examples
    --------
    >>> bytes_text(1536), bytes_text(3 << 30)
    ('1.5 KiB', '3.0 GiB')
    """
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
