"""Queries as clients make them: of a slide, of a case, with what was given in place of what they had."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from sish_cluster.core.collection import Collection
from sish_cluster.core.errors import BadRequest
from sish_cluster.core.posting import EncodedSlide, PatchColumns
from sish_cluster.core.query import Mode, Query, SearchSettings


@dataclasses.dataclass(frozen=True, slots=True)
class Bounds:
    """What a call says about mode and bounds; None leaves what the query has.

    Parameters
    ----------
    mode, max_distance, min_cosine, max_candidates
        As in `SearchSettings`.
    """

    mode: Mode | None = None
    max_distance: int | None = None
    min_cosine: float | None = None
    max_candidates: int | None = None


def bounded(query: Query, bounds: Bounds) -> Query:
    """Return the query with the bounds that were given."""
    values = {field.name: getattr(bounds, field.name) for field in dataclasses.fields(bounds)}
    given = {name: value for name, value in values.items() if value is not None}
    return dataclasses.replace(query, settings=dataclasses.replace(query.settings, **given))


def slide_query(definition: Collection, encoded: EncodedSlide) -> Query:
    """Return the query of one slide, with the collection's own bound.

    Raises
    ------
    FingerprintMismatch
        If another encoder made it.
    """
    definition.check_fingerprint(encoded.fingerprint)
    settings = SearchSettings(max_distance=definition.max_distance)
    return Query(encoded.patches, encoded.fingerprint, settings, patient=encoded.slide.patient)


def case_query(definition: Collection, parts: Sequence[EncodedSlide]) -> Query:
    """Return the query of several slides: their patches joined, numbered through.

    The query's patient is the parts' own where they share one; slides of several patients are left out of
    label weights by leaving those patients out of the search (`Exclusion.of_case`).

    Raises
    ------
    BadRequest
        If there is no part.
    FingerprintMismatch, BadMessage
        If parts were encoded otherwise than the collection, or have columns of different lengths.
    """
    if not parts:
        raise BadRequest("a case has at least one slide; found none", field="parts")
    for part in parts:
        definition.check_fingerprint(part.fingerprint)
    patients = {part.slide.patient for part in parts}
    joined = PatchColumns.joined([part.patches for part in parts])
    settings = SearchSettings(max_distance=definition.max_distance)
    patient = patients.pop() if len(patients) == 1 else ""
    return Query(joined, definition.fingerprint, settings, patient=patient)


def case_sources(parts: Sequence[EncodedSlide]) -> list[tuple[str, int]]:
    """Return, for each row of a case's query, the slide id and patch number it came from.

    ``case_sources(parts)[match.query_number]`` is where a match's query patch is.
    """
    return [
        (part.slide.slide_id, number) for part in parts for number in part.patches.numbers.tolist()
    ]


def lean(definition: Collection, query: Query) -> Query:
    """Return the query without embeddings where its mode compares codes: they are most of its bytes."""
    is_direct = query.settings.mode is Mode.DIRECT or (
        query.settings.mode is Mode.AUTO and not definition.code_bits
    )
    if is_direct:
        return query
    return dataclasses.replace(query, patches=query.patches.without_embeddings())
