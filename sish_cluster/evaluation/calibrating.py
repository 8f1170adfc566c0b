"""Measuring a calibration: a sample of stored patches searched exactly, then at every budget."""

from __future__ import annotations

import dataclasses
import random
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

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
from sish_cluster.evaluation.leaving_out import Leaver
from sish_cluster.evaluation.proposing import proposal_of
from sish_cluster.evaluation.settings import ANY_DISTANCE

BINS = 40
"""Bins of the distance curve: fine enough to read a bound to a few bits."""

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
    distances: Sequence[npt.NDArray[np.int64]]
    is_same: Sequence[npt.NDArray[np.bool_]]
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
        result = self._searched(query, self._reference_mode())
        return self._with_neighbours(slide, query, result)

    def _with_neighbours(self, slide: Slide, query: Query, result: PatchesResult) -> _Sample:
        truth = slide.label(self._settings.label_field)
        found, names = result.candidates, _names(result)
        labels = [s.label(self._settings.label_field) for s in result.slides]
        is_same = np.asarray([bool(truth) and label == truth for label in labels], bool)
        rows = [found.rows_of(row) for row in range(found.n_query_patches)]
        return _Sample(
            slide,
            query,
            [names[part][: self._settings.k] for part in rows],
            [found.distances[part].astype(np.int64) for part in rows],
            [is_same[found.slides[part]] for part in rows],
            self._chance(slide, query.where),
        )

    def _chance(self, slide: Slide, where: Filter) -> float:
        field = self._settings.label_field
        counts = Counter(s.label(field) for s in self._slides if s.label(field) and where.passes(s))
        return counts[slide.label(field)] / max(counts.total(), 1)

    def _searched(
        self, query: Query, mode: Mode, budget: tuple[int, int, int] | None = None
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
            max_candidates=self._settings.neighbours,
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
        labelled = [s for s in samples if s.slide.label(self._settings.label_field)]
        distances = np.concatenate([d for s in samples for d in s.distances])
        first, last = int(distances.min()), int(distances.max())
        # Whole widths: distances are whole numbers, and narrower bins would stay empty by turns.
        width = -(-(last - first + 1) // BINS)
        edges = np.arange(first, last + width + 1, width)
        known = [d for s in labelled for d in s.distances] or [np.zeros(0, np.int64)]
        flags = [f for s in labelled for f in s.is_same] or [np.zeros(0, bool)]
        at, is_same = np.concatenate(known), np.concatenate(flags)
        same = np.histogram(at[is_same], edges)[0]
        other = np.histogram(at[~is_same], edges)[0]
        place = self._settings.k - 1
        kth = [int(d[min(place, len(d) - 1)]) for s in samples for d in s.distances if len(d)]
        return DistanceCurve(
            [float(edge) for edge in edges],
            [int(n) for n in same],
            [int(n) for n in other],
            falling(same, same + other),
            float(np.mean([s.chance for s in labelled])) if labelled else 0.0,
            sorted(kth),
        )


def falling(same: npt.NDArray[np.int64], total: npt.NDArray[np.int64]) -> list[float]:
    """Return the share ``same / total`` of each bin, made to fall: neighbouring bins that rise are pooled.

    The pool-adjacent-violators solution of isotonic regression, bins weighing as many neighbours as they
    hold; empty bins take what stands before them.

    Examples
    --------
    >>> falling(np.array([3, 1, 2, 0]), np.array([3, 2, 2, 0]))
    [1.0, 0.75, 0.75, 0.75]
    """
    pools: list[list[float]] = []
    for hits, n in zip(same.tolist(), total.tolist(), strict=True):
        if not n and pools:
            pools[-1][2] += 1
            continue
        pools.append([hits, n, 1])
        while len(pools) > 1 and _share(pools[-1]) > _share(pools[-2]):
            last = pools.pop()
            pools[-1] = [a + b for a, b in zip(pools[-1], last, strict=True)]
    return [_share(pool) for pool in pools for _ in range(int(pool[2]))]


def _share(pool: Sequence[float]) -> float:
    """Return a pool's share; 1 for the empty bins before the first neighbour."""
    return pool[0] / pool[1] if pool[1] else 1.0


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
