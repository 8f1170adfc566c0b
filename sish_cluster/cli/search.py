"""``sish search``: a slide file in, ranked slides out, as a table, JSON or a page."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sish_cluster.cli.options import (
    ExampleCommand,
    cluster_options,
    collection_option,
    encoder_options,
    open_cluster,
    open_encoder,
)
from sish_cluster.cli.output import console, printed_json, result_as_json, results_table, summary_of
from sish_cluster.cli.progress import SlideBars
from sish_cluster.client import Client, Exclusion, filter_of
from sish_cluster.core.cluster import DEFAULT_K
from sish_cluster.core.errors import BadLabels, BadRequest, FingerprintMismatch
from sish_cluster.core.posting import EncodedSlide
from sish_cluster.core.query import Filter, Mode, Query, Ranking, SearchSettings
from sish_cluster.core.result import SearchResult
from sish_cluster.core.slide import Slide
from sish_cluster.local.asking import encoded_query, query_slide, with_known_labels

if TYPE_CHECKING:
    from sish_cluster.report import SlideFile

OWN = "\0own"
"""Stands for ``--exclude-patient`` without a value: the query's own patient. No label contains it."""

EXAMPLES = [
    "sish search query.svs --collection demo",
    "sish search query.svs -c demo -k 10 --exclude-patient P7 --where site=lung",
    'sish search query.svs -c demo --labels labels.csv --exclude-patient --where "stain in (HE,PAS)"',
    "sish search query.svs -c demo --html report.html --slides-dir slides/",
    "sish search query.svs -c demo --router 127.0.0.1:7500 --mode exact --json",
]
"""What people do first, and what each kind of option is for."""


@click.command(cls=ExampleCommand, examples=EXAMPLES)
@click.argument("slide", type=click.Path(path_type=Path))
@collection_option
@click.option("-k", "k", type=click.IntRange(1, 10_000), default=DEFAULT_K, show_default=True,
              help="Most slides.")  # fmt: skip
@click.option("--where", multiple=True, metavar="CONDITION",
              help="Only slides with label=value, label!=value, 'label in (a,b)'; may be repeated.")  # fmt: skip
@click.option("--exclude-patient", multiple=True, is_flag=False, flag_value=OWN, metavar="[PATIENT]",
              help="Leave a patient out; without a value, the query's own.")  # fmt: skip
@click.option("--exclude-institution", multiple=True, is_flag=False, flag_value=OWN,
              metavar="[NAME]", help="Leave an institution out; without a value, the query's own.")  # fmt: skip
@click.option("--exclude-slide", multiple=True, is_flag=False, flag_value=OWN, metavar="[SLIDE]",
              help="Leave a slide out; without a value, the query itself.")  # fmt: skip
@click.option("--mode", type=click.Choice([str(m) for m in Mode]), default=str(Mode.AUTO),
              show_default=True, help="How candidates are found; sish is as published.")  # fmt: skip
@click.option("--ranking", type=click.Choice([str(r) for r in Ranking]), show_default=True,
              default=str(Ranking.UNCERTAINTY), help="How slides are ordered.")  # fmt: skip
@click.option("--max-distance", type=click.IntRange(0), help="Bits two codes may differ in.  "
              "[default: the collection's]")  # fmt: skip
@click.option("--label", "label_field", default="diagnosis", show_default=True,
              help="The label ranking votes on.")  # fmt: skip
@click.option(
    "--allow-partial", is_flag=True, help="Answer without shards that are down; name them."
)
@click.option("--timeout", "timeout_s", type=float, default=30.0, show_default=True,
              help="Seconds for the search itself.")  # fmt: skip
@click.option("--labels", type=click.Path(path_type=Path, dir_okay=False),
              help="Labels table with a row for the query (its patient, diagnosis, mpp).")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the whole answer as JSON.")
@click.option("--html", type=click.Path(path_type=Path, dir_okay=False),
              help="Write a page with thumbnails and matched patches.")  # fmt: skip
@click.option("--slides-dir", type=click.Path(path_type=Path, file_okay=False, exists=True),
              help="Where the pictures of --html come from.")  # fmt: skip
@encoder_options
@cluster_options
def search(slide: Path, **options: Any) -> None:
    """Find the slides of a collection that look like SLIDE."""
    if options["slides_dir"] and not options["html"]:
        raise BadRequest("--slides-dir is for the pictures of --html; give --html FILE too")
    wanted = query_slide(slide, labels=options["labels"], mpp=options["mpp"])
    with open_cluster(options["router"], options["home"]) as client:
        encoded = _encoded(client, wanted, options)
        query = _query_of(client, encoded, options)
        result = client.search(
            options["collection"],
            query,
            k=options["k"],
            ranking=Ranking(options["ranking"]),
            allow_partial=options["allow_partial"],
            timeout_s=options["timeout_s"],
        )
    _printed(encoded.slide, result, as_json=options["as_json"])
    if options["html"]:
        files = _files(slide, encoded.slide, options)
        _report(encoded.slide, query, result, files, options)


def _encoded(client: Client, wanted: Any, options: dict[str, Any]) -> EncodedSlide:
    """Return the query encoded, once its encoder is known to be the collection's."""
    collection = options["collection"]
    definition = client.definition_of(collection)
    with contextlib.closing(open_encoder(options, folder=options["encoder_folder"])) as encoder:
        try:
            definition.check_fingerprint(encoder.description.fingerprint)
        except FingerprintMismatch as error:
            raise FingerprintMismatch(
                f"{error.message} (collection: {definition.encoder or 'unknown'}; this encoder:"
                f" {encoder.description})",
                metadata=error.metadata,
            ) from error
        with SlideBars("encoding the query", total=1) as bars:
            encoded = encoded_query(wanted, encoder, watch=bars.watch)
            bars.done(wanted.slide.slide_id, None)
    return with_known_labels(client, collection, encoded)


def _query_of(client: Client, encoded: EncodedSlide, options: dict[str, Any]) -> Query:
    max_distance = options["max_distance"]
    if max_distance is None:
        max_distance = client.definition_of(options["collection"]).max_distance
    return Query(
        encoded.patches,
        encoded.fingerprint,
        SearchSettings(mode=Mode(options["mode"]), max_distance=max_distance),
        _where(encoded.slide, options),
        label_field=options["label_field"],
        patient=encoded.slide.patient,
    )


def _where(slide: Slide, options: dict[str, Any]) -> Filter:
    given = {name: options[f"exclude_{name}"] for name in ("patient", "institution", "slide")}
    named = Exclusion(
        *(tuple(value for value in values if value != OWN) for values in given.values())
    )
    own = Exclusion.of(
        slide,
        patient=OWN in given["patient"],
        institution=OWN in given["institution"],
        slide_itself=OWN in given["slide"],
    )
    return filter_of(options["where"], named.and_also(own))


def _printed(slide: Slide, result: SearchResult, *, as_json: bool) -> None:
    if as_json:
        printed_json(result_as_json(slide, result))
        return
    out = console()
    out.print(results_table([(slide.slide_id, result)]))
    out.print(summary_of(result))


def _files(path: Path, slide: Slide, options: dict[str, Any]) -> dict[str, SlideFile]:
    """Return where pictures come from: the query's file, and those found in ``--slides-dir``."""
    from sish_cluster.encoder.catalogue import find_slides, matched, read_labels, slide_name
    from sish_cluster.report import SlideFile

    folder, mpp = options["slides_dir"], options["mpp"]
    files: dict[str, SlideFile] = {}
    if folder is not None:
        files = {slide_name(found): SlideFile(found, mpp) for found in find_slides(folder)}
    if folder is not None and options["labels"]:
        with contextlib.suppress(BadLabels):
            entries = matched(folder, read_labels(options["labels"])).entries
            files |= {e.slide.slide_id: SlideFile(e.path, e.mpp or mpp) for e in entries}
    return files | {slide.slide_id: SlideFile(path, slide.mpp or None)}


def _report(
    slide: Slide,
    query: Query,
    result: SearchResult,
    files: dict[str, SlideFile],
    options: dict[str, Any],
) -> None:
    from sish_cluster.report import ReportSettings, Searched, SlideFiles, written_report

    searched = Searched(slide, result, query.settings, query.where)
    settings = ReportSettings(
        title=f"Slides that look like {slide.slide_id}",
        about=[("collection", options["collection"])],
        code_bits=8 * query.patches.code_bytes,
    )
    with SlideFiles(files) as pictures:
        page = written_report(options["html"], [searched], pictures, settings=settings)
    click.echo(f"wrote {page}", err=True)
