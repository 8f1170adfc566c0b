"""What an import reads: a stream of encoded slides, and the collection they belong to.

A slide that cannot be read is a value of the stream, told with its file, its row, what was found and what
was expected; the slides after it go on. Streams are drawn one slide at a time.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from sish_cluster.core.collection import PUBLISHED_MAX_DISTANCE, Collection
from sish_cluster.core.errors import BadLabels, SishError
from sish_cluster.core.posting import EncodedSlide
from sish_cluster.core.slide import Slide, canonical_bytes, digest_of, patient_of

LabelsTable = Mapping[str, Slide]
"""Slides of a labels table by slide id."""


@dataclasses.dataclass(frozen=True, slots=True)
class Unreadable:
    """A slide that cannot be imported, and what to do about it."""

    slide_id: str
    problem: str


SlideStream = Iterator[EncodedSlide | Unreadable]
"""Slides as they are read."""


@dataclasses.dataclass(frozen=True, slots=True)
class SlideSource:
    """Slides of other programs' files, and what a collection of them is.

    Parameters
    ----------
    collection
        A collection that accepts them, under any name.
    n_slides
        Slides the stream will tell of, as far as is known before it is drawn.
    slides
        The stream; drawn once.
    """

    collection: Collection
    n_slides: int
    slides: SlideStream


def under_fingerprint(source: SlideSource, fingerprint: str) -> SlideSource:
    """Return the same slides under a fingerprint somebody vouches for."""
    collection = dataclasses.replace(source.collection, fingerprint=fingerprint)
    slides = (
        slide
        if isinstance(slide, Unreadable)
        else EncodedSlide.whole(slide.slide, slide.patches, fingerprint)
        for slide in source.slides
    )
    return SlideSource(collection, source.n_slides, slides)


def fingerprint_of(family: str, facts: Mapping[str, object]) -> str:
    """Return the fingerprint of imported keys and codes: their family, and a digest of what is known.

    Examples
    --------
    >>> fingerprint_of("published", {"code_bits": 1024})[:10]
    'published:'
    """
    return f"{family}:{digest_of(canonical_bytes(facts))}"


def bound_for(code_bits: int) -> int:
    """Return the published bound's share of a code's bits; 128 without codes."""
    share = code_bits / 1024 if code_bits else 1.0
    return round(PUBLISHED_MAX_DISTANCE * share)


def labelled(known: Slide, labels: LabelsTable | None) -> Slide:
    """Return a slide with its labels table's row, where there is a table.

    Parameters
    ----------
    known
        What the imported file itself says; sizes and labels the table has no value for are kept.
    labels
        The table, or None.

    Raises
    ------
    BadLabels
        If the table has no row for the slide.
    """
    if labels is None:
        patient = known.patient or patient_of(known.slide_id)
        return dataclasses.replace(known, patient=patient)
    row = labels.get(known.slide_id)
    if row is None:
        raise BadLabels(
            f"slide {known.slide_id!r} has no row in the labels table: add one, or leave --labels out"
        )
    return dataclasses.replace(
        known,
        patient=row.patient or known.patient,
        site=row.site or known.site,
        diagnosis=row.diagnosis or known.diagnosis,
        institution=row.institution or known.institution,
        labels={**known.labels, **row.labels},
        mpp=row.mpp or known.mpp,
    )


def each_file(
    files: Iterable[Path], read: Callable[[Path], EncodedSlide], labels: LabelsTable | None
) -> SlideStream:
    """Yield what ``read`` makes of each file; then label rows that no file was read for.

    A `SishError` of one file becomes an `Unreadable` named after it.
    """
    seen: dict[str, Path] = {}
    for file in files:
        try:
            slide = read(file)
        except SishError as error:
            seen.setdefault(file.stem, file)
            yield Unreadable(file.stem, error.message)
            continue
        slide_id = slide.slide.slide_id
        first = seen.setdefault(slide_id, file)
        if first is file:
            yield slide
        else:
            yield Unreadable(
                slide_id, f"{file}: bears the slide id of {first}; rename one, or remove it"
            )
    for slide_id in sorted(set(labels or ()) - set(seen)):
        yield Unreadable(
            slide_id, "has a row in the labels table but no file; add it, or delete the row"
        )
