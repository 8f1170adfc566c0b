"""Filters asked for lately, worked out: which ordinals pass each, from one commit to the next.

A label of an ordinal never changes, so what passes a filter is only ever added to; which of them are
committed is looked up anew in every view. Searches of one filter share its copies of segments too, as long
as those of all filters stay a small share of the collection.
"""

from __future__ import annotations

import collections
import threading
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from sish_cluster.core.query import Filter
from sish_cluster.shard.scope import Passing

FILTERS_KEPT = 32
"""Filters remembered: one byte per slide each, 3 MB at 1e5 slides."""

FEWEST_COPIED = 65_536
"""Copied postings that are always allowed: 11 MB of 1024-bit codes."""

COPIED_SHARE = 1 / 16
"""Share of a collection's postings that copies for filters may add beyond that, besides those of the
filter asked for last."""

Flags = npt.NDArray[np.bool_]
FilterKey = tuple[frozenset[tuple[str, frozenset[str]]], frozenset[tuple[str, frozenset[str]]]]


def key_of_filter(where: Filter) -> FilterKey:
    """Return what equal filters share."""
    return frozenset(where.keep.items()), frozenset(where.leave_out.items())


class Selections:
    """The filters of one collection; safe for any number of threads."""

    def __init__(self) -> None:
        self._passing: collections.OrderedDict[FilterKey, Passing] = collections.OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._passing)

    @property
    def copied_rows(self) -> int:
        """Postings copied for the filters remembered."""
        return sum(passing.copied_rows for passing in list(self._passing.values()))

    def passing(
        self, where: Filter, n_ordinals: int, passes: Callable[[int], Flags], n_postings: int
    ) -> Passing:
        """Return which ordinals pass a filter, at least of the first ``n_ordinals``.

        Parameters
        ----------
        passes
            Returns which of the ordinals from a given one up to ``n_ordinals`` pass.
        n_postings
            Postings of the collection.
        """
        key = key_of_filter(where)
        with self._lock:
            passing = self._passing.setdefault(key, Passing())
            self._passing.move_to_end(key)
            self._forget_oldest(max(FEWEST_COPIED, int(COPIED_SHARE * n_postings)))
        first = len(passing)
        if first < n_ordinals:
            passing.add(first, passes(first))
        return passing

    def _forget_oldest(self, most_rows: int) -> None:
        while len(self._passing) > 1 and (
            len(self._passing) > FILTERS_KEPT or self.copied_rows > most_rows
        ):
            self._passing.popitem(last=False)
