"""``sish collection``: create, list, describe, forget a slide."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path
from typing import Any

import click
from rich.markup import escape
from rich.table import Table

from sish_cluster.cli.networks import encoder_settings, network_options
from sish_cluster.cli.options import ExampleCommand, cluster_options, open_cluster
from sish_cluster.cli.output import collections_table, console, printed_json
from sish_cluster.core.collection import (
    Collection,
    CollectionState,
    default_max_distance,
)
from sish_cluster.core.counting import counted
from sish_cluster.core.errors import BadRequest

MOST_VALUES = 8
"""Values of a label that a description prints; the rest is counted."""


@click.group()
def collection() -> None:
    """Create, list and describe collections; forget slides."""


@collection.command(
    "create",
    cls=ExampleCommand,
    examples=[
        "sish collection create demo --fingerprint 9f0c... --code-bits 1024",
        "sish collection create features --fingerprint ctranspath --dimensions 768 --no-keys",
        "sish collection create demo --profile compact --router 127.0.0.1:7500",
    ],
)
@click.argument("name")
@click.option("--fingerprint", help="Encoder fingerprint; without one, this machine's encoder's.")
@click.option("--code-bits", type=click.IntRange(0), default=0,
              help="Bits of a code; with --fingerprint. 0: no codes.")  # fmt: skip
@click.option("--dimensions", type=click.IntRange(0), default=0,
              help="Numbers of an embedding; with --fingerprint. 0: no embeddings.")  # fmt: skip
@click.option("--keep", type=click.Choice(["codes", "embeddings", "both"]),
              help="What of this machine's encoder.  [default: codes; embeddings without a key network]")  # fmt: skip
@click.option("--no-keys", is_flag=True,
              help="Keys are no encoder's: searched in modes exact and direct only.")  # fmt: skip
@click.option(
    "--max-distance",
    type=int,
    help="Default bound, bits.  [default: of 1024, 128 published, 192 compact]",
)
@click.option("--describe-encoder", "about", default="", help="One line about the encoder.")
@network_options
@cluster_options
def create(name: str, router: str | None, home: Path | None, **options: Any) -> None:
    """Create an empty collection (`sish index` creates it by itself)."""
    made = _definition(name, options)
    with open_cluster(router, home) as client:
        was_created = client.create_collection(made)
    verb = "created" if was_created else "was there already, and equal:"
    console().print(f"{verb} collection [bold]{escape(name)}[/] (fingerprint {made.fingerprint})")


def _definition(name: str, options: dict[str, Any]) -> Collection:
    """Return the collection that is asked for: of a named encoder, or of this machine's."""
    described = ("code_bits", "dimensions", "no_keys")
    if not options["fingerprint"]:
        if any(options[option] for option in described):
            raise BadRequest(
                "--code-bits, --dimensions and --no-keys describe another encoder: give its"
                " --fingerprint too",
                field="fingerprint",
            )
        return _of_own_encoder(name, options)
    code_bits, dimensions, lacks_keys = (options[option] for option in described)
    if options["keep"] or not (code_bits or dimensions):
        raise BadRequest(
            "--fingerprint needs --code-bits, --dimensions or both, which say what is kept, and no"
            " --keep",
            field="code_bits",
        )
    bound = options["max_distance"]
    if bound is None:
        bound = default_max_distance(options["profile"] or "compact", code_bits)
    return Collection(
        name,
        options["fingerprint"],
        code_bits,
        bound,
        options["about"],
        dimensions,
        has_keys=not lacks_keys,
    )


def _of_own_encoder(name: str, options: dict[str, Any]) -> Collection:
    from sish_cluster.local.encoding import LocalEncoder
    from sish_cluster.local.keeping import Keep, collection_of, usual_keep

    encoder = LocalEncoder(encoder_settings(options)).description
    keep = Keep(options["keep"]) if options["keep"] else usual_keep(encoder)
    made = collection_of(name, encoder, keep)
    given = {"max_distance": options["max_distance"], "encoder": options["about"] or None}
    return dataclasses.replace(
        made, **{field: value for field, value in given.items() if value is not None}
    )


@collection.command("list", cls=ExampleCommand, examples=["sish collection list --json"])
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@cluster_options
def list_collections(as_json: bool, router: str | None, home: Path | None) -> None:
    """List the collections with what they hold."""
    with open_cluster(router, home) as client:
        names = [found.name for found in client.list_collections()]
        states = [client.describe_collection(name) for name in names]
    if as_json:
        printed_json([state_as_json(state) for state in states])
    elif states:
        console().print(collections_table(states))
    else:
        console().print("no collections yet: `sish index SLIDES_DIR --collection NAME` makes one")


@collection.command(
    "describe",
    cls=ExampleCommand,
    examples=["sish collection describe demo", "sish collection describe demo --slides --json"],
)
@click.argument("name")
@click.option("--slides", "with_slides", is_flag=True, help="List every slide too.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@cluster_options
def describe(
    name: str, with_slides: bool, as_json: bool, router: str | None, home: Path | None
) -> None:
    """Describe a collection: its encoder, its slides by label."""
    with open_cluster(router, home) as client:
        state = client.describe_collection(name)
        slides = [stored.slide for stored in client.list_slides(name)] if with_slides else []
    if as_json:
        printed_json({**state_as_json(state), "slide_list": [s.to_dict() for s in slides]})
        return
    out = console()
    out.print(collections_table([state]))
    out.print(f"fingerprint {state.collection.fingerprint}")
    out.print(f"keeps {_kept(state.collection)}; modes {', '.join(state.collection.modes)}")
    for label, counts in sorted(state.label_counts.items()):
        out.print(f"[bold]{escape(label)}[/]: {escape(_counted(Counter(counts)))}")
    if slides:
        table = Table("slide", "diagnosis", "site", "patient", "institution", title_justify="left")
        for slide in slides:
            values = (slide.slide_id, slide.diagnosis, slide.site, slide.patient, slide.institution)
            table.add_row(*(escape(value or "-") for value in values))
        out.print(table)


def _kept(definition: Collection) -> str:
    """Return what a posting holds, for people."""
    kept = ["keys"] if definition.has_keys else []
    if definition.code_bits:
        kept.append(f"codes of {definition.code_bits} bits")
    if definition.dimensions:
        kept.append(f"embeddings of {definition.dimensions} numbers")
    return ", ".join(kept)


def _counted(counts: Counter[str]) -> str:
    shown = [f"{value or 'unknown'} {n}" for value, n in counts.most_common(MOST_VALUES)]
    more = len(counts) - len(shown)
    return ", ".join(shown) + (f", and {more} more" if more > 0 else "")


def state_as_json(state: CollectionState) -> dict[str, object]:
    """Return a collection's state as plain values."""
    definition = state.collection
    return {
        "name": definition.name,
        "fingerprint": definition.fingerprint,
        "code_bits": definition.code_bits,
        "dimensions": definition.dimensions,
        "has_keys": definition.has_keys,
        "modes": [str(mode) for mode in definition.modes],
        "max_distance": definition.max_distance,
        "encoder": definition.encoder,
        "slides": state.slides,
        "postings": state.postings,
        "pending": state.pending,
        "label_counts": {name: dict(counts) for name, counts in state.label_counts.items()},
    }


@collection.command(
    "forget-slide",
    cls=ExampleCommand,
    examples=["sish collection forget-slide demo TCGA-05-4244-01Z-00-DX1"],
)
@click.argument("name")
@click.argument("slide_ids", nargs=-1, required=True)
@cluster_options
def forget_slide(
    name: str, slide_ids: tuple[str, ...], router: str | None, home: Path | None
) -> None:
    """Remove slides and all their patches, on every shard."""
    with open_cluster(router, home) as client:
        for slide_id in slide_ids:
            outcome = client.forget(name, slide_id)
            console().print(
                f"forgot {escape(slide_id)}: {counted(outcome.postings, 'patch')} removed"
            )
