import dataclasses
import itertools
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sish_cluster.core.errors import BadRequest
from sish_cluster.core.query import Mode, SearchSettings
from sish_cluster.evaluation.calibrating import calibrated
from sish_cluster.evaluation.calibration import (
    Budget,
    Calibration,
    CalibrationSettings,
    DistanceCurve,
    read_calibration,
    recall_expected,
    warning_for,
)
from sish_cluster.evaluation.calibration_page import calibration_page
from sish_cluster.evaluation.distance_curve import Neighbours, curve_of, falling
from sish_cluster.evaluation.proposing import proposal_of

FEW = CalibrationSettings(
    sample=12, label_field="site", max_steps=(1, 400), seeds_per_side=(1,), seed_spacing=(50,)
)
COUNTS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=12)


@pytest.fixture(scope="module")
def calibration(home):
    return calibrated(home, "synthetic", settings=FEW)


def test_a_budget_that_covers_everything_finds_everything_and_a_larger_one_never_finds_less(
    calibration,
):
    by_steps = {b.max_steps: b for b in calibration.budgets if b.mode is Mode.GUIDED}
    assert by_steps[400].recall == by_steps[400].coverage == 1.0
    assert by_steps[1].recall < 1.0
    assert by_steps[1].coverage < by_steps[400].coverage
    assert {b.mode for b in calibration.budgets} == {Mode.SISH, Mode.GUIDED}


def test_the_proposed_bound_separates_drawn_sites_from_each_other(calibration):
    curve, bound = calibration.distances, calibration.proposal.max_distance
    # Slides of one site differ in about 6 % of 1024 bits, slides of two in half of them.
    assert 60 < bound < 400
    assert sum(curve.same) > 0
    assert curve.precision[0] == 1.0
    assert "chance" in calibration.proposal.distance_reason


def test_the_cheapest_budget_that_reaches_the_target_is_proposed(calibration):
    chosen = calibration.proposal.budget
    enough = [b for b in calibration.budgets if b.mode is Mode.GUIDED and b.recall >= 0.9]
    assert chosen.coverage == min(budget.coverage for budget in enough)


def test_a_calibration_survives_its_json(calibration, tmp_path):
    path = tmp_path / "c.json"
    path.write_text(json.dumps(calibration.to_json()))
    assert read_calibration(path).to_json() == json.loads(path.read_text())
    assert isinstance(read_calibration(path).budgets[0], Budget)
    assert read_calibration(tmp_path / "absent.json") is None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"settings": {"k": 0}}'])
def test_a_file_that_is_no_calibration_is_refused(tmp_path, text):
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(BadRequest, match="not a calibration"):
        read_calibration(tmp_path / "c.json")


def test_a_search_below_the_target_is_warned_of_and_told_what_reaches_it(calibration):
    small = SearchSettings(max_steps=1, seeds_per_side=1)
    warning = warning_for(Mode.GUIDED, small, calibration)
    assert "target 90%" in warning
    assert f"{calibration.proposal.budget.max_steps} steps" in warning
    assert warning_for(Mode.GUIDED, SearchSettings(max_steps=400), calibration) == ""


def test_exhaustive_searches_and_uncalibrated_collections_are_not_warned_of(calibration):
    small = SearchSettings(max_steps=1)
    assert warning_for(Mode.EXACT, small, calibration) == ""
    assert warning_for(Mode.DIRECT, small, calibration) == ""
    assert warning_for(Mode.GUIDED, small, None) == ""


def test_a_collection_that_outgrew_its_calibration_is_warned_of(calibration):
    assert calibration.postings == 24 * 4
    settings = SearchSettings(max_steps=400)
    assert warning_for(Mode.GUIDED, settings, calibration, postings=2 * 96) == ""
    assert "again" in warning_for(Mode.GUIDED, settings, calibration, postings=2 * 96 + 1)


def test_expected_recall_counts_only_budgets_that_examine_a_part(calibration):
    below_all = SearchSettings(max_steps=0)
    assert recall_expected(Mode.GUIDED, below_all, calibration) is None
    other_spacing = SearchSettings(max_steps=400, seed_spacing=7)
    assert recall_expected(Mode.GUIDED, other_spacing, calibration) == 1.0


def test_a_collection_of_one_patient_has_nothing_to_measure(home):
    alone = dataclasses.replace(home.definition_of("synthetic"), name="alone")
    home.create_collection(alone)
    with pytest.raises(BadRequest, match="two patients"):
        calibrated(home, "alone", settings=FEW)


def test_its_page_holds_both_figures_and_every_budget(calibration):
    page = calibration_page(calibration)
    assert page.count("data:image/svg+xml;base64,") == 2
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert page.count("<tr>") == 1 + len(calibration.budgets)


@given(COUNTS)
def test_the_pooled_shares_fall_and_keep_the_total(counts):
    same = np.array([hits for hits, _ in counts])
    total = np.array([hits + misses for hits, misses in counts])
    shares = falling(same, total)
    assert all(a >= b - 1e-12 for a, b in itertools.pairwise(shares))
    assert np.dot(shares, total) == pytest.approx(same.sum())


def drawn_curve(same, other, chance=0.2):
    edges = list(range(0, 10 * (len(same) + 1), 10))
    total = np.array(same) + np.array(other)
    return DistanceCurve(
        edges, same, other, falling(np.array(same), total), chance, list(range(0, 100))
    )


def test_the_bound_lies_where_the_share_falls_half_way_to_chance():
    proposal = proposal_of([], drawn_curve([50, 30, 5], [0, 10, 60]), FEW, unit="bits")
    assert proposal.max_distance == 20
    assert proposal.budget is None


def test_labels_that_tell_nothing_leave_the_bound_to_the_neighbours_there_are():
    proposal = proposal_of([], drawn_curve([10, 10], [40, 40]), FEW, unit="bits")
    assert proposal.max_distance == 89
    assert "labels do not tell" in proposal.distance_reason


def test_where_no_budget_reaches_the_target_exact_is_advised():
    poor = Budget(Mode.GUIDED, 25, 1, 10, recall=0.3, coverage=0.1, ms=1.0)
    proposal = proposal_of([poor], drawn_curve([50], [0]), FEW, unit="bits")
    assert proposal.budget == poor
    assert "--mode exact" in proposal.budget_reason


def test_settings_beyond_reason_are_refused():
    with pytest.raises(BadRequest, match="recall"):
        CalibrationSettings(target_recall=1.5)


def test_the_class_reads_only_what_it_wrote(calibration):
    values = calibration.to_json()
    values["proposal"] = {"max_distance": 1}
    with pytest.raises(BadRequest, match="not a calibration"):
        Calibration.from_json(values)


def near(distances, is_same, reach=float("inf"), *, is_labelled=True):
    return Neighbours(np.array(distances), np.array(is_same, bool), reach, is_labelled)


def test_only_neighbours_within_what_was_looked_at_whole_count():
    whole = near([1, 5, 9, 20], [1, 1, 0, 0], reach=12)
    further = near([2, 6, 40], [1, 0, 0])
    curve = curve_of([whole, further], chances=[0.5], k=2)
    assert (curve.within, curve.left_out) == (12, 0)
    assert (sum(curve.same), sum(curve.other)) == (3, 2)
    assert curve.kth == [5, 6]


def test_a_few_crowded_patches_do_not_end_the_curve_for_all():
    crowded = near([0, 0, 0], [1, 1, 1], reach=-1)
    curve = curve_of([crowded, *[near([3, 30], [1, 0])] * 10], chances=[0.5], k=1)
    assert (curve.within, curve.left_out) == (30, 1)
    assert (sum(curve.same), sum(curve.other)) == (10, 10)
    lonely = curve_of([crowded, near([4], [0], reach=8, is_labelled=False)], chances=[], k=1)
    assert (lonely.within, sum(lonely.same) + sum(lonely.other)) == (0, 0)


def test_every_neighbour_is_looked_at_and_more_than_k_do_not_move_the_bound(home, calibration):
    assert calibration.distances.left_out == 0
    n_pairs = sum(calibration.distances.same) + sum(calibration.distances.other)
    assert n_pairs == 12 * 22 * 4  # every patch of every other patient
    few = dataclasses.replace(FEW, neighbours=80, max_steps=(1,))
    cut = calibrated(home, "synthetic", settings=few)
    assert 0 < cut.distances.within < calibration.distances.within
    assert cut.proposal.max_distance <= cut.distances.within + 10
