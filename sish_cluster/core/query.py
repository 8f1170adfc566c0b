"""What is asked: the query's patches, the mode, its bounds, the filter.

Source
------
SISH, "Guided search algorithm": C, T and the thresholds; `algorithm.md` of the project's
specification, section 3, for the default modes.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterable, Mapping

from sish_cluster.core.embedding import distance_of
from sish_cluster.core.errors import BadFilter, BadRequest
from sish_cluster.core.posting import PatchColumns
from sish_cluster.core.slide import Slide


class Mode(enum.StrEnum):
    """How candidates are found."""

    AUTO = "auto"
    """EXACT while the eligible postings can be scanned in time, GUIDED beyond; DIRECT without codes."""
    SISH = "sish"
    """The published guided search, quirks included."""
    GUIDED = "guided"
    """Order-free guided search: complete within its key neighbourhoods."""
    EXACT = "exact"
    """Every eligible posting within the bound."""
    DIRECT = "direct"
    """Every eligible posting whose embedding's cosine reaches the bound (RetCCL)."""


class Ranking(enum.StrEnum):
    """How candidates become ranked slides."""

    UNCERTAINTY = "uncertainty"
    """Weighted-entropy ranking with every degenerate case answered."""
    SISH = "sish"
    """The published ranking, quirks included."""
    RRF = "rrf"
    """Reciprocal-rank fusion over the query's patches; needs no labels."""
    RETCCL = "retccl"
    """RetCCL's: entropy of similarity-weighted labels, a majority of five per patch."""


@dataclasses.dataclass(frozen=True, slots=True)
class SearchSettings:
    """Bounds of one search; the defaults are the published constants."""

    mode: Mode = Mode.AUTO
    """Which search runs; AUTO is resolved once for the whole cluster."""
    max_distance: int = 128
    """Hamming bits; a posting further away is no candidate (published: 128 of 1024 bits). A DIRECT search
    goes by `min_cosine` instead."""
    seeds_per_side: int = 10
    """T: seeds on each side of the query key."""
    seed_spacing: int = 50
    """C: coarse units (10**11) between seeds."""
    max_steps: int = 375
    """Occupied eligible keys a walk looks at, each way."""
    max_candidates: int = 0
    """Most candidates kept per query patch, nearest first; 0 keeps all."""
    min_cosine: float = 0.7
    """Cosine of the embeddings below which a posting is no candidate of a DIRECT search (RetCCL: 0.7)."""

    def __post_init__(self) -> None:
        bounds = {
            "max_distance": (0, 1 << 16),
            "seeds_per_side": (1, 1000),
            "seed_spacing": (1, 10_000),
            "max_steps": (0, 1_000_000),
            "max_candidates": (0, 1 << 24),
        }
        for name, (low, high) in bounds.items():
            found = getattr(self, name)
            if not low <= found <= high:
                raise BadRequest(f"{name} must be {low}..{high}; found {found}", field=name)
        if not -1.0 <= self.min_cosine <= 1.0:
            raise BadRequest(
                f"min_cosine must be -1..1; found {self.min_cosine}", field="min_cosine"
            )

    @property
    def distance_bound(self) -> int:
        """Largest distance of a candidate: Hamming bits; in a DIRECT search, cosine units."""
        if self.mode is Mode.DIRECT:
            return int(distance_of(self.min_cosine))
        return self.max_distance


@dataclasses.dataclass(frozen=True, slots=True)
class Filter:
    """Which postings are eligible: conditions on their slide's labels, all of which must hold.

    Parameters
    ----------
    keep
        Label -> values, one of which the slide's label must have.
    leave_out
        Label -> values, none of which the slide's label may have.

    Examples
    --------
    >>> f = Filter.of(keep={"site": ["lung"]}, leave_out={"patient": ["P7"]})
    >>> f.passes(Slide("a", patient="P1", site="lung")), f.passes(Slide("b", patient="P7", site="lung"))
    (True, False)
    """

    keep: Mapping[str, frozenset[str]] = dataclasses.field(default_factory=dict)
    leave_out: Mapping[str, frozenset[str]] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(
        cls,
        *,
        keep: Mapping[str, Iterable[str]] | None = None,
        leave_out: Mapping[str, Iterable[str]] | None = None,
    ) -> Filter:
        """Return a filter of plain mappings; an empty value list of ``keep`` is refused."""
        kept = {name: frozenset(values) for name, values in (keep or {}).items()}
        left = {name: frozenset(values) for name, values in (leave_out or {}).items()}
        empty = sorted(name for name, values in kept.items() if not values)
        if empty:
            raise BadFilter(f"a filter keeps at least one value of {empty[0]!r}; found none")
        return cls(kept, {name: values for name, values in left.items() if values})

    def passes(self, slide: Slide) -> bool:
        """Whether the slide's postings are eligible."""
        return all(slide.label(name) in values for name, values in self.keep.items()) and not any(
            slide.label(name) in values for name, values in self.leave_out.items()
        )

    def __bool__(self) -> bool:
        return bool(self.keep or self.leave_out)


@dataclasses.dataclass(frozen=True, slots=True)
class Query:
    """One slide (or part of one) that is asked for: its patches and what is to be left out.

    Parameters
    ----------
    patches
        The query's encoded patches; order is the query patch number.
    fingerprint
        Encoder fingerprint the patches were made with.
    settings
        Mode and bounds.
    where
        Which postings are eligible.
    label_field
        The label that ranking votes on.
    patient
        The query's patient: its slides never count in the label weights; ``""`` when unknown.
    """

    patches: PatchColumns
    fingerprint: str
    settings: SearchSettings = SearchSettings()
    where: Filter = Filter()
    label_field: str = "diagnosis"
    patient: str = ""


AUTO_EXACT_POSTINGS = 200_000
"""A shard that is asked on its own in mode AUTO runs EXACT for at most this many eligible postings. A router
never asks so: it resolves AUTO for the whole cluster, by the time that is left."""
