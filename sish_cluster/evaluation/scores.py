"""From single queries to a collection: means per class, macro and micro, with confidence intervals.

**Micro** is the mean over queries, **macro** the mean over classes of the class's mean. Intervals are
percentile bootstrap intervals: groups (patients, where known) are drawn with replacement, because the
slides of one patient are not independent of each other.

Source
------
B. Efron, "Bootstrap methods: another look at the jackknife", Annals of Statistics 7 (1979).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
"""Real numbers, float64."""


@dataclasses.dataclass(frozen=True, slots=True)
class Interval:
    """A mean and its bootstrap interval, all in the measure's own unit.

    Parameters
    ----------
    mean
        Of the queries themselves.
    low, high
        Percentiles of the resampled means; both the mean where nothing was resampled.
    """

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclasses.dataclass(frozen=True, slots=True)
class Score:
    """One measure over a set of queries.

    Parameters
    ----------
    micro, macro
        Mean over queries; mean over classes.
    per_class
        Class -> its queries' mean, classes in sorted order.
    counts
        Class -> how many queries.
    """

    micro: Interval
    macro: Interval
    per_class: Mapping[str, Interval]
    counts: Mapping[str, int]


@dataclasses.dataclass(frozen=True, slots=True)
class BootstrapSettings:
    """How intervals are drawn."""

    resamples: int = 1000
    """Times the groups are drawn anew; 0 draws none, and every interval is its mean."""
    confidence: float = 0.95
    """Share of the resampled means inside an interval."""
    rng_seed: int = 0
    """The same seed draws the same intervals."""


def score_of(
    values: Sequence[float],
    classes: Sequence[str],
    groups: Sequence[str] | None = None,
    *,
    settings: BootstrapSettings | None = None,
) -> Score:
    """Return a measure per class, macro and micro.

    Parameters
    ----------
    values
        The measure of each query, (n,).
    classes
        Each query's true label, (n,).
    groups
        What is resampled as one: each query's patient, (n,); None resamples queries.
    settings
        How often, how wide, which seed.

    Raises
    ------
    ValueError
        If there is no query, or the lengths differ.
    """
    column = np.asarray(values, np.float64)
    if not len(column) or {len(classes), len(groups or classes)} != {len(column)}:
        raise ValueError(
            f"a score needs one class and one group for each of at least one query; found"
            f" {len(column)} values, {len(classes)} classes, {len(groups or classes)} groups"
        )
    settings = settings or BootstrapSettings()
    names, class_of = np.unique(np.asarray(classes, object).astype(str), return_inverse=True)
    sums, counts = _totals(column, class_of, groups, len(names))
    weights = _weights(len(sums), settings)
    means = _class_means(sums.sum(axis=0), counts.sum(axis=0))
    drawn_sums, drawn_counts = weights @ sums, weights @ counts
    drawn = _class_means(drawn_sums, drawn_counts)
    per_class = {
        str(name): _interval(means[row], drawn[:, row], settings) for row, name in enumerate(names)
    }
    micro = drawn_sums.sum(axis=1) / np.maximum(drawn_counts.sum(axis=1), 1)
    return Score(
        _interval(column.mean(), micro, settings),
        _interval(means.mean(), _mean_of_known(drawn), settings),
        per_class,
        {str(name): int(np.sum(class_of == row)) for row, name in enumerate(names)},
    )


def _totals(
    column: Floats, class_of: npt.NDArray[np.intp], groups: Sequence[str] | None, n_classes: int
) -> tuple[Floats, Floats]:
    """Return the sum and the number of values of each (group, class): float64 (groups, classes)."""
    group_of = np.arange(len(column))
    if groups is not None:
        group_of = np.unique(np.asarray(groups, object).astype(str), return_inverse=True)[1]
    shape = (int(group_of.max()) + 1, n_classes)
    sums, counts = np.zeros(shape), np.zeros(shape)
    np.add.at(sums, (group_of, class_of), column)
    np.add.at(counts, (group_of, class_of), 1)
    return sums, counts


def _weights(n_groups: int, settings: BootstrapSettings) -> Floats:
    """Return how often each resample draws each group: float64 (resamples, groups)."""
    rng = np.random.default_rng(settings.rng_seed)
    shares = np.full(n_groups, 1 / n_groups)
    return rng.multinomial(n_groups, shares, size=settings.resamples).astype(np.float64)


def _class_means(sums: Floats, counts: Floats) -> Floats:
    """Return means; NaN for a class that was not drawn."""
    unknown = np.full(np.shape(sums), np.nan)
    return np.asarray(np.divide(sums, counts, out=unknown, where=counts > 0), np.float64)


def _mean_of_known(drawn: Floats) -> Floats:
    """Return each resample's mean over the classes that were drawn; every resample draws one."""
    known = ~np.isnan(drawn)
    total = np.where(known, drawn, 0.0).sum(axis=1)
    return np.asarray(total / np.maximum(known.sum(axis=1), 1))


def _interval(mean: float, drawn: Floats, settings: BootstrapSettings) -> Interval:
    known = drawn[~np.isnan(drawn)]
    if not len(known):
        return Interval(float(mean), float(mean), float(mean))
    tail = (1 - settings.confidence) / 2
    low, high = np.quantile(known, [tail, 1 - tail])
    return Interval(float(mean), float(low), float(high))
