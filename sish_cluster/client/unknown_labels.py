"""What a search asks for that its collection does not have: a value misspelt, a label nobody gave.

Such a search has an answer, and the wrong one: a patient that is left out under another spelling is not
left out at all. So it is told, beside the answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from sish_cluster.core.collection import CollectionState
from sish_cluster.core.counting import listed
from sish_cluster.core.query import Filter

MOST_COUNTED = 1000
"""Values of a label that a shard counts in its description; a label of more is not described at all."""

MOST_NAMED = 6
"""Values or labels a warning lists; more are counted."""

OWN_NAME = "slide"
"""The label that every slide has another value of: never described, so never warned about."""


def unknown_in_filter(where: Filter, state: CollectionState) -> list[str]:
    """Return what a filter names and no slide of the collection has, one sentence each.

    Parameters
    ----------
    where
        The filter of a search.
    state
        The collection, with the values of its labels. A label of so many values that they may not all be
        described is taken on trust.
    """
    left_out = _told(where.leave_out, state, "so that leaves nothing out")
    return [*left_out, *_told(where.keep, state, "so that keeps nothing")]


def unknown_label(label_field: str, state: CollectionState) -> list[str]:
    """Return one sentence where no slide has the label that the ranking votes on, else nothing."""
    if _described(label_field, state) != {} or not state.slides:
        return []
    return [
        f"no slide of {state.collection.name!r} has the label {label_field!r}, so nothing is predicted"
        f" and every certainty is 1: give --label one of {_listed(state.label_counts)}"
    ]


def _told(wanted: Mapping[str, frozenset[str]], state: CollectionState, meaning: str) -> list[str]:
    told = []
    for label, values in wanted.items():
        counts = _described(label, state)
        strangers = [value for value in values if value and value not in (counts or {})]
        if counts is None or not strangers:
            continue
        there = f"there are {_listed(counts)}" if counts else "no slide has that label at all"
        told.append(
            f"no slide of {state.collection.name!r} has {label} {_listed(strangers)}, {meaning}:"
            f" check the spelling ({there})"
        )
    return told


def _described(label: str, state: CollectionState) -> Mapping[str, int] | None:
    """Return value -> slides; None where a shard may have left the label out of its description."""
    counts = state.label_counts.get(label, {})
    is_whole = state.slides - sum(counts.values()) <= MOST_COUNTED
    return counts if is_whole and label != OWN_NAME else None


def _listed(values: Iterable[str]) -> str:
    return listed([repr(value) for value in sorted(values)], most=MOST_NAMED)
