"""Calibration: what a collection's own patches say about the bounds of its searches.

Two questions, answered by a sample of stored patches, each searched with its own patient left out:

1. How much of what EXACT finds does GUIDED find, by budget (``max_steps`` x ``seeds_per_side`` x
   ``seed_spacing``)? Proposed is the budget that examines the fewest postings among those whose recall of
   EXACT's k nearest reaches the target.
2. Up to which distance is a neighbour worth anything? The share of same-label neighbours falls with the
   distance, every neighbour within a bound being looked at (`distance_curve`); proposed is the distance
   where it falls to half way between chance (the share of the label among all eligible slides) and
   certainty. Where labels cannot tell, it is the distance within which the
   target's share of the queries has k neighbours.

Neighbours compete for k places, so both answers belong to the collection as it is: calibrate again when
it has doubled.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sish_cluster.core.counting import counted
from sish_cluster.core.errors import BadRequest
from sish_cluster.core.query import Mode, SearchSettings
from sish_cluster.evaluation.settings import LeaveOut

OUTGROWN = 2.0
"""A collection this many times the size it was calibrated at is no longer the one that was measured."""


@dataclasses.dataclass(frozen=True, slots=True)
class CalibrationSettings:
    """What is sampled and tried."""

    sample: int = 200
    """Query patches: at 200 the standard error of a recall of 0.9 is 0.02."""
    target_recall: float = 0.9
    """Share of EXACT's k nearest that a guided search ought to find."""
    k: int = 5
    """Neighbours whose recall counts, as many as a search returns."""
    neighbours: int = 2000
    """Most neighbours of each query whose distances are looked at; see `distance_curve`."""
    label_field: str = "diagnosis"
    """The label neighbours are compared by."""
    leave_out: LeaveOut = LeaveOut.PATIENT
    """Whose slides a query may not find."""
    max_steps: Sequence[int] = (25, 100, 375, 1500)
    """Budgets tried: steps each way, about four times the last each."""
    seeds_per_side: Sequence[int] = (1, 4, 10)
    """Budgets tried: seeds on each side."""
    seed_spacing: Sequence[int] = (10, 50, 200)
    """Budgets tried: coarse units between seeds."""
    rng_seed: int = 0
    """Draws the sample."""
    timeout_s: float = 60.0
    """Seconds for one search."""

    def __post_init__(self) -> None:
        if self.sample < 1 or self.k < 1 or not 0 < self.target_recall <= 1:
            raise BadRequest(
                "a calibration samples at least 1 patch, looks at k >= 1 neighbours and aims at a recall"
                f" in (0, 1]; found {self.sample}, {self.k}, {self.target_recall}"
            )

    @property
    def budgets(self) -> list[tuple[int, int, int]]:
        """Every (max_steps, seeds_per_side, seed_spacing) tried; the defaults always among them."""
        usual = SearchSettings()
        default = (usual.max_steps, usual.seeds_per_side, usual.seed_spacing)
        grid = itertools.product(self.max_steps, self.seeds_per_side, self.seed_spacing)
        return sorted({default, *grid})


@dataclasses.dataclass(frozen=True, slots=True)
class Budget:
    """One budget of a walk and what it gave.

    Parameters
    ----------
    mode
        GUIDED, or SISH at its published constants.
    max_steps, seeds_per_side, seed_spacing
        The budget.
    recall
        Share of EXACT's k nearest found, mean over the query patches.
    coverage
        Postings examined / eligible, mean.
    ms
        Milliseconds a query patch, median.
    """

    mode: Mode
    max_steps: int
    seeds_per_side: int
    seed_spacing: int
    recall: float
    coverage: float
    ms: float


@dataclasses.dataclass(frozen=True, slots=True)
class DistanceCurve:
    """How many neighbours of the same and of another label lie at each distance.

    Parameters
    ----------
    edges
        n + 1 borders of the bins: Hamming bits, cosine units in a collection without codes.
    same, other
        Neighbours in each bin, n each.
    precision
        Share of the same label in each bin, made to fall with the distance (isotonic), n.
    chance
        Share of the same label among all eligible slides, mean over the queries.
    kth
        Distance of each query's k-th neighbour, ascending.
    within
        The distance within which every neighbour was looked at, and none beyond counted; 0 in calibrations of
        before this was so.
    left_out
        Queries with too many neighbours to look at all within it: they are not in the bins.
    """

    edges: Sequence[float]
    same: Sequence[int]
    other: Sequence[int]
    precision: Sequence[float]
    chance: float
    kth: Sequence[int]
    within: int = 0
    left_out: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Proposal:
    """Proposed bounds and why; the budget is None where the collection has no keys to walk."""

    max_distance: int
    distance_reason: str
    budget: Budget | None
    budget_reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class Calibration:
    """What was measured, and what it proposes.

    Parameters
    ----------
    collection, fingerprint, postings
        What was measured, and how large it was.
    unit
        Of distances: ``bits`` or ``cosine units``.
    sample
        Query patches that were searched.
    settings
        What was tried.
    budgets
        Ascending in recall; of equal recalls the one that examines least comes last.
    distances
        Neighbours by distance.
    proposal
        The bounds to use.
    """

    collection: str
    fingerprint: str
    postings: int
    unit: str
    sample: int
    settings: CalibrationSettings
    budgets: Sequence[Budget]
    distances: DistanceCurve
    proposal: Proposal

    def to_json(self) -> dict[str, Any]:
        """Return plain values, `from_json`'s inverse."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Calibration:
        """Return the calibration `to_json` described.

        Raises
        ------
        BadRequest
            If it is no calibration.
        """
        try:
            held = dict(values)
            settings = dict(held["settings"])
            settings["leave_out"] = LeaveOut(settings["leave_out"])
            budgets = [_budget(entry) for entry in held["budgets"]]
            proposal = dict(held["proposal"])
            if proposal["budget"] is not None:
                proposal["budget"] = _budget(proposal["budget"])
            held |= {
                "settings": CalibrationSettings(**settings),
                "budgets": budgets,
                "distances": DistanceCurve(**held["distances"]),
                "proposal": Proposal(**proposal),
            }
            return cls(**held)
        except (KeyError, TypeError, ValueError) as error:
            raise BadRequest(
                f"not a calibration ({error}): make it anew with `sish calibrate`"
            ) from error


def _budget(values: Mapping[str, Any]) -> Budget:
    return Budget(**{**values, "mode": Mode(values["mode"])})


def calibration_path(home: Path, collection: str) -> Path:
    """Return where the calibration of an embedded cluster's collection lies."""
    return home / "calibration" / f"{collection}.json"


def read_calibration(path: Path) -> Calibration | None:
    """Return the calibration in a file, or None where there is no file.

    Raises
    ------
    BadRequest
        If the file holds something else.
    """
    try:
        return Calibration.from_json(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (ValueError, AttributeError) as error:
        raise BadRequest(f"{path}: not a calibration ({error}): make it anew") from error


def recall_expected(mode: Mode, settings: SearchSettings, calibration: Calibration) -> float | None:
    """Return the recall a walk of these settings has at least, as measured; None where nothing tells.

    The largest of the measured budgets that examine a part of what ``settings`` would: as many steps and
    seeds or fewer, at the same spacing (with one seed a side, at any). EXACT and DIRECT find everything.
    """
    if mode not in (Mode.SISH, Mode.GUIDED):
        return 1.0
    smaller = [
        budget.recall
        for budget in calibration.budgets
        if budget.mode is mode
        and budget.max_steps <= settings.max_steps
        and budget.seeds_per_side <= settings.seeds_per_side
        and (budget.seed_spacing == settings.seed_spacing or budget.seeds_per_side == 1)
    ]
    return max(smaller, default=None)


def warning_for(
    mode: Mode,
    settings: SearchSettings,
    calibration: Calibration | None,
    *,
    postings: int | None = None,
) -> str:
    """Return what a report ought to say about a search's recall, or ``""`` where all is well.

    Parameters
    ----------
    mode
        What ran (never AUTO).
    settings
        Its bounds.
    calibration
        The collection's; None where nobody calibrated it: then there is nothing to say.
    postings
        Postings the collection holds now; None where unknown.
    """
    if calibration is None or mode not in (Mode.SISH, Mode.GUIDED):
        return ""
    if postings is not None and postings > OUTGROWN * calibration.postings:
        return (
            f"calibrated at {counted(calibration.postings, 'posting')}, now {postings:,}: the guided search's recall"
            " is unknown at this size; run `sish calibrate` again, or search with --mode exact"
        )
    expected, target = (
        recall_expected(mode, settings, calibration),
        calibration.settings.target_recall,
    )
    if expected is None or expected >= target:
        return ""
    return (
        f"this {mode} search is expected to find {expected:.0%} of the {calibration.settings.k} nearest"
        f" patches (target {target:.0%}; {counted(settings.max_steps, 'step')}, {counted(settings.seeds_per_side, 'seed')} a"
        f" side): {_remedy(calibration)}"
    )


def _remedy(calibration: Calibration) -> str:
    budget = calibration.proposal.budget
    if budget is None or budget.recall < calibration.settings.target_recall:
        return "use --mode exact"
    return (
        f"use --mode exact, or --mode guided with {counted(budget.max_steps, 'step')},"
        f" {counted(budget.seeds_per_side, 'seed')} a side, spacing {budget.seed_spacing} ({budget.recall:.0%})"
    )
