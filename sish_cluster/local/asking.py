"""A file as a query: encoded like an indexed slide, with the labels somebody gave it."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path

from sish_cluster.client import Client
from sish_cluster.core.errors import BadLabels, BadSlide, Unavailable
from sish_cluster.core.posting import EncodedSlide
from sish_cluster.core.slide import Slide
from sish_cluster.local.encoding import SlideEncoder, SlideToEncode, Watch, unwatched


def query_slide(
    path: Path, *, labels: Path | None = None, mpp: float | None = None
) -> SlideToEncode:
    """Return a query file with its labels.

    Parameters
    ----------
    path
        The slide's file.
    labels
        A labels table with a row for it; None for no labels.
    mpp
        Micrometres per level-0 pixel where neither the table nor the file says it.

    Raises
    ------
    BadSlide
        If there is no such file.
    BadLabels
        If the table has no row for it.
    """
    from sish_cluster.encoder.catalogue import read_labels, slide_name

    if not path.exists():
        raise BadSlide(f"{path}: there is no such file; check the path of the query slide")
    name = slide_name(path)
    if labels is None:
        return SlideToEncode(path, Slide(name), mpp)
    rows = read_labels(labels).rows
    row = rows.get(name) or rows.get(path.name)
    if row is None:
        raise BadLabels(
            f"{labels}: has no row for slide {name!r}; add one, or search without --labels"
        )
    return SlideToEncode(path, row.slide, row.mpp or mpp)


def encoded_query(
    slide: SlideToEncode, encoder: SlideEncoder, *, watch: Watch = unwatched
) -> EncodedSlide:
    """Return the query, encoded.

    Raises
    ------
    BadSlide
        If it cannot be.
    """
    with contextlib.closing(encoder.encoded([slide], watch=watch)) as outcomes:
        outcome = next(outcomes)
    if isinstance(outcome, EncodedSlide):
        return outcome
    raise BadSlide(outcome.problem, metadata={"slide": outcome.slide_id})


def with_known_labels(client: Client, collection: str, query: EncodedSlide) -> EncodedSlide:
    """Return the query with the labels the collection has for the same file, where it has none.

    The file is the same when its content is, whatever it is called. Labels are a help, not a need: while
    a shard that may hold the slide is away, the query goes without.
    """
    own = query.slide
    if own.patient or own.diagnosis or own.site:
        return query
    try:
        held = list(client.list_slides(collection, slide_id=own.slide_id))
    except Unavailable:
        return query
    same = next((s.slide for s in held if s.slide.digest == own.digest and own.digest), None)
    if same is None:
        return query
    return dataclasses.replace(query, slide=same)
