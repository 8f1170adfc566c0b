"""``sish import``: published files, feature files and tables of postings into a collection."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.markup import escape

from sish_cluster.cli.failures import PARTLY_DONE, REFUSED, warned
from sish_cluster.cli.options import (
    Decorated,
    ExampleCommand,
    cluster_options,
    collection_option,
    open_cluster,
)
from sish_cluster.cli.output import console, failures_table
from sish_cluster.cli.progress import SlideBars
from sish_cluster.client import Client
from sish_cluster.core.code import PUBLISHED_CODE_BITS
from sish_cluster.core.collection import Collection
from sish_cluster.core.counting import counted
from sish_cluster.core.errors import BadRequest, FingerprintMismatch, UnknownCollection
from sish_cluster.core.posting import EncodedSlide
from sish_cluster.local.encoding import SlideFailure

if TYPE_CHECKING:
    from sish_cluster.exchange.codeword_ranks import Ranks
    from sish_cluster.exchange.source import LabelsTable, SlideSource

FOLDER = click.Path(path_type=Path, file_okay=False)
FILE = click.Path(path_type=Path, dir_okay=False)


@click.group("import")
def import_files() -> None:
    """Import files of other programs, or tables that `sish export` wrote.

    The collection is made if it is missing. Slides stored already are left alone, so a command may be
    repeated at any time. Slides that fail are listed at the end, and stop no other: the exit code is
    then 4.
    """


def collection_facts(command: Decorated) -> Decorated:
    """Add ``--labels``, ``--fingerprint`` and ``--max-distance``."""
    labels = click.option("--labels", type=FILE,
                          help="CSV: slide,patient,site,diagnosis[,institution,mpp,...].")  # fmt: skip
    fingerprint = click.option("--fingerprint", metavar="TEXT",
                               help="Fingerprint to import under, where you know the encoder."
                               "  [default: a digest of what the files say]")  # fmt: skip
    bound = click.option("--max-distance", type=click.IntRange(0),
                         help="Default bound of a new collection, bits.  [default: 1/8 of a code]")  # fmt: skip
    return labels(fingerprint(bound(command)))


@import_files.command(
    "published",
    cls=ExampleCommand,
    examples=[
        "sish import published --meta index_meta/meta.pkl -c tcga",
        "sish import published --latent LATENT --codeword-order order.json -c tcga --labels labels.csv",
        "sish import published --meta index_meta/meta.pkl --latent LATENT --patches PATCHES -c tcga",
    ],
)
@click.option("--latent", type=FOLDER, help="LATENT folder: vqvae/*.h5 beside densenet/*.pkl.")
@click.option("--mosaics", type=FOLDER, help="MOSAICS folder: checked against the latents.")
@click.option("--patches", type=FOLDER, help="PATCHES folder: says how large a patch is.")
@click.option("--meta", type=FILE, help="index_meta/meta.pkl: keys, codes and labels come from it.")
@click.option("--codeword-order", type=FILE,
              help="Rank of each codeword, as .json, .npy or codebook_semantic.pt: what keys are computed"
              " with when there is no --meta.")  # fmt: skip
@click.option("--code-bits", type=click.IntRange(1), default=PUBLISHED_CODE_BITS, show_default=True,
              help="Characters of a texture code.")  # fmt: skip
@collection_option
@collection_facts
@cluster_options
def published(**options: Any) -> None:
    """Import what the published SISH pipeline wrote.

    Pickles are read by a reader that builds nothing but plain values; others are refused by name.
    """
    _run(_published_source(options), options)


def _published_source(options: dict[str, Any]) -> SlideSource:
    from sish_cluster.exchange.latent_files import PublishedFolders, latent_source

    latent, meta, order = options["latent"], options["meta"], options["codeword_order"]
    labels = _labels(options["labels"])
    if meta is not None:
        if order is not None:
            raise BadRequest("--meta has the keys already: leave --codeword-order out, or --meta")
        return _meta_source(options, labels)
    if latent is None or order is None:
        raise BadRequest(
            "keys come from --meta FILE, or from --latent DIR with --codeword-order FILE: give one of them"
        )
    folders = PublishedFolders(latent, options["mosaics"], options["patches"])
    return latent_source(folders, _ranks(order), code_bits=options["code_bits"], labels=labels)


def _meta_source(options: dict[str, Any], labels: LabelsTable | None) -> SlideSource:
    from sish_cluster.exchange.h5_files import files_by_stem
    from sish_cluster.exchange.latent_files import COORD_CLEAN, VQVAE
    from sish_cluster.exchange.meta_file import FilesBeside, meta_source

    corners: dict[str, Path] = {}
    if options["mosaics"]:
        corners |= files_by_stem(options["mosaics"], parent=COORD_CLEAN)
    if options["latent"]:
        corners |= files_by_stem(options["latent"], parent=VQVAE)
    patches = files_by_stem(options["patches"]) if options["patches"] else {}
    beside = FilesBeside(corners, patches)
    return meta_source(
        options["meta"], code_bits=options["code_bits"], labels=labels, beside=beside
    )


def _ranks(path: Path) -> Ranks:
    if path.suffix.lower() in (".pt", ".pth"):
        from sish_cluster.encoder.checkpoint import read_ranks

        return read_ranks(path)
    from sish_cluster.exchange.codeword_ranks import read_codeword_ranks

    return read_codeword_ranks(path)


@import_files.command(
    "features",
    cls=ExampleCommand,
    examples=[
        "sish import features --h5 features_uni/ -c uni --keep embeddings --labels labels.csv",
        "sish import features --h5 features/ -c resnet --keep both --describe-encoder 'ResNet-50, 20x'",
    ],
)
@click.option("--h5", "folder", type=FOLDER, required=True,
              help="Folder of *.h5 with features [n, d] and coords [n, 2], as CLAM and TRIDENT write.")  # fmt: skip
@click.option("--keep", type=click.Choice(["embeddings", "codes", "both"]), default="embeddings",
              show_default=True, help="Vectors (mode direct), their codes (mode exact), or both.")  # fmt: skip
@click.option("--describe-encoder", "about", default="",
              help="The extractor in words; features of others are then refused.")  # fmt: skip
@collection_option
@collection_facts
@cluster_options
def features(**options: Any) -> None:
    """Import features of any extractor as embeddings, texture codes, or both."""
    from sish_cluster.exchange.feature_files import Keep, feature_source

    keep, labels = Keep(options["keep"]), _labels(options["labels"])
    _run(
        feature_source(options["folder"], keep=keep, labels=labels, about=options["about"]), options
    )


@import_files.command(
    "tables",
    cls=ExampleCommand,
    examples=["sish import tables --parquet demo.parquet -c copy"],
)
@click.option("--parquet", type=FILE, help="A file that `sish export --to parquet` wrote.")
@click.option("--jsonl", type=FILE, help="A file that `sish export --to jsonl` wrote.")
@collection_option
@cluster_options
def tables(**options: Any) -> None:
    """Import a table of postings, to the bit as it was exported."""
    if bool(options["parquet"]) == bool(options["jsonl"]):
        raise BadRequest("give one table: --parquet FILE or --jsonl FILE")
    if options["parquet"]:
        from sish_cluster.exchange.parquet_table import parquet_source

        source = parquet_source(options["parquet"])
    else:
        from sish_cluster.exchange.jsonl_table import jsonl_source

        source = jsonl_source(options["jsonl"])
    _run(source, options)


def _labels(path: Path | None) -> LabelsTable | None:
    if path is None:
        return None
    from sish_cluster.encoder.catalogue import read_labels

    rows = read_labels(path).rows.items()
    return {name: dataclasses.replace(row.slide, mpp=row.mpp or 0.0) for name, row in rows}


@dataclasses.dataclass(slots=True)
class _Fates:
    """What became of the slides so far."""

    stored: int = 0
    unchanged: int = 0
    failures: list[SlideFailure] = dataclasses.field(default_factory=list)
    without_patient: int = 0


def _run(source: SlideSource, options: dict[str, Any]) -> None:
    """Import a source, show how far it is, and say what was done."""
    from sish_cluster.exchange.source import under_fingerprint

    if options.get("fingerprint"):
        source = under_fingerprint(source, options["fingerprint"])
    fates = _Fates()
    with (
        open_cluster(options["router"], options["home"]) as client,
        SlideBars("importing", total=source.n_slides) as bars,
    ):
        _ensure(client, source, options)
        for outcome in client.ingest(options["collection"], _readable(source, fates, bars)):
            failure = None
            if outcome.error is not None:
                problem = f"read, but not stored: {outcome.error.message}"
                failure = SlideFailure(outcome.slide_id, problem)
                fates.failures.append(failure)
            elif outcome.was_stored:
                fates.unchanged += 1
            else:
                fates.stored += 1
            bars.done(outcome.slide_id, failure)
    _told(fates, options)


def _patients_missing(n_slides: int, options: dict[str, Any]) -> str:
    """Return what slides without a patient mean for searches, and where patients may be had from."""
    remedy = "with --labels CSV, a table with the columns slide and patient"
    if options["labels"] is not None:
        remedy = f"with patients in {options['labels']}"
    elif (beside := _labels_beside(options.get("meta"))) is not None:
        remedy = f"with --labels {beside}, which the export wrote beside it"
    return (
        f"{counted(n_slides, 'slide')} without a patient: no search can leave the other slides of the"
        " query's patient out, so these are found as neighbours and count in votes and certainties;"
        f" import again {remedy}"
    )


def _labels_beside(meta: Path | None) -> Path | None:
    """Return the labels table of an exported folder, of which a database is ``index_meta/meta.pkl``."""
    if meta is None:
        return None
    found = meta.absolute().parents[1] / "labels.csv"
    return found if found.is_file() else None


def _ensure(client: Client, source: SlideSource, options: dict[str, Any]) -> None:
    """Make the collection if it is missing, else check its fingerprint."""
    wanted = dataclasses.replace(source.collection, name=options["collection"])
    if options.get("max_distance") is not None:
        wanted = dataclasses.replace(wanted, max_distance=options["max_distance"])
    try:
        held = client.definition_of(wanted.name)
    except UnknownCollection:
        client.create_collection(wanted)
        return
    if held.fingerprint != wanted.fingerprint:
        remedy = "import them into a new collection"
        if "fingerprint" in options:  # a table says its own
            remedy += (
                ", or, where you know that one encoder made both, add"
                f" --fingerprint {held.fingerprint}"
            )
        raise FingerprintMismatch(
            f"collection {held.name!r} holds {_told_of(held)}; these files are {_told_of(wanted)}: {remedy}",
            metadata={"expected": held.fingerprint, "found": wanted.fingerprint},
        )


def _told_of(definition: Collection) -> str:
    """Return what made a collection's postings, and how long they are."""
    kept = []
    if definition.code_bits:
        kept.append(f"codes of {definition.code_bits} bits")
    if definition.dimensions:
        kept.append(f"embeddings of {definition.dimensions} numbers")
    made = definition.encoder or "postings of an encoder nobody described"
    return f"{made} ({' and '.join(kept)}, fingerprint {definition.fingerprint})"


def _readable(source: SlideSource, fates: _Fates, bars: SlideBars) -> Iterator[EncodedSlide]:
    """Yield the slides that could be read; keep and show the others."""
    for slide in source.slides:
        if isinstance(slide, EncodedSlide):
            fates.without_patient += not slide.slide.patient
            yield slide
        else:
            failure = SlideFailure(slide.slide_id, slide.problem)
            fates.failures.append(failure)
            bars.done(slide.slide_id, failure)


def _told(fates: _Fates, options: dict[str, Any]) -> None:
    """Print what was done; end with the exit code of a part or of nothing."""
    out = console()
    out.print(
        f"collection [bold]{escape(options['collection'])}[/]: {counted(fates.stored, 'slide')} stored,"
        f" {fates.unchanged} unchanged, {len(fates.failures)} failed"
    )
    if "labels" in options and fates.without_patient:  # a table brings its own
        warned(_patients_missing(fates.without_patient, options))
    if fates.failures:
        rows = [(failure.slide_id, failure.problem) for failure in fates.failures]
        out.print(failures_table(rows))
        raise SystemExit(PARTLY_DONE if fates.stored + fates.unchanged else REFUSED)
