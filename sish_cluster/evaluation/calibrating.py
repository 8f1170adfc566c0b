"""Measuring a calibration: a sample of stored patches searched exactly, then at every budget."""

from __future__ import annotations

import dataclasses
import math
import random
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from sish_cluster.core.collection import Collection
from sish_cluster.core.counting import counted
from sish_cluster.core.errors import BadRequest, SishError
from sish_cluster.core.query import Filter, Mode, Query, SearchSettings
from sish_cluster.core.result import PatchesResult
from sish_cluster.core.slide import Slide
from sish_cluster.evaluation.asked import AskedCluster
from sish_cluster.evaluation.calibration import (
    Budget,
    Calibration,
    CalibrationSettings,
    DistanceCurve,
)
from sish_cluster.evaluation.distance_curve import Neighbours, curve_of
from sish_cluster.evaluation.leaving_out import Leaver
from sish_cluster.evaluation.proposing import proposal_of
from sish_cluster.evaluation.settings import ANY_DISTANCE

MOST_PAIRS = 200_000
"""Neighbours asked for in one call: an answer of 5 MB, well within what a message may have."""

Watch = Callable[[str, int, int], None]
"""Called with what is measured, steps done, steps in all."""

Name = tuple[str, int]
"""A stored patch: slide id and patch number."""


def unwatched(what: str, done: int, total: int) -> None:
    """Ignore progress."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class _Sample:
    """Some patches of one slide, as a query, and their EXACT neighbours."""

    slide: Slide
    query: Query
    nearest: Sequence[Sequence[Name]]
    neighbours: Sequence[Neighbours]
    chance: float


def calibrated(
    cluster: AskedCluster,
    collection: str,
    *,
    settings: CalibrationSettings | None = None,
    watch: Watch = unwatched,
) -> Calibration:
    """Return a collection's calibration.

    Parameters
    ----------
    cluster
        Who is asked.
    collection
        Its name.
    settings
        What is sampled and tried.
    watch
        Told how far it is.

    Raises
    ------
    BadRequest
        If fewer than two patients have slides in it.
    """
    return _Calibrating(cluster, collection, settings or CalibrationSettings(), watch).done()


class _Calibrating:
    def __init__(
        self, cluster: AskedCluster, name: str, settings: CalibrationSettings, watch: Watch
    ) -> None:
        self._cluster, self._settings, self._watch = cluster, settings, watch
        self._definition: Collection = cluster.definition_of(name)
        self._slides = [stored.slide for stored in cluster.list_slides(name)]
        self._leaver = Leaver(self._slides, settings.leave_out)

    def done(self) -> Calibration:
        """Sample, try every budget, propose."""
        samples = self._samples()
        if not any(len(near) for sample in samples for near in sample.nearest):
            raise BadRequest(
                f"collection {self._definition.name!r} has no neighbours to measure: a calibration needs"
                f" slides of at least two patients (found {counted(len(self._slides), 'slide')})"
            )
        has_keys = Mode.GUIDED in self._definition.modes
        budgets = self._budgets(samples) if has_keys else []
        curve = self._curve(samples)
        unit = "bits" if self._definition.code_bits else "cosine units"
        return Calibration(
            self._definition.name,
            self._definition.fingerprint,
            self._postings(samples),
            unit,
            sum(len(sample.nearest) for sample in samples),
            self._settings,
            budgets,
            curve,
            proposal_of(budgets, curve, self._settings, unit=unit),
        )

    def _postings(self, samples: Sequence[_Sample]) -> int:
        """Return the collection's postings: those eligible, and the left-out slides' own."""
        whole = dataclasses.replace(samples[0].query, where=Filter())
        return self._searched(whole, self._reference_mode()).eligible

    def _reference_mode(self) -> Mode:
        return Mode.EXACT if self._definition.code_bits else Mode.DIRECT

    def _samples(self) -> list[_Sample]:
        rng = random.Random(self._settings.rng_seed)
        chosen = rng.sample(self._slides, min(len(self._slides), self._settings.sample))
        per_slide = -(-self._settings.sample // max(len(chosen), 1))
        samples: list[_Sample] = []
        for done, slide in enumerate(chosen):
            self._watch("exact neighbours", done, len(chosen))
            try:
                samples.append(self._sample(slide, per_slide, rng))
            except SishError:
                # A slide that cannot be read now says nothing about the bounds.
                continue
        return samples

    def _sample(self, slide: Slide, most: int, rng: random.Random) -> _Sample:
        encoded = self._cluster.encoded_slide(self._definition.name, slide.slide_id)
        rows = sorted(rng.sample(range(len(encoded.patches)), min(most, len(encoded.patches))))
        query = Query(
            encoded.patches.taken(np.asarray(rows, np.int64)),
            encoded.fingerprint,
            where=self._leaver.filter_for(slide),
            label_field=self._settings.label_field,
            patient=slide.patient,
        )
        k, most = self._settings.k, min(self._settings.neighbours, MOST_PAIRS // max(len(rows), 1))
        result = self._searched(query, self._reference_mode(), most=max(k, most))
        return self._with_neighbours(slide, query, result, max(k, most))

    def _with_neighbours(
        self, slide: Slide, query: Query, result: PatchesResult, most: int
    ) -> _Sample:
        truth = slide.label(self._settings.label_field)
        found, names = result.candidates, _names(result)
        labels = [s.label(self._settings.label_field) for s in result.slides]
        is_same = np.asarray([bool(truth) and label == truth for label in labels], bool)
        rows = [found.rows_of(row) for row in range(found.n_query_patches)]
        return _Sample(
            slide,
            query,
            [names[part][: self._settings.k] for part in rows],
            [
                Neighbours(
                    at := found.distances[part].astype(np.int64),
                    is_same[found.slides[part]],
                    # Of those as far as the last, some may have been cut off.
                    int(at[-1]) - 1 if len(at) >= most else math.inf,
                    bool(truth),
                )
                for part in rows
            ],
            self._chance(slide, query.where),
        )

    def _chance(self, slide: Slide, where: Filter) -> float:
        field = self._settings.label_field
        counts = Counter(s.label(field) for s in self._slides if s.label(field) and where.passes(s))
        return counts[slide.label(field)] / max(counts.total(), 1)

    def _searched(
        self,
        query: Query,
        mode: Mode,
        budget: tuple[int, int, int] | None = None,
        *,
        most: int | None = None,
    ) -> PatchesResult:
        usual = SearchSettings()
        steps, seeds, spacing = budget or (
            usual.max_steps,
            usual.seeds_per_side,
            usual.seed_spacing,
        )
        bounds = SearchSettings(
            mode,
            max_distance=ANY_DISTANCE,
            max_steps=steps,
            seeds_per_side=seeds,
            seed_spacing=spacing,
            max_candidates=most or self._settings.k,
            min_cosine=-1.0,
        )
        patches = query.patches if mode is Mode.DIRECT else query.patches.without_embeddings()
        return self._cluster.search_patches(
            self._definition.name,
            dataclasses.replace(query, settings=bounds, patches=patches),
            timeout_s=self._settings.timeout_s,
        )

    def _budgets(self, samples: Sequence[_Sample]) -> list[Budget]:
        usual = SearchSettings()
        published = (usual.max_steps, usual.seeds_per_side, usual.seed_spacing)
        tried = [(Mode.SISH, published), *((Mode.GUIDED, b) for b in self._settings.budgets)]
        found = []
        for done, (mode, budget) in enumerate(tried):
            self._watch("budgets", done, len(tried))
            found.append(self._budget(mode, budget, samples))
        self._watch("budgets", len(tried), len(tried))
        return sorted(found, key=lambda budget: (budget.recall, -budget.coverage))

    def _budget(
        self, mode: Mode, budget: tuple[int, int, int], samples: Sequence[_Sample]
    ) -> Budget:
        recalls: list[float] = []
        coverages: list[float] = []
        spent: list[float] = []
        for sample in samples:
            result = self._searched(sample.query, mode, budget)
            recalls += _recalls(result, sample, self._settings.k)
            coverages.append(result.coverage)
            spent.append(result.elapsed_ms / max(len(sample.nearest), 1))
        return Budget(
            mode,
            *budget,
            recall=float(np.mean(recalls)),
            coverage=float(np.mean(coverages)),
            ms=float(np.median(spent)),
        )

    def _curve(self, samples: Sequence[_Sample]) -> DistanceCurve:
        chances = [s.chance for s in samples if s.slide.label(self._settings.label_field)]
        queries = [near for sample in samples for near in sample.neighbours]
        return curve_of(queries, chances=chances, k=self._settings.k)


def _names(result: PatchesResult) -> list[Name]:
    ids = [slide.slide_id for slide in result.slides]
    found = result.candidates
    pairs = zip(found.slides.tolist(), found.numbers.tolist(), strict=True)
    return [(ids[slide], number) for slide, number in pairs]


def _recalls(result: PatchesResult, sample: _Sample, k: int) -> list[float]:
    """Return each query patch's share of its k nearest that the result's k nearest hold."""
    names = _names(result)
    found = [set(names[result.candidates.rows_of(row)][:k]) for row in range(len(sample.nearest))]
    return [
        len(held & set(wanted)) / len(wanted)
        for held, wanted in zip(found, sample.nearest, strict=True)
        if wanted
    ]
