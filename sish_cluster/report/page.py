"""The page: searches and pictures become views, views become one HTML file without any other."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

import jinja2

from sish_cluster.core.counting import counted
from sish_cluster.core.result import PatchMatch, SearchResult, SlideResult
from sish_cluster.core.slide import Slide
from sish_cluster.report.model import (
    PairView,
    PictureView,
    QueryView,
    ResultView,
    Searched,
    certainty_text,
    distance_text,
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
    """Bits of a code, for the share of bits that agree; 0 where there are no codes."""


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
    return QueryView(
        anchor=f"query-{number}",
        name=slide.slide_id,
        note=searched.note,
        labels=labels_of(slide),
        thumbnails=_thumbnails_of(searched, files, settings),
        predicted_label=result.predicted_label,
        votes=_votes_of(result),
        facts=facts_of(searched),
        missing_shards=result.missing_shards,
        reason=result.reason,
        results=[_result_view(found, searched, files, settings) for found in result.results],
    )


def _thumbnails_of(
    searched: Searched, files: SlideFiles, settings: ReportSettings
) -> list[tuple[str, PictureView]]:
    """Return each query slide with its name (where there are several) and its own patches' boxes."""
    squares: dict[str, list[Square]] = {slide.slide_id: [] for slide in searched.slides}
    for found in searched.result.results:
        for match in found.matches:
            own = squares[searched.slide_of(match.query_number).slide_id]
            own.append(Square(match.query_corner, _name_of(match)))
    side_px = settings.thumbnail_px
    return [
        (
            slide.slide_id if searched.parts else "",
            files.thumbnail(slide, squares[slide.slide_id], side_px=side_px),
        )
        for slide in searched.slides
    ]


def _votes_of(result: SearchResult) -> list[tuple[str, float]]:
    return sorted(result.votes.items(), key=lambda vote: (-vote[1], vote[0]))


def _result_view(
    found: SlideResult, searched: Searched, files: SlideFiles, settings: ReportSettings
) -> ResultView:
    squares = [Square(match.corner, _name_of(match)) for match in found.matches]
    return ResultView(
        rank=found.rank,
        name=found.slide.slide_id,
        labels=labels_of(found.slide),
        distance=distance_text(found.distance, is_direct=searched.is_direct),
        certainty=certainty_text(found, searched.result),
        n_matches=len(found.matches),
        agrees=_agrees(searched.slide, found.slide),
        thumbnail=files.thumbnail(found.slide, squares, side_px=settings.thumbnail_px),
        pairs=[
            _pair_view(match, searched, found.slide, files, settings)
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
    match: PatchMatch,
    searched: Searched,
    found: Slide,
    files: SlideFiles,
    settings: ReportSettings,
) -> PairView:
    side_px = settings.patch_px
    query = searched.slide_of(match.query_number)
    return PairView(
        number=match.query_number + 1,
        source=query.slide_id if searched.parts else "",
        likeness=_likeness(match.distance, searched, settings),
        uncertainty=f"{match.uncertainty:.2f}" if searched.result.has_certainty else "",
        query=files.patch(query.slide_id, match.query_corner, query.patch_side_px, side_px),
        result=files.patch(found.slide_id, match.corner, found.patch_side_px, side_px),
    )


def _likeness(distance: int, searched: Searched, settings: ReportSettings) -> str:
    if searched.is_direct or not settings.code_bits:
        return distance_text(distance, is_direct=True)
    return f"{counted(distance, 'bit')} apart ({1 - distance / settings.code_bits:.0%} agree)"
