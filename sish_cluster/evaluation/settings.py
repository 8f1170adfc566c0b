"""What an evaluation asks and how it is judged."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Sequence

from sish_cluster.core.collection import Collection
from sish_cluster.core.errors import BadRequest
from sish_cluster.core.query import Mode, Ranking, SearchSettings
from sish_cluster.evaluation.measures import ShortList
from sish_cluster.evaluation.scores import BootstrapSettings


class LeaveOut(enum.StrEnum):
    """Whose slides are left out of a query's search, the queried slide itself always among them."""

    PATIENT = "patient"
    """Every slide of the same patient (see `leaving_out.group_of` where none is given)."""
    INSTITUTION = "institution"
    """Every slide of the same institution, and of the same patient elsewhere."""
    SLIDE = "slide"
    """Only the queried slide."""


ANY_DISTANCE = (1 << 16) - 1
"""A bound no code reaches: the search then returns the nearest it examined, however far they are."""


_DEFAULTS = SearchSettings()
"""The bounds a search has when nothing is said."""


@dataclasses.dataclass(frozen=True, slots=True)
class EvaluationSettings:
    """One evaluation: its queries, its searches, its measures."""

    label_field: str = "diagnosis"
    """The label that must agree: ``diagnosis``, ``site`` (organ retrieval) or any other."""
    leave_out: LeaveOut = LeaveOut.PATIENT
    """Whose slides no query may find."""
    modes: Sequence[Mode] = (Mode.AUTO,)
    """How candidates are found; each is a run."""
    rankings: Sequence[Ranking] = (Ranking.UNCERTAINTY,)
    """How slides are ordered; each is a run in each mode. Patch queries have none: distance orders."""
    ks: Sequence[int] = (1, 3, 5)
    """Ranks the measures look at, as published."""
    is_by_patch: bool = False
    """Whether every patch is a query of its own (patch retrieval) rather than every slide."""
    bounds: Sequence[int | None] = (None,)
    """Bits two codes may differ in, each a run; None for the collection's own bound, `ANY_DISTANCE` for
    none at all. DIRECT, which goes by cosine, knows only the last and ``min_cosine``."""
    min_cosine: float = _DEFAULTS.min_cosine
    """Cosine below which a DIRECT search keeps nothing (RetCCL: 0.7)."""
    max_steps: int = _DEFAULTS.max_steps
    """Steps of a guided search's walks, each way."""
    seeds_per_side: int = _DEFAULTS.seeds_per_side
    """Seeds of a guided search on each side of the key."""
    seed_spacing: int = _DEFAULTS.seed_spacing
    """Coarse units between a guided search's seeds."""
    short_list: ShortList = ShortList.PUBLISHED
    """What a list shorter than k counts for."""
    bootstrap: BootstrapSettings = dataclasses.field(default_factory=BootstrapSettings)
    """How confidence intervals are drawn."""
    max_queries: int = 0
    """Most slides asked for, drawn by ``rng_seed``; 0 asks for every labelled slide."""
    rng_seed: int = 0
    """Draws the sample of queries."""
    timeout_s: float = 60.0
    """Seconds for one search: an exact search of millions of postings ends well within."""

    def __post_init__(self) -> None:
        if not self.ks or min(self.ks) < 1:
            raise BadRequest(f"measures look at 1 result or more; found k = {list(self.ks)}")
        if not (self.modes and self.bounds and (self.rankings or self.is_by_patch)):
            raise BadRequest(
                "an evaluation needs at least one mode, one bound and one ranking; found none"
            )

    @property
    def most(self) -> int:
        """Results asked for: the largest k."""
        return max(self.ks)

    def bounds_of(self, mode: Mode) -> list[int | None]:
        """Return the bounds ``mode`` is run with, each once."""
        if mode is not Mode.DIRECT:
            return list(dict.fromkeys(self.bounds))
        return list(dict.fromkeys(b if b == ANY_DISTANCE else None for b in self.bounds))

    def search_of(
        self, mode: Mode, collection: Collection, *, bound: int | None = None
    ) -> SearchSettings:
        """Return the settings of a search in ``mode`` of a collection; ``bound`` as in ``bounds``."""
        return SearchSettings(
            mode=mode,
            max_distance=collection.max_distance if bound is None else bound,
            seeds_per_side=self.seeds_per_side,
            seed_spacing=self.seed_spacing,
            max_steps=self.max_steps,
            max_candidates=self.most if self.is_by_patch else 0,
            min_cosine=-1.0 if bound == ANY_DISTANCE else self.min_cosine,
        )
