"""``sish index``: a folder of slides into a collection."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import click
from rich.markup import escape

from sish_cluster.cli.failures import PARTLY_DONE, REFUSED
from sish_cluster.cli.options import (
    ExampleCommand,
    actor_options,
    cluster_options,
    collection_option,
    encoder_options,
    open_cluster,
    open_encoder,
)
from sish_cluster.cli.output import console, failures_table
from sish_cluster.cli.progress import SlideBars
from sish_cluster.core.counting import counted
from sish_cluster.core.errors import BadSlide
from sish_cluster.local.indexing import FolderContents, IndexReport, folder_contents, indexed
from sish_cluster.local.keeping import Keep

EXAMPLES = [
    "sish index slides/ --labels labels.csv --collection demo",
    "sish index slides/ --labels labels.csv -c demo --no-ray --mpp 0.5",
    "sish index slides/ --labels labels.csv -c demo --router 127.0.0.1:7500 --ray 10.0.0.1:6379",
    "sish index slides/ --labels labels.csv -c demo --encoder 127.0.0.1:7600",
    "sish index slides/ --labels labels.csv -c features --embedder retccl --weights best_ckpt.pth",
]
"""One machine, without Ray, a cluster with Ray, a cluster with an encoder service, another method."""


@click.command(cls=ExampleCommand, examples=EXAMPLES)
@click.argument("slides_dir", type=click.Path(path_type=Path, file_okay=False))
@click.option("--labels", type=click.Path(path_type=Path, dir_okay=False),
              help="CSV: slide,patient,site,diagnosis[,institution,mpp,file,...]; without one, folders"
              " SITE/DIAGNOSIS/20x/ are the labels.")  # fmt: skip
@collection_option
@click.option("--no-ray", is_flag=True, help="Encode in this process, without Ray.")
@click.option("--ray", "ray_address", metavar="ADDRESS", help="A running Ray cluster to use.")
@actor_options
@click.option("--keep", type=click.Choice([str(keep) for keep in Keep]),
              help="What a new collection keeps of each patch: codes (sish, guided, exact searches),"
              " embeddings (direct searches) or both.  [default: codes; embeddings without keys]")  # fmt: skip
@encoder_options
@cluster_options
def index(slides_dir: Path, **options: Any) -> None:
    """Encode the slides of SLIDES_DIR into a collection.

    The collection is made if it is missing. Slides stored already, with the same content, encoder and
    labels, are left alone, so the command may be repeated at any time. Slides that fail are listed at
    the end, and stop no other: the exit code is then 4.
    """
    contents = folder_contents(slides_dir, options["labels"], mpp=options["mpp"])
    if not contents.slides and not contents.failures:
        raise BadSlide(f"{slides_dir}: holds no slides (svs, tif, ndpi, mrxs, dcm, png ...)")
    options["use_ray"] = not options["no_ray"]
    with (
        open_cluster(options["router"], options["home"]) as client,
        contextlib.closing(open_encoder(options, folder=slides_dir)) as encoder,
        SlideBars("indexing", total=len(contents.slides)) as bars,
    ):
        report = indexed(
            client,
            options["collection"],
            contents.slides,
            encoder,
            keep=None if options["keep"] is None else Keep(options["keep"]),
            watch=bars.watch,
            on_done=bars.done,
        )
    _told(options["collection"], contents, report)


def _told(collection: str, contents: FolderContents, report: IndexReport) -> None:
    """Print what was done; end with the exit code of a part or of nothing."""
    out = console()
    failures = [*contents.failures, *report.failures]
    done = len(report.stored) + len(report.unchanged)
    out.print(
        f"collection [bold]{escape(collection)}[/]: {counted(len(report.stored), 'slide')} stored,"
        f" {len(report.unchanged)} unchanged, {len(failures)} failed"
    )
    if failures:
        out.print(failures_table([(failure.slide_id, failure.problem) for failure in failures]))
        raise SystemExit(PARTLY_DONE if done else REFUSED)
