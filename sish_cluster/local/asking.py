"""Files as a query: encoded like indexed slides, with the labels somebody gave them.

A query is one slide, a region of one, a slide that is stored already, or a case: several slides asked
about at once.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sish_cluster.client import Client
from sish_cluster.core.errors import BadLabels, BadRequest, BadSlide, Unavailable
from sish_cluster.core.posting import EncodedSlide
from sish_cluster.core.slide import NAMED_LABELS, Slide
from sish_cluster.local.encoding import SlideEncoder, SlideToEncode, Watch, unwatched

if TYPE_CHECKING:
    from sish_cluster.encoder.region import Region


def query_region(*, rectangle: str | None = None, file: Path | None = None) -> Region | None:
    """Return the part of a slide that is asked about, or None for the whole.

    Parameters
    ----------
    rectangle
        ``x,y,width,height`` in level-0 pixels.
    file
        GeoJSON with polygons in level-0 pixels.

    Raises
    ------
    BadRequest
        If both are given, or one cannot be understood.
    """
    from sish_cluster.encoder.region import read_region, rectangle_region

    if rectangle is not None and file is not None:
        raise BadRequest("a query has one region: a rectangle or a file, not both", field="region")
    if rectangle is not None:
        return rectangle_region(rectangle)
    return None if file is None else read_region(file)


def query_slide(
    path: Path,
    *,
    labels: Path | None = None,
    mpp: float | None = None,
    region: Region | None = None,
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
    region
        The part that is asked about; None for the whole.

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
        return SlideToEncode(path, Slide(name), mpp, region)
    rows = read_labels(labels).rows
    row = rows.get(name) or rows.get(path.name)
    if row is None:
        raise BadLabels(
            f"{labels}: has no row for slide {name!r}; add one, or search without --labels"
        )
    return SlideToEncode(path, row.slide, row.mpp or mpp, region)


def encoded_case(
    slides: Sequence[SlideToEncode],
    encoder: SlideEncoder,
    *,
    watch: Watch = unwatched,
    wants_embeddings: bool = False,
) -> list[EncodedSlide]:
    """Return the slides of a query, encoded, in their order.

    Parameters
    ----------
    slides
        One slide, or those of a case.
    encoder
        Who encodes.
    watch
        Told how far each slide is.
    wants_embeddings
        Whether the search compares embeddings.

    Raises
    ------
    BadSlide
        If one cannot be encoded: a case without one of its slides would be another case.
    BadRequest
        If two slides have one name.
    """
    names = [slide.slide.slide_id for slide in slides]
    doubled = next((name for name in names if names.count(name) > 1), None)
    if doubled is not None:
        raise BadRequest(f"two slides of the case are called {doubled!r}: rename one of the files")
    found: dict[str, EncodedSlide] = {}
    encoding = encoder.encoded(slides, watch=watch, wants_embeddings=wants_embeddings)
    with contextlib.closing(encoding) as outcomes:
        for outcome in outcomes:
            if not isinstance(outcome, EncodedSlide):
                raise BadSlide(outcome.problem, metadata={"slide": outcome.slide_id})
            found[outcome.slide.slide_id] = outcome
    return [found[name] for name in names]


def case_slide(parts: Sequence[EncodedSlide]) -> Slide:
    """Return who a query is: its slide, or for a case all names and the labels its slides share.

    Examples
    --------
    One slide is itself; a case ``a + b`` of one patient has that patient.
    """
    first = parts[0].slide
    if len(parts) == 1:
        return first

    def shared(field: str) -> str:
        values = {part.slide.label(field) for part in parts}
        return values.pop() if len(values) == 1 else ""

    patient, site, diagnosis, institution = map(shared, NAMED_LABELS)
    name = " + ".join(part.slide.slide_id for part in parts)
    return Slide(name, patient, site, diagnosis, institution)


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
