"""``sish search``: slides in (or a part of one), ranked slides out, as a table, JSON or a page."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sish_cluster.cli.failures import warned
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
from sish_cluster.cli.recall import recall_warning
from sish_cluster.client import (
    Client,
    Exclusion,
    case_query,
    case_sources,
    check_encoder,
    filter_of,
    unknown_in_filter,
    unknown_label,
)
from sish_cluster.core.cluster import DEFAULT_K
from sish_cluster.core.collection import Collection
from sish_cluster.core.counting import listed
from sish_cluster.core.errors import BadLabels, BadRequest, SishError
from sish_cluster.core.posting import EncodedSlide
from sish_cluster.core.query import Filter, Mode, Query, Ranking
from sish_cluster.core.result import SearchResult
from sish_cluster.local.asking import (
    case_slide,
    encoded_case,
    query_region,
    query_slide,
    with_known_labels,
)
from sish_cluster.local.encoding import SlideToEncode
from sish_cluster.local.keeping import kept

if TYPE_CHECKING:
    from sish_cluster.encoder.region import Region
    from sish_cluster.report import SlideFile

OWN = "\0own"
"""Stands for ``--exclude-patient`` without a value: the query's own patient. No label contains it."""

MOST_LEFT_OUT = 5
"""Features of a region's file a warning lists; more are counted."""

DEFAULT_LABEL = "diagnosis"
"""What ranking votes on unless asked for another label; a collection without it is answered, unlabelled."""

EXAMPLES = [
    "sish search query.svs --collection demo",
    "sish search query.svs -c demo -k 10 --exclude-patient P7 --where site=lung",
    'sish search query.svs -c demo --labels labels.csv --exclude-patient --where "stain in (HE,PAS)"',
    "sish search query.svs -c demo --region annotation.geojson --html report.html --slides-dir slides/",
    "sish search block-1.svs block-2.svs -c demo --exclude-patient",
    "sish search --slide-id stored-slide -c demo --exclude-slide",
    "sish search query.svs -c features --embedder retccl --weights best_ckpt.pth --ranking retccl",
    "sish search query.svs -c demo --router 127.0.0.1:7500 --mode exact --json",
]
"""What people do first, and what each kind of option is for."""


@click.command(cls=ExampleCommand, examples=EXAMPLES)
@click.argument("slides", type=click.Path(path_type=Path), nargs=-1)
@click.option("--slide-id", "slide_ids", multiple=True, metavar="ID",
              help="A slide that is in the collection, as it is stored; may be repeated.")  # fmt: skip
@click.option("--rectangle", metavar="X,Y,WIDTH,HEIGHT",
              help="Only this part of the slide, level-0 pixels.")  # fmt: skip
@click.option("--region", type=click.Path(path_type=Path, dir_okay=False),
              help="Only the polygons of this GeoJSON file, level-0 pixels (QuPath's export).")  # fmt: skip
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
@click.option("--min-cosine", type=click.FloatRange(-1, 1),
              help="Least cosine of a patch in mode direct.  [default: 0.7]")  # fmt: skip
@click.option("--label", "label_field", default=DEFAULT_LABEL, show_default=True,
              help="The label ranking votes on.")  # fmt: skip
@click.option(
    "--allow-partial", is_flag=True, help="Answer without shards that are down; name them."
)
@click.option("--timeout", "timeout_s", type=click.FloatRange(0, min_open=True), default=30.0, show_default=True,
              help="Seconds for the search itself.")  # fmt: skip
@click.option("--labels", type=click.Path(path_type=Path, dir_okay=False),
              help="Labels table with a row for the query (its patient, diagnosis, mpp).")  # fmt: skip
@click.option("--calibration", type=click.Path(path_type=Path, dir_okay=False, exists=True),
              help="A file of `sish calibrate`, to warn by.  [default: beside the embedded cluster]")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the whole answer as JSON.")
@click.option("--html", type=click.Path(path_type=Path, dir_okay=False),
              help="Write a page with thumbnails and matched patches.")  # fmt: skip
@click.option("--slides-dir", type=click.Path(path_type=Path, file_okay=False, exists=True),
              help="Where the pictures of --html come from.")  # fmt: skip
@encoder_options
@cluster_options
def search(slides: Sequence[Path], **options: Any) -> None:
    """Find the slides of a collection that look like SLIDES.

    Several slides (of one case) are asked about as one query; a part of one slide with --rectangle or
    --region; slides stored already with --slide-id.
    """
    _check(slides, options)
    region = query_region(rectangle=options["rectangle"], file=options["region"])
    wanted = [
        query_slide(slide, labels=options["labels"], mpp=options["mpp"], region=region)
        for slide in slides
    ]
    with open_cluster(options["router"], options["home"]) as client:
        parts = _parts(client, wanted, options)
        query = _query_of(client, parts, options)
        result = client.search(
            options["collection"],
            query,
            k=options["k"],
            ranking=Ranking(options["ranking"]),
            allow_partial=options["allow_partial"],
            timeout_s=options["timeout_s"],
        )
        doubts = [
            left_out_warning(region),
            *_unknown(client, options),
            recall_warning(query, result, options),
        ]
    _printed(parts, result, as_json=options["as_json"])
    for doubt in filter(None, doubts):
        warned(doubt)
    if options["html"]:
        _report(parts, query, result, _files(slides, parts, options), options)


def left_out_warning(region: Region | None) -> str | None:
    """Return what of a region's file is not asked about, or None."""
    if region is None or not region.left_out:
        return None
    told = listed(region.left_out, most=MOST_LEFT_OUT)
    return f"{region.source}: only polygons are asked about; left out: {told}"


def _check(slides: Sequence[Path], options: dict[str, Any]) -> None:
    """Refuse options that contradict each other, before anything is read."""
    if not slides and not options["slide_ids"]:
        raise BadRequest("name a slide file to search with, or a stored slide with --slide-id")
    has_region = options["rectangle"] or options["region"]
    if has_region and (len(slides) != 1 or options["slide_ids"]):
        raise BadRequest(
            "--rectangle and --region are a part of one slide file; give exactly one SLIDE and no --slide-id"
        )
    if options["slides_dir"] and not options["html"]:
        raise BadRequest("--slides-dir is for the pictures of --html; give --html FILE too")


def _parts(
    client: Client, wanted: Sequence[SlideToEncode], options: dict[str, Any]
) -> list[EncodedSlide]:
    """Return the query's slides: files encoded, stored slides read back."""
    collection = options["collection"]
    definition = client.definition_of(collection)
    definition.check_mode(Mode(options["mode"]))
    parts = [client.encoded_slide(collection, slide_id) for slide_id in options["slide_ids"]]
    if wanted:
        encoded = _encoded(definition, wanted, options)
        parts = [*(with_known_labels(client, collection, part) for part in encoded), *parts]
    if _is_direct(definition, options):
        return parts
    return [dataclasses.replace(p, patches=p.patches.without_embeddings()) for p in parts]


def _encoded(
    definition: Collection, wanted: Sequence[SlideToEncode], options: dict[str, Any]
) -> list[EncodedSlide]:
    """Return the query's files encoded, once their encoder is known to be the collection's."""
    with contextlib.closing(open_encoder(options, folder=options["encoder_folder"])) as encoder:
        check_encoder(definition, encoder.description)
        is_direct = _is_direct(definition, options)
        with SlideBars("encoding the query", total=len(wanted)) as bars:
            parts = encoded_case(wanted, encoder, watch=bars.watch, wants_embeddings=is_direct)
            for part in parts:
                bars.done(part.slide.slide_id, None)
    return [kept(part, definition) for part in parts]


def _is_direct(definition: Collection, options: dict[str, Any]) -> bool:
    """Whether the search compares embeddings."""
    return options["mode"] == str(Mode.DIRECT) or not definition.code_bits


def _query_of(client: Client, parts: Sequence[EncodedSlide], options: dict[str, Any]) -> Query:
    query = case_query(client.definition_of(options["collection"]), parts)
    bounds = {name: options[name] for name in ("max_distance", "min_cosine")}
    settings = dataclasses.replace(
        query.settings,
        mode=Mode(options["mode"]),
        **{name: value for name, value in bounds.items() if value is not None},
    )
    return dataclasses.replace(
        query, settings=settings, where=_where(parts, options), label_field=options["label_field"]
    )


def _unknown(client: Client, options: dict[str, Any]) -> list[str]:
    """Return what was named, on the command line, that no slide of the collection has."""
    where = filter_of(options["where"], _named_exclusion(options))
    has_usual_label = options["label_field"] == DEFAULT_LABEL
    if has_usual_label and where == Filter():
        return []
    try:
        state = client.describe_collection(options["collection"], timeout_s=options["timeout_s"])
    except SishError:  # A help, not a need: the answer is there.
        return []
    votes = [] if has_usual_label else unknown_label(options["label_field"], state)
    return [*unknown_in_filter(where, state), *votes]


def _named_exclusion(options: dict[str, Any]) -> Exclusion:
    given = (options[f"exclude_{name}"] for name in ("patient", "institution", "slide"))
    return Exclusion(*(tuple(value for value in values if value != OWN) for values in given))


def _where(parts: Sequence[EncodedSlide], options: dict[str, Any]) -> Filter:
    given = {name: options[f"exclude_{name}"] for name in ("patient", "institution", "slide")}
    own = Exclusion.of_case(
        [part.slide for part in parts],
        patient=OWN in given["patient"],
        institution=OWN in given["institution"],
        slide_itself=OWN in given["slide"],
    )
    return filter_of(options["where"], _named_exclusion(options).and_also(own))


def _printed(parts: Sequence[EncodedSlide], result: SearchResult, *, as_json: bool) -> None:
    slide = case_slide(parts)
    if as_json:
        answer = result_as_json(slide, result)
        if len(parts) > 1:
            answer["parts"] = [part.slide.to_dict() for part in parts]
            answer["query_patches"] = [list(source) for source in case_sources(parts)]
        printed_json(answer)
        return
    out = console()
    out.print(results_table([(slide.slide_id, result)]))
    out.print(summary_of(result))


def _files(
    paths: Sequence[Path], parts: Sequence[EncodedSlide], options: dict[str, Any]
) -> dict[str, SlideFile]:
    """Return where pictures come from: the query's files, and those found in ``--slides-dir``."""
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
    own = zip(parts, paths, strict=False)  # stored slides come after those of files
    return files | {p.slide.slide_id: SlideFile(path, p.slide.mpp or None) for p, path in own}


def _report(
    parts: Sequence[EncodedSlide],
    query: Query,
    result: SearchResult,
    files: dict[str, SlideFile],
    options: dict[str, Any],
) -> None:
    from sish_cluster.report import QueryPart, ReportSettings, Searched, SlideFiles, written_report

    of_case = [QueryPart(part.slide, len(part.patches)) for part in parts]
    searched = Searched(
        case_slide(parts),
        result,
        query.settings,
        query.where,
        note=recall_warning(query, result, options),
        parts=of_case if of_case[1:] else (),
    )
    settings = ReportSettings(
        title=f"Slides that look like {searched.slide.slide_id}",
        about=[("collection", options["collection"])],
        code_bits=8 * query.patches.code_bytes,
    )
    with SlideFiles(files) as pictures:
        page = written_report(options["html"], [searched], pictures, settings=settings)
    click.echo(f"wrote {page}", err=True)
