"""What came back: each query's results, each run's queries, and the whole evaluation."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from sish_cluster.core.collection import Collection
from sish_cluster.core.query import Mode, Ranking
from sish_cluster.core.slide import Slide
from sish_cluster.evaluation.settings import ANY_DISTANCE, EvaluationSettings

LOAD, EXCLUSION, SEARCH, ROUTER = "load", "exclusion", "search", "router"
"""Stages that are timed: fetching the query's patches, writing its filter, the whole call with the exclusion
inside it, and the part of the call that the router saw (shards, merge and ranking; no socket)."""

STAGES = (LOAD, EXCLUSION, SEARCH, ROUTER)
"""The stages in the order they happen."""


@dataclasses.dataclass(frozen=True, slots=True)
class RunPlan:
    """One column of the comparison: a collection (so an encoder), a mode, a ranking.

    Parameters
    ----------
    collection
        Its name.
    mode
        As asked for; what ran is in the outcomes.
    ranking
        None for patch queries, which distance orders.
    bound
        Largest distance, as in `EvaluationSettings.bounds`.
    """

    collection: str
    mode: Mode
    ranking: Ranking | None
    bound: int | None = None

    @property
    def search(self) -> str:
        """The mode and, where it is not the collection's own, the bound: ``guided <=128``."""
        if self.bound is None:
            return str(self.mode)
        return f"{self.mode} " + ("nearest" if self.bound == ANY_DISTANCE else f"<={self.bound}")

    def __str__(self) -> str:
        return f"{self.search} / {self.ranking}" if self.ranking else self.search


@dataclasses.dataclass(frozen=True, slots=True)
class Found:
    """One result: whose it is, which label it bears, how far it is.

    Parameters
    ----------
    slide_id
        The slide.
    number
        Patch number there: the patch itself, or for slides the nearest pair's; -1 where there is none.
    label, institution
        Values; ``""`` when unknown.
    distance
        Hamming bits, cosine units after a DIRECT search.
    """

    slide_id: str
    number: int
    label: str
    institution: str
    distance: int

    @property
    def name(self) -> tuple[str, int]:
        """What makes two patch results the same."""
        return self.slide_id, self.number


@dataclasses.dataclass(frozen=True, slots=True)
class QueryOutcome:
    """One query of one run.

    Parameters
    ----------
    query_id
        The slide id; for a patch query of many, with ``#`` and the patch number.
    slide_id, number
        What was asked for; the number is -1 for a whole slide.
    truth
        The query's label.
    group, institution
        What was resampled and left out as one; where the query comes from.
    found
        Results in order, at most the largest k.
    mode
        What ran (never AUTO); as asked for where nothing ran.
    coverage, eligible
        Share of the eligible postings that was examined, and how many were eligible.
    ms
        Stage -> milliseconds.
    problem
        Why there is no result where the search failed: such a query counts as wrong.
    is_reachable
        Whether an eligible slide bears the query's label at all.
    """

    query_id: str
    slide_id: str
    number: int
    truth: str
    group: str
    institution: str
    found: Sequence[Found]
    mode: Mode
    coverage: float
    eligible: int
    ms: Mapping[str, float]
    problem: str = ""
    is_reachable: bool = True

    @property
    def labels(self) -> list[str]:
        """The labels found, in order."""
        return [found.label for found in self.found]


@dataclasses.dataclass(frozen=True, slots=True)
class Run:
    """Every query of one plan."""

    plan: RunPlan
    outcomes: Sequence[QueryOutcome]

    @property
    def failures(self) -> list[tuple[str, str]]:
        """Queries that failed, and why."""
        return [(o.query_id, o.problem) for o in self.outcomes if o.problem]


@dataclasses.dataclass(frozen=True, slots=True)
class Evaluated:
    """A whole evaluation.

    Parameters
    ----------
    settings
        What was asked and how it is judged.
    collections, slides
        Definitions, and collection name -> its slides.
    runs
        One per collection, mode and ranking that could run.
    skipped
        (what, why): modes a collection lacks something for, slides without the label.
    """

    settings: EvaluationSettings
    collections: Sequence[Collection]
    slides: Mapping[str, Sequence[Slide]]
    runs: Sequence[Run]
    skipped: Sequence[tuple[str, str]] = ()

    def reference_of(self, run: Run) -> Run | None:
        """Return the EXACT run of the same bound beside which ``run``'s recall is measured; None where there is none.

        DIRECT has none: it goes by another distance, so it misses nothing by finding other slides.
        """
        if run.plan.mode is Mode.DIRECT:
            return None
        wanted = dataclasses.replace(run.plan, mode=Mode.EXACT)
        return next((other for other in self.runs if other.plan == wanted), None)
