"""Examples: a query beside what it found, right ones and wrong ones of every class.

Who has the pixels (a folder of tiles, slide files) hands in a `Picture`; without one, there is no
montage, and the page says so.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Sequence

from sish_cluster.evaluation.measures import plurality_of
from sish_cluster.evaluation.outcome import Found, QueryOutcome, Run

Picture = Callable[[str, int], str]
"""(slide id, patch number, -1 for the whole slide) -> a data URI, or ``""`` where there are no pixels."""

MOST_EXAMPLES = 10
"""Rows of a montage: what fits three screens."""


@dataclasses.dataclass(frozen=True, slots=True)
class Tile:
    """One picture of a montage: whose, its label, and for results the distance and whether it is right."""

    picture: str
    name: str
    label: str
    distance: int | None = None
    is_right: bool | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Example:
    """One query and what it found."""

    query: Tile
    found: Sequence[Tile]
    is_right: bool


def examples_of(run: Run, picture: Picture, *, most: int = MOST_EXAMPLES) -> list[Example]:
    """Return examples of a run that have a picture: wrong ones first, then right ones, class by class."""
    chosen = _chosen(run.outcomes, most)
    examples = [_example(outcome, picture) for outcome in chosen]
    return [example for example in examples if example.query.picture]


def _chosen(outcomes: Sequence[QueryOutcome], most: int) -> list[QueryOutcome]:
    """Draw from each (is right, class) in turn, so that no class fills the montage."""
    drawn = random.Random(0).sample(list(outcomes), len(outcomes))
    by_kind: dict[tuple[bool, str], list[QueryOutcome]] = {}
    for outcome in drawn:
        if outcome.found:
            by_kind.setdefault((_is_right(outcome), outcome.truth), []).append(outcome)
    right = _in_turns([held for (is_right, _), held in sorted(by_kind.items()) if is_right])
    wrong = _in_turns([held for (is_right, _), held in sorted(by_kind.items()) if not is_right])
    n_wrong = min(len(wrong), max(most // 2, most - len(right)))
    return wrong[:n_wrong] + right[: most - n_wrong]


def _in_turns(lists: Sequence[Sequence[QueryOutcome]]) -> list[QueryOutcome]:
    longest = max(map(len, lists), default=0)
    return [held[turn] for turn in range(longest) for held in lists if turn < len(held)]


def _is_right(outcome: QueryOutcome) -> bool:
    return plurality_of(outcome.labels) == outcome.truth


def _example(outcome: QueryOutcome, picture: Picture) -> Example:
    query = Tile(picture(outcome.slide_id, outcome.number), outcome.query_id, outcome.truth)
    found = [_result(one, outcome, picture) for one in outcome.found]
    return Example(query, found, _is_right(outcome))


def _result(found: Found, outcome: QueryOutcome, picture: Picture) -> Tile:
    number = -1 if outcome.number < 0 else found.number
    return Tile(
        picture(found.slide_id, number),
        found.slide_id,
        found.label,
        found.distance,
        found.label == outcome.truth,
    )
