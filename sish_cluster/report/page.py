"""The page: searches and pictures become views, views become one HTML file without any other."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

import jinja2

from sish_cluster.core.result import PatchMatch, SearchResult, SlideResult
from sish_cluster.core.slide import Slide
from sish_cluster.report.model import (
    PairView,
    QueryView,
    ResultView,
    Searched,
    facts_of,
    labels_of,
)
from sish_cluster.report.pictures import SlideFiles, Square


@dataclasses.dataclass(frozen=True, slots=True)
class ReportSettings:
    """What the page is called and how large its pictures are."""

    title: str = "Slides that look alike"
    """Heading and title of the page."""
    about: Sequence[tuple[str, str]] = ()
    """Facts of the whole page: collection, encoder, cluster."""
    thumbnail_px: int = 420
    """Longer side of a thumbnail, px: sharp at the width of a phone."""
    patch_px: int = 224
    """Side of a patch's picture, px: nuclei can be told apart at 0.5 mpp."""
    max_pairs: int = 4
    """Pairs shown per result; the boxes show every match."""
    code_bits: int = 1024
    """Bits of a code, for the share of bits that agree."""


def written_report(
    path: Path,
    searches: Sequence[Searched],
    files: SlideFiles,
    *,
    settings: ReportSettings | None = None,
) -> Path:
    """Write the page of some searches, whole or not at all, and return its path.

    Parameters
    ----------
    path
        Where to; its folder is made.
    searches
        In the order of the page.
    files
        Where pictures come from.
    settings
        Title and sizes.
    """
    text = page_of(searches, files, settings=settings or ReportSettings())
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)
    return path


def page_of(searches: Sequence[Searched], files: SlideFiles, *, settings: ReportSettings) -> str:
    """Return the page as text; every string is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("sish_cluster.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = lambda share: f"{share:.0%}"
    views = [
        _query_view(searched, files, number, settings)
        for number, searched in enumerate(searches, start=1)
    ]
    template = environment.get_template("report.html")
    return template.render(title=settings.title, about=settings.about, queries=views)


def _query_view(
    searched: Searched, files: SlideFiles, number: int, settings: ReportSettings
) -> QueryView:
    slide, result = searched.slide, searched.result
    matches = [match for found in result.results for match in found.matches]
    squares = [Square(match.query_corner, _name_of(match)) for match in matches]
    return QueryView(
        anchor=f"query-{number}",
        name=slide.slide_id,
        note=searched.note,
        labels=labels_of(slide),
        thumbnail=files.thumbnail(slide, squares, side_px=settings.thumbnail_px),
        predicted_label=result.predicted_label,
        votes=_votes_of(result),
        facts=facts_of(searched),
        missing_shards=result.missing_shards,
        reason=result.reason,
        results=[_result_view(found, slide, files, settings) for found in result.results],
    )


def _votes_of(result: SearchResult) -> list[tuple[str, float]]:
    return sorted(result.votes.items(), key=lambda vote: (-vote[1], vote[0]))


def _result_view(
    found: SlideResult, query: Slide, files: SlideFiles, settings: ReportSettings
) -> ResultView:
    squares = [Square(match.corner, _name_of(match)) for match in found.matches]
    return ResultView(
        rank=found.rank,
        name=found.slide.slide_id,
        labels=labels_of(found.slide),
        distance=found.distance,
        certainty=found.certainty,
        n_matches=len(found.matches),
        agrees=_agrees(query, found.slide),
        thumbnail=files.thumbnail(found.slide, squares, side_px=settings.thumbnail_px),
        pairs=[
            _pair_view(match, query, found.slide, files, settings)
            for match in found.matches[: settings.max_pairs]
        ],
    )


def _agrees(query: Slide, found: Slide) -> bool | None:
    if not (query.diagnosis and found.diagnosis):
        return None
    return query.diagnosis == found.diagnosis


def _name_of(match: PatchMatch) -> str:
    """Return the query patch's number as people count, from 1."""
    return str(match.query_number + 1)


def _pair_view(
    match: PatchMatch, query: Slide, found: Slide, files: SlideFiles, settings: ReportSettings
) -> PairView:
    side_px = settings.patch_px
    return PairView(
        number=match.query_number + 1,
        distance=match.distance,
        similarity=1 - match.distance / settings.code_bits,
        uncertainty=match.uncertainty,
        query=files.patch(query.slide_id, match.query_corner, query.patch_side_px, side_px),
        result=files.patch(found.slide_id, match.corner, found.patch_side_px, side_px),
    )
