import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sish_cluster.evaluation.robustness import robustness_of
from sish_cluster.evaluation.scores import BootstrapSettings, score_of
from tests.oracles import metrics as oracle

QUERIES = st.lists(
    st.tuples(st.floats(0, 1), st.sampled_from("abc"), st.sampled_from("pqrs")), min_size=1
)
FEW = BootstrapSettings(resamples=40)


@given(QUERIES)
def test_micro_and_macro_equal_the_oracle(queries):
    values, classes, groups = zip(*queries, strict=True)
    score = score_of(values, classes, groups, settings=FEW)
    assert score.micro.mean == pytest.approx(oracle.micro(values))
    assert score.macro.mean == pytest.approx(oracle.macro(values, classes))
    assert sum(score.counts.values()) == len(values)


@given(QUERIES)
def test_intervals_lie_within_the_values_of_the_measure(queries):
    values, classes, groups = zip(*queries, strict=True)
    score = score_of(values, classes, groups, settings=FEW)
    for interval in (score.micro, score.macro, *score.per_class.values()):
        assert min(values) - 1e-9 <= interval.low <= interval.high <= max(values) + 1e-9


def test_the_same_seed_draws_the_same_interval_and_another_seed_another():
    values = np.linspace(0, 1, 50).tolist()
    first, again, other = (
        score_of(values, ["a"] * 50, settings=BootstrapSettings(rng_seed=seed))
        for seed in (1, 1, 2)
    )
    assert first == again
    assert first.micro != other.micro


def test_the_interval_of_a_mean_is_as_wide_as_its_standard_error_says():
    values = np.random.default_rng(0).random(400)
    found = score_of(values.tolist(), ["a"] * 400).micro
    half_width = 1.96 * values.std() / 20
    assert found.high - found.low == pytest.approx(2 * half_width, rel=0.15)


def test_patients_are_resampled_whole_so_that_repeated_slides_narrow_nothing():
    values, patients = [0.0, 1.0] * 4, ["p", "q"] * 4
    alone = score_of([0.0, 1.0], ["a", "a"]).micro
    assert score_of(values, ["a"] * 8, patients).micro == alone


def test_without_resamples_an_interval_is_its_mean():
    score = score_of([0, 1], ["a", "b"], settings=BootstrapSettings(resamples=0))
    assert score.micro.low == score.micro.high == score.micro.mean == 0.5


def test_a_score_of_no_queries_is_refused():
    with pytest.raises(ValueError, match="at least one query"):
        score_of([], [])


def test_robustness_counts_who_shares_the_class_against_who_shares_the_hospital():
    query = ("lung", "north")
    neighbours = [("lung", "south"), ("lung", "south"), ("skin", "north"), ("lung", "north")]
    found = robustness_of([(query, neighbour) for neighbour in [*neighbours, ("", "north")]])
    assert (found.index, found.neighbours, found.both) == (2 / 3, 4, 1)


def test_robustness_is_unknown_where_no_neighbour_tells_class_and_hospital_apart():
    assert robustness_of([(("lung", "north"), ("lung", "north"))]).index is None
