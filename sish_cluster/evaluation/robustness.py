"""Whether neighbours share the institution more than the class.

Stain and scanner of a hospital leave their mark on every patch. Of the neighbours that say anything
about it, those that share the class but not the institution (SO) speak for the biology, those that
share the institution but not the class (OS) for the hospital::

    robustness index = SO / (SO + OS)

1: neighbours go by class alone; 0: by institution alone. Neighbours that share both, or neither, could
be either, and are only counted.

Source
------
The idea of counting biological against technical neighbours: E. D. de Jong et al., "Current pathology
foundation models are unrobust to medical center differences" (2025).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable


@dataclasses.dataclass(frozen=True, slots=True)
class Robustness:
    """Neighbours counted by what they share with their query.

    Parameters
    ----------
    both, label_only, institution_only, neither
        Neighbours that share label and institution, one of them, or none.
    """

    both: int
    label_only: int
    institution_only: int
    neither: int

    @property
    def neighbours(self) -> int:
        """Neighbours whose label and institution are known, as their query's are."""
        return self.both + self.label_only + self.institution_only + self.neither

    @property
    def index(self) -> float | None:
        """SO / (SO + OS), or None where no neighbour speaks for one of the two."""
        telling = self.label_only + self.institution_only
        return self.label_only / telling if telling else None


def robustness_of(
    pairs: Iterable[tuple[tuple[str, str], tuple[str, str]]],
) -> Robustness:
    """Return the counts of (query, neighbour) pairs, each side (label, institution).

    Pairs with an unknown label or institution (``""``) on either side count nowhere.

    Examples
    --------
    >>> one = robustness_of([(("a", "x"), ("a", "y")), (("a", "x"), ("b", "x"))])
    >>> one.index
    0.5
    """
    counts = {(True, True): 0, (True, False): 0, (False, True): 0, (False, False): 0}
    for query, neighbour in pairs:
        if all(query) and all(neighbour):
            counts[query[0] == neighbour[0], query[1] == neighbour[1]] += 1
    return Robustness(
        counts[True, True], counts[True, False], counts[False, True], counts[False, False]
    )
