"""A folder of slides into a collection: what is new is encoded and stored, what is there is left alone.

The collection's fingerprint is compared before a single patch is encoded; every slide that fails is named
with its cause, and stops no other.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from sish_cluster.client import Client, EncoderDescription, check_encoder
from sish_cluster.core.collection import Collection
from sish_cluster.core.errors import SishError, UnknownCollection
from sish_cluster.core.posting import EncodedSlide
from sish_cluster.core.slide import Slide
from sish_cluster.local.encoding import (
    SlideEncoder,
    SlideFailure,
    SlideToEncode,
    Watch,
    unwatched,
)
from sish_cluster.local.keeping import Keep, check_keep, collection_of, kept, usual_keep


@dataclasses.dataclass(frozen=True, slots=True)
class FolderContents:
    """The slides of a folder, and what is wrong with the rest.

    Parameters
    ----------
    slides
        Slides with their labels.
    failures
        Files without labels, labels without a file, and why.
    """

    slides: Sequence[SlideToEncode]
    failures: Sequence[SlideFailure]


@dataclasses.dataclass(frozen=True, slots=True)
class IndexReport:
    """What an indexing did.

    Parameters
    ----------
    stored
        Slides encoded and stored now.
    unchanged
        Slide ids that were stored already, with the same content, encoder and labels.
    failures
        Slides that failed, and why.
    """

    stored: Sequence[Slide]
    unchanged: Sequence[str]
    failures: Sequence[SlideFailure]


def folder_contents(
    slides_dir: Path, labels: Path | None = None, *, mpp: float | None = None
) -> FolderContents:
    """Return a folder's slides with their labels.

    Parameters
    ----------
    slides_dir
        Searched with its subfolders.
    labels
        CSV with the columns slide, patient, site, diagnosis and others; None reads labels from
        SISH's folder layout.
    mpp
        Micrometres per level-0 pixel of slides for which neither the table nor the file says it.

    Raises
    ------
    BadSlide, BadLabels
        If the folder or the table cannot be read.
    """
    from sish_cluster.encoder.catalogue import matched, read_labels

    catalogue = matched(slides_dir, None if labels is None else read_labels(labels))
    return FolderContents(
        [SlideToEncode(e.path, e.slide, e.mpp or mpp) for e in catalogue.entries],
        [SlideFailure(name, problem) for name, problem in catalogue.problems],
    )


def ensured_collection(
    client: Client, name: str, encoder: EncoderDescription, *, keep: Keep | None = None
) -> Collection:
    """Make the collection if it is missing, else check that it is this encoder's; return it.

    Parameters
    ----------
    keep
        What it keeps; None for what it keeps already, or for what is usual for the encoder.

    Raises
    ------
    FingerprintMismatch
        If it belongs to another encoder.
    BadRequest
        If it keeps something else.
    """
    try:
        found = client.definition_of(name)
    except UnknownCollection:
        client.create_collection(collection_of(name, encoder, keep or usual_keep(encoder)))
        return client.definition_of(name)
    check_encoder(found, encoder)
    check_keep(found, keep)
    return found


def indexed(
    client: Client,
    collection: str,
    slides: Sequence[SlideToEncode],
    encoder: SlideEncoder,
    *,
    keep: Keep | None = None,
    watch: Watch = unwatched,
    on_done: Callable[[str, SlideFailure | None], None] = lambda slide_id, failure: None,
) -> IndexReport:
    """Encode and store what the collection does not have yet.

    Parameters
    ----------
    client
        The cluster.
    collection
        Where to; made if it is missing.
    slides
        What it is to hold.
    encoder
        Who encodes.
    keep
        What a new collection keeps; see `ensured_collection`.
    watch
        Told how far each slide is.
    on_done
        Called with each slide id once its fate is known: None when it is stored.

    Raises
    ------
    FingerprintMismatch
        Before anything is encoded, if the collection belongs to another encoder.
    """
    definition = ensured_collection(client, collection, encoder.description, keep=keep)
    unchanged = _unchanged(client, collection, slides)
    for slide_id in unchanged:
        on_done(slide_id, None)
    new = [slide for slide in slides if slide.slide.slide_id not in set(unchanged)]
    stored: list[Slide] = []
    failures: list[SlideFailure] = []
    wants_embeddings = definition.dimensions > 0
    encoding = encoder.encoded(new, watch=watch, wants_embeddings=wants_embeddings)
    with contextlib.closing(encoding) as outcomes:
        for outcome in outcomes:
            fate = _stored(client, definition, outcome)
            if isinstance(fate, Slide):
                stored.append(fate)
                on_done(fate.slide_id, None)
            else:
                failures.append(fate)
                on_done(fate.slide_id, fate)
    return IndexReport(stored, unchanged, failures)


def _stored(
    client: Client, collection: Collection, outcome: EncodedSlide | SlideFailure
) -> Slide | SlideFailure:
    if isinstance(outcome, SlideFailure):
        return outcome
    try:
        client.ingest_slide(collection.name, kept(outcome, collection))
    except SishError as error:
        return SlideFailure(outcome.slide.slide_id, f"encoded, but not stored: {error.message}")
    return outcome.slide


def _unchanged(client: Client, collection: str, slides: Iterable[SlideToEncode]) -> list[str]:
    """Return the ids of slides stored with the same labels, mpp and file content."""
    held = {stored.slide.slide_id: stored.slide for stored in client.list_slides(collection)}
    return [
        wanted.slide.slide_id
        for wanted in slides
        if (found := held.get(wanted.slide.slide_id)) is not None and _is_same(wanted, found)
    ]


def _is_same(wanted: SlideToEncode, found: Slide) -> bool:
    own = dataclasses.replace(
        wanted.slide,
        mpp=found.mpp,
        width_px=found.width_px,
        height_px=found.height_px,
        patch_side_px=found.patch_side_px,
        digest=found.digest,
    )
    return own == found and _content_of(wanted) == (found.digest, found.mpp)


def _content_of(slide: SlideToEncode) -> tuple[str, float]:
    """Return a file's digest and mpp; ("", 0) when it cannot be read here: then the encoder decides."""
    try:
        from sish_cluster.encoder.slide import open_slide

        with open_slide(slide.path, mpp=slide.mpp) as reader:
            return reader.digest, reader.mpp
    except (SishError, ModuleNotFoundError):
        return "", 0.0
