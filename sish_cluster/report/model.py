"""What a report is about, and what its page shows: plain values the template only lays out."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from sish_cluster.core.query import Filter, SearchSettings
from sish_cluster.core.result import SearchResult
from sish_cluster.core.slide import Slide


@dataclasses.dataclass(frozen=True, slots=True)
class Searched:
    """One search: what was asked, what came back.

    Parameters
    ----------
    slide
        The query.
    result
        The answer.
    settings
        Bounds it was asked with.
    where
        Who was eligible.
    note
        One line for people: why this query is here.
    """

    slide: Slide
    result: SearchResult
    settings: SearchSettings
    where: Filter = dataclasses.field(default_factory=Filter)
    note: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class BoxView:
    """A patch's square on a thumbnail, in the slide's level-0 pixels, with the text beside it."""

    left: int
    top: int
    side: int
    text: str


@dataclasses.dataclass(frozen=True, slots=True)
class PictureView:
    """A picture, or why there is none.

    Parameters
    ----------
    uri
        ``data:image/jpeg;base64,...``; ``""`` when there is none.
    width, height
        Pixels of the picture.
    alt
        What it shows, or why it is missing.
    boxes
        Squares drawn over it.
    frame
        Width and height of the boxes' frame (level 0).
    """

    uri: str
    alt: str
    width: int = 0
    height: int = 0
    boxes: Sequence[BoxView] = ()
    frame: tuple[int, int] = (1, 1)

    @property
    def stroke(self) -> float:
        """Width of a box's line in the frame's pixels: about two pixels of a 320 px picture."""
        return max(self.frame) / 160


@dataclasses.dataclass(frozen=True, slots=True)
class PairView:
    """A query patch and a result's patch side by side."""

    number: int
    distance: int
    similarity: float
    uncertainty: float
    query: PictureView
    result: PictureView


@dataclasses.dataclass(frozen=True, slots=True)
class ResultView:
    """One ranked slide."""

    rank: int
    name: str
    labels: Sequence[tuple[str, str]]
    distance: int
    certainty: float
    n_matches: int
    agrees: bool | None
    """Whether its label is the query's; None where either is unknown."""
    thumbnail: PictureView
    pairs: Sequence[PairView]


@dataclasses.dataclass(frozen=True, slots=True)
class QueryView:
    """One search as the page shows it."""

    anchor: str
    name: str
    note: str
    labels: Sequence[tuple[str, str]]
    thumbnail: PictureView
    predicted_label: str
    votes: Sequence[tuple[str, float]]
    facts: Sequence[tuple[str, str]]
    missing_shards: Sequence[str]
    reason: str
    results: Sequence[ResultView]


def labels_of(slide: Slide) -> list[tuple[str, str]]:
    """Return the labels that are known, named ones first.

    Examples
    --------
    >>> labels_of(Slide("a", site="lung", labels={"stain": "HE"}))
    [('site', 'lung'), ('stain', 'HE')]
    """
    named = [(name, slide.label(name)) for name in ("diagnosis", "site", "patient", "institution")]
    return [(name, value) for name, value in [*named, *sorted(slide.labels.items())] if value]


def described(where: Filter) -> str:
    """Return a filter in words.

    Examples
    --------
    >>> described(Filter.of(keep={"site": ["lung"]}, leave_out={"patient": ["P7"]}))
    'site is lung; patient is not P7'
    """
    parts = [*_conditions(where.keep, "is"), *_conditions(where.leave_out, "is not")]
    return "; ".join(parts) or "every slide"


def _conditions(conditions: Mapping[str, frozenset[str]], verb: str) -> list[str]:
    return [f"{label} {verb} {' or '.join(sorted(values))}" for label, values in conditions.items()]


def facts_of(searched: Searched) -> list[tuple[str, str]]:
    """Return what ran, and how much of the collection it looked at."""
    result, settings = searched.result, searched.settings
    facts = [
        ("mode", f"{result.mode} (asked: {settings.mode})"),
        ("ranking", str(result.ranking)),
        ("distance bound", f"{settings.max_distance} bits"),
        ("eligible", f"{described(searched.where)} — {result.eligible:,} patches"),
        ("query patches", f"{result.n_query_patches:,}"),
        ("coverage", f"{result.coverage:.1%} of the eligible patches examined"),
        ("time", f"{result.elapsed_ms:.0f} ms"),
    ]
    if result.mode in ("sish", "guided"):
        walk = (
            f"{settings.seeds_per_side} seeds a side, {settings.seed_spacing} coarse units apart,"
            f" {settings.max_steps} steps each way"
        )
        facts.insert(3, ("walk", walk))
    return facts
