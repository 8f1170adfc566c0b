"""``sish export``: a collection as published files, as a table, or its searches as ``results.pkl``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from rich.markup import escape

from sish_cluster.cli.options import ExampleCommand, cluster_options, open_cluster
from sish_cluster.cli.output import console
from sish_cluster.cli.progress import SlideBars
from sish_cluster.client import Client, Exclusion
from sish_cluster.core.counting import counted
from sish_cluster.core.errors import BadFilter, BadRequest
from sish_cluster.core.posting import EncodedSlide
from sish_cluster.core.query import Mode
from sish_cluster.core.result import PatchesResult
from sish_cluster.core.slide import Slide

KINDS = ("published", "parquet", "jsonl")
"""What ``--to`` writes."""

EXAMPLES = [
    "sish export demo --to parquet demo.parquet",
    "sish export demo --to published exported/",
    "sish export demo --results results.pkl --leave-out patient",
]
"""A table, files for published tools, searches for the published evaluation."""


@click.command("export", cls=ExampleCommand, examples=EXAMPLES)
@click.argument("collection")
@click.option("--to", "targets", nargs=2, multiple=True, metavar="KIND PATH", type=(click.Choice(KINDS), str),
              help="published DIR, parquet FILE or jsonl FILE; may be repeated.")  # fmt: skip
@click.option("--results", type=click.Path(path_type=Path, dir_okay=False),
              help="Search with every slide as published, and write results.pkl.")  # fmt: skip
@click.option("--leave-out", type=click.Choice(["slide", "patient"]), default="slide",
              show_default=True, help="With --results: whose patches are no candidates of a query.")  # fmt: skip
@click.option("--label", "label_field", default="diagnosis", show_default=True,
              help="With --results: the label of a query; site for organ retrieval.")  # fmt: skip
@cluster_options
def export_files(collection: str, **options: Any) -> None:
    """Write COLLECTION out, slide by slide.

    Published files have no place for latents (they cannot be had back from keys) nor for embeddings; a
    table has everything a collection keeps.
    """
    if not options["targets"] and not options["results"]:
        raise BadRequest("say what to write: --to KIND PATH, or --results FILE")
    with open_cluster(options["router"], options["home"]) as client:
        for kind, path in options["targets"]:
            _told(*_exported(client, collection, kind, Path(path)), path)
            if kind == "published":
                _told_how_to_import(Path(path))
        if options["results"]:
            count = _searched(client, collection, options)
            console().print(
                f"wrote {counted(count, 'search')} to {escape(str(options['results']))}"
            )


def _told(slides: int, postings: int, path: str) -> None:
    console().print(
        f"wrote {counted(slides, 'slide')}, {counted(postings, 'posting')} to {escape(path)}"
    )


def _told_how_to_import(folder: Path) -> None:
    """Say what a published database has no place for, and would be lost without."""
    console().print(
        f"[dim]patients and further labels are in {escape(str(folder / 'labels.csv'))}: to import it again,"
        f" `sish import published --meta {escape(str(folder / 'index_meta' / 'meta.pkl'))} --labels"
        f" {escape(str(folder / 'labels.csv'))}`[/]"
    )


def _exported(client: Client, collection: str, kind: str, path: Path) -> tuple[int, int]:
    """Write the collection; return slides and postings written."""
    definition = client.definition_of(collection)
    ids = sorted(stored.slide.slide_id for stored in client.list_slides(collection))
    with SlideBars("exporting", total=len(ids)) as bars:
        slides = _each(client, collection, ids, bars)
        if kind == "published":
            from sish_cluster.exchange.published_export import PublishedWriter

            writer = PublishedWriter(path, definition)
            for slide in slides:
                writer.write(slide)
            return len(ids), writer.finish()
        from sish_cluster.exchange.table_rows import Heading

        return len(ids), _written_table(kind, path, Heading(definition, len(ids)), slides)


def _written_table(kind: str, path: Path, heading: Any, slides: Iterator[EncodedSlide]) -> int:
    """Write a table under another name first: a file of the name asked for is a whole one."""
    part = path.with_name(path.name + ".part")
    if kind == "parquet":
        from sish_cluster.exchange.parquet_table import write_parquet as write
    else:
        from sish_cluster.exchange.jsonl_table import write_jsonl as write
    count = write(part, heading, slides)
    os.replace(part, path)
    return count


def _each(
    client: Client, collection: str, ids: list[str], bars: SlideBars
) -> Iterator[EncodedSlide]:
    """Yield the stored slides in slide id order."""
    for slide_id in ids:
        yield client.encoded_slide(collection, slide_id)
        bars.done(slide_id, None)


def _searched(client: Client, collection: str, options: dict[str, Any]) -> int:
    from sish_cluster.exchange.results_file import write_results

    ids = sorted(stored.slide.slide_id for stored in client.list_slides(collection))
    with SlideBars("searching", total=len(ids)) as bars:
        slides = _each(client, collection, ids, bars)
        searches = (_search(client, collection, slide, options["leave_out"]) for slide in slides)
        return write_results(options["results"], searches, label_field=options["label_field"])


def _search(
    client: Client, collection: str, query: EncodedSlide, left_out: str
) -> tuple[Slide, PatchesResult]:
    """Return a slide and its candidates as the published search finds them, its own left out."""
    slide = query.slide
    if left_out == "patient" and not slide.patient:
        raise BadFilter(
            f"slide {slide.slide_id!r} has no patient to leave out: give the collection patients, or use"
            " --leave-out slide"
        )
    own = Exclusion.of(slide, patient=left_out == "patient", slide_itself=True)
    found = client.search_patches(collection, query, exclude=own, mode=Mode.SISH, max_candidates=0)
    return slide, found
