"""The protocol: every labelled slide is searched among the others, its own patient (or house) left out.

For each stored slide its encoded patches are fetched once and searched in every mode and ranking, the
exclusion inside the timed call. A failure is one query's: it is listed, counts as wrong, and stops
nothing.

Source
------
SISH, "Evaluation": leave-one-patient-out among all slides of a site; RetCCL: the same for patches.
"""

from __future__ import annotations

import dataclasses
import random
import time
from collections.abc import Callable, Iterator, Sequence

from sish_cluster.core.counting import counted
from sish_cluster.core.errors import BadRequest, SishError
from sish_cluster.core.query import Query
from sish_cluster.core.result import PatchesResult, SearchResult
from sish_cluster.core.slide import Slide
from sish_cluster.evaluation.asked import AskedCluster
from sish_cluster.evaluation.leaving_out import Leaver, Reachable, patient_of
from sish_cluster.evaluation.outcome import (
    EXCLUSION,
    LOAD,
    ROUTER,
    SEARCH,
    Evaluated,
    Found,
    QueryOutcome,
    Run,
    RunPlan,
)
from sish_cluster.evaluation.queries import query_of
from sish_cluster.evaluation.settings import EvaluationSettings

Watch = Callable[[str, int, int], None]
"""Called with the collection, queries done, queries in all."""


def unwatched(collection: str, done: int, total: int) -> None:
    """Ignore progress."""


def evaluated(
    cluster: AskedCluster,
    names: Sequence[str],
    *,
    settings: EvaluationSettings,
    watch: Watch = unwatched,
) -> Evaluated:
    """Return what every query of every run found.

    Parameters
    ----------
    cluster
        Who is asked.
    names
        Collections; several are several encoders of the same slides.
    settings
        The queries, the searches, the measures.
    watch
        Told how far it is.

    Raises
    ------
    UnknownCollection
        If there is no such collection.
    BadRequest
        If no slide of a collection has the label, or no mode fits it.
    """
    parts = [_Asking(cluster, name, settings) for name in names]
    runs: list[Run] = []
    for part in parts:
        runs += part.runs(watch)
    return Evaluated(
        settings,
        [part.definition for part in parts],
        {part.definition.name: part.slides for part in parts},
        runs,
        [entry for part in parts for entry in part.skipped],
    )


class _Asking:
    """One collection's queries."""

    def __init__(self, cluster: AskedCluster, name: str, settings: EvaluationSettings) -> None:
        self._cluster, self._settings = cluster, settings
        self.definition = cluster.definition_of(name)
        self.slides = [stored.slide for stored in cluster.list_slides(name)]
        self.skipped: list[tuple[str, str]] = []
        self._by_id = {slide.slide_id: slide for slide in self.slides}
        self._leaver = Leaver(self.slides, settings.leave_out)
        self._plans = self._possible_plans()
        self._queries = self._chosen_slides()
        self._reachable = Reachable(self.slides, settings)

    def runs(self, watch: Watch) -> list[Run]:
        """Ask every query of every plan."""
        outcomes: dict[RunPlan, list[QueryOutcome]] = {plan: [] for plan in self._plans}
        for done, slide in enumerate(self._queries):
            watch(self.definition.name, done, len(self._queries))
            for plan, outcome in self._outcomes_of(slide):
                outcomes[plan].append(outcome)
        watch(self.definition.name, len(self._queries), len(self._queries))
        return [Run(plan, found) for plan, found in outcomes.items()]

    def _possible_plans(self) -> list[RunPlan]:
        plans = []
        for mode in self._settings.modes:
            try:
                self.definition.check_mode(mode)
            except BadRequest as error:
                self.skipped.append((f"{self.definition.name}: mode {mode}", error.message))
                continue
            rankings = [None] if self._settings.is_by_patch else self._settings.rankings
            plans += [
                RunPlan(self.definition.name, mode, ranking, bound)
                for bound in self._settings.bounds_of(mode)
                for ranking in rankings
            ]
        if not plans:
            raise BadRequest("; ".join(problem for _, problem in self.skipped), field="mode")
        return plans

    def _chosen_slides(self) -> list[Slide]:
        field, name = self._settings.label_field, self.definition.name
        labelled = [slide for slide in self.slides if slide.label(field)]
        if not labelled:
            known = sorted({key for slide in self.slides for key in slide.labels})
            raise BadRequest(
                f"no slide of collection {name!r} has the label {field!r} ({counted(len(self.slides), 'slide')};"
                f" other labels there: {', '.join(known) or 'none'}): name another with --label",
                field="label",
            )
        if len(labelled) < len(self.slides):
            missing = len(self.slides) - len(labelled)
            self.skipped.append(
                (f"{name}: {counted(missing, 'slide')}", f"no label {field!r}: not asked for")
            )
        most = self._settings.max_queries
        if most and most < len(labelled):
            labelled = random.Random(self._settings.rng_seed).sample(labelled, most)
            labelled.sort(key=lambda slide: slide.slide_id)
        return labelled

    def _outcomes_of(self, slide: Slide) -> Iterator[tuple[RunPlan, QueryOutcome]]:
        started = time.perf_counter()
        try:
            encoded = self._cluster.encoded_slide(
                self.definition.name, slide.slide_id, timeout_s=self._settings.timeout_s
            )
        except SishError as error:
            for plan in self._plans:
                yield plan, self._outcome(slide, plan, problem=error.message)
            return
        load_ms = _ms_since(started)
        started = time.perf_counter()
        where = self._leaver.filter_for(slide)
        ms = {LOAD: load_ms, EXCLUSION: _ms_since(started)}
        for plan in self._plans:
            query = query_of(encoded, plan, where, self.definition, self._settings)
            try:
                for outcome in self._answers(slide, plan, query, ms):
                    yield plan, self._checked(outcome, slide)
            except SishError as error:
                yield plan, self._outcome(slide, plan, problem=error.message)

    def _answers(
        self, slide: Slide, plan: RunPlan, query: Query, ms: dict[str, float]
    ) -> Iterator[QueryOutcome]:
        settings, started = self._settings, time.perf_counter()
        if plan.ranking is None:
            result = self._cluster.search_patches(
                plan.collection, query, timeout_s=settings.timeout_s
            )
            times = ms | {SEARCH: _ms_since(started), ROUTER: result.elapsed_ms}
            return self._patch_outcomes(slide, plan, query, (result, times))
        answer = self._cluster.search(
            plan.collection,
            query,
            k=settings.most,
            ranking=plan.ranking,
            max_matches=1,
            timeout_s=settings.timeout_s,
        )
        times = ms | {SEARCH: _ms_since(started), ROUTER: answer.elapsed_ms}
        return iter([self._slide_outcome(slide, plan, answer, times)])

    def _slide_outcome(
        self, slide: Slide, plan: RunPlan, answer: SearchResult, ms: dict[str, float]
    ) -> QueryOutcome:
        found = [
            self._found(one.slide, one.matches[0].number if one.matches else -1, one.distance)
            for one in answer.results
        ]
        return dataclasses.replace(
            self._outcome(slide, plan),
            found=found,
            mode=answer.mode,
            coverage=answer.coverage,
            eligible=answer.eligible,
            ms=ms,
        )

    def _patch_outcomes(
        self,
        slide: Slide,
        plan: RunPlan,
        query: Query,
        answered: tuple[PatchesResult, dict[str, float]],
    ) -> Iterator[QueryOutcome]:
        """Yield each patch's outcome; the call's times are shared out evenly."""
        result, ms = answered
        columns, n = result.candidates, len(query.patches)
        for row, number in enumerate(query.patches.numbers.tolist()):
            rows = range(*columns.rows_of(row).indices(len(columns)))[: self._settings.most]
            found = [
                self._found(
                    result.slides[columns.slides[at]],
                    int(columns.numbers[at]),
                    int(columns.distances[at]),
                )
                for at in rows
            ]
            yield dataclasses.replace(
                self._outcome(slide, plan),
                query_id=slide.slide_id if n == 1 else f"{slide.slide_id}#{number}",
                number=number,
                found=found,
                mode=result.mode,
                coverage=int(result.examined_counts[row]) / max(result.eligible, 1),
                eligible=result.eligible,
                ms={stage: spent / n for stage, spent in ms.items()},
            )

    def _found(self, slide: Slide, number: int, distance: int) -> Found:
        label = slide.label(self._settings.label_field)
        return Found(slide.slide_id, number, label, slide.institution, distance)

    def _outcome(self, slide: Slide, plan: RunPlan, *, problem: str = "") -> QueryOutcome:
        """Return a query of which nothing is known yet."""
        return QueryOutcome(
            slide.slide_id,
            slide.slide_id,
            -1,
            slide.label(self._settings.label_field),
            patient_of(slide),
            slide.institution,
            (),
            plan.mode,
            coverage=0.0,
            eligible=0,
            ms={},
            problem=problem,
            is_reachable=self._reachable.by(slide),
        )

    def _checked(self, outcome: QueryOutcome, query: Slide) -> QueryOutcome:
        """Return the outcome, or a failed one if it holds what had to be left out."""
        leaked = [
            found.slide_id
            for found in outcome.found
            if self._leaver.is_left_out(self._by_id[found.slide_id], query=query)
        ]
        if not leaked:
            return outcome
        problem = (
            f"the search returned {leaked[0]}, which had to be left out ({self._settings.leave_out}):"
            " the answer does not count; report this"
        )
        return dataclasses.replace(outcome, found=(), problem=problem)


def _ms_since(started: float) -> float:
    return (time.perf_counter() - started) * 1000
