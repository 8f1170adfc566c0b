"""What a report is about, and what its page shows: plain values the template only lays out."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from sish_cluster.core.counting import counted
from sish_cluster.core.embedding import cosine_of
from sish_cluster.core.query import Filter, Mode, SearchSettings
from sish_cluster.core.result import SearchResult, SlideResult
from sish_cluster.core.slide import Slide


@dataclasses.dataclass(frozen=True, slots=True)
class QueryPart:
    """One slide of a case: its patches are the next ``n_patches`` query patches."""

    slide: Slide
    n_patches: int


@dataclasses.dataclass(frozen=True, slots=True)
class Searched:
    """One search: what was asked, what came back.

    Parameters
    ----------
    slide
        The query; of a case, all names and the labels its slides share.
    result
        The answer.
    settings
        Bounds it was asked with.
    where
        Who was eligible.
    note
        One line for people: why this query is here.
    parts
        The slides of a case in the order of its patches; empty where the query is one slide.
    """

    slide: Slide
    result: SearchResult
    settings: SearchSettings
    where: Filter = dataclasses.field(default_factory=Filter)
    note: str = ""
    parts: Sequence[QueryPart] = ()

    @property
    def slides(self) -> Sequence[Slide]:
        """The query's slides: one, or those of the case."""
        return [part.slide for part in self.parts] or [self.slide]

    def slide_of(self, query_number: int) -> Slide:
        """Return the slide that a query patch is of."""
        for part in self.parts:
            if query_number < part.n_patches:
                return part.slide
            query_number -= part.n_patches
        return self.slide

    @property
    def is_direct(self) -> bool:
        """Whether distances are cosine units rather than bits."""
        return self.result.mode is Mode.DIRECT


def distance_text(distance: float, *, is_direct: bool) -> str:
    """Return a distance as people read it.

    Examples
    --------
    >>> distance_text(96, is_direct=False), distance_text(9830, is_direct=True)
    ('96 bits', 'cosine 0.700')
    >>> distance_text(1, is_direct=False), distance_text(40.5, is_direct=False)
    ('1 bit', '40.5 bits')
    """
    if is_direct:
        return f"cosine {float(cosine_of(distance)):.3f}"
    return counted(int(distance), "bit") if distance == int(distance) else f"{distance:g} bits"


def certainty_text(found: SlideResult, result: SearchResult) -> str:
    """Return how sure a result is, or why nobody can say: an entropy of no labels is 0, which is no certainty."""
    if not result.votes:
        return "no labels"
    return f"{found.certainty:.0%}" if result.has_certainty else f"not told by {result.ranking}"


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
    source: str
    """The query slide the patch is of, where there are several."""
    likeness: str
    """How alike they are, in words."""
    uncertainty: str
    """Bits; ``""`` where there is no certainty."""
    query: PictureView
    result: PictureView


@dataclasses.dataclass(frozen=True, slots=True)
class ResultView:
    """One ranked slide."""

    rank: int
    name: str
    labels: Sequence[tuple[str, str]]
    distance: str
    certainty: str
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
    thumbnails: Sequence[tuple[str, PictureView]]
    """(name, picture) of the query's slides; no name where there is one."""
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


def _mode_text(result: SearchResult, settings: SearchSettings) -> str:
    return f"{result.mode_reason or result.mode} (asked: {settings.mode})"


def _bound_text(searched: Searched) -> str:
    """Return the search's bound, and the ranking's where that was tighter."""
    result, is_direct = searched.result, searched.is_direct
    asked = dataclasses.replace(searched.settings, mode=result.mode).distance_bound
    text = distance_text(asked, is_direct=is_direct)
    if 0 < result.distance_bound < asked:
        text += f"; the ranking counted {distance_text(round(result.distance_bound, 1), is_direct=is_direct)}"
        text += " or nearer"
    return text


def facts_of(searched: Searched) -> list[tuple[str, str]]:
    """Return what ran, and how much of the collection it looked at."""
    result, settings = searched.result, searched.settings
    facts = [
        ("mode", _mode_text(result, settings)),
        ("ranking", str(result.ranking)),
        ("bound", _bound_text(searched)),
        ("eligible", f"{described(searched.where)} — {counted(result.eligible, 'patch')}"),
        ("query patches", f"{result.n_query_patches:,}"),
        ("coverage", f"{result.coverage:.1%} of the eligible patches examined"),
        ("time", f"{result.elapsed_ms:.0f} ms"),
    ]
    if result.mode in ("sish", "guided"):
        walk = (
            f"{counted(settings.seeds_per_side, 'seed')} a side, {counted(settings.seed_spacing, 'coarse unit')} apart,"
            f" {counted(settings.max_steps, 'step')} each way"
        )
        facts.insert(3, ("walk", walk))
    return facts
