import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sish_cluster.evaluation.measures import (
    Precision,
    ShortList,
    accuracy_at,
    average_precision_at,
    majority_vote_at,
    plurality_of,
)
from tests.oracles import metrics as oracle

LISTS = st.lists(st.sampled_from(["a", "b", "c", ""]), max_size=12)
RANKS = st.integers(1, 12)


@given(RANKS, LISTS)
def test_accuracy_equals_the_oracle(k, found):
    assert accuracy_at(k, found, "a") == oracle.accuracy(k, found, "a")


@given(RANKS, LISTS, st.sampled_from(ShortList))
@example(5, ["a", "a"], ShortList.PUBLISHED)
@example(4, ["b", "a", "a", "b"], ShortList.PUBLISHED)
def test_majority_vote_equals_the_oracle_under_every_policy(k, found, policy):
    assert majority_vote_at(k, found, "a", short_list=policy) == oracle.majority_vote(
        k, found, "a", policy.value
    )


@given(RANKS, LISTS, st.sampled_from(Precision), st.sampled_from(ShortList))
def test_average_precision_equals_the_oracle_in_every_definition(k, found, precision, policy):
    ours = average_precision_at(k, found, "a", precision=precision, short_list=policy)
    assert ours == pytest.approx(
        float(oracle.average_precision(k, found, "a", precision.value, policy.value))
    )


@given(RANKS, LISTS)
def test_every_default_measure_lies_between_0_and_1(k, found):
    for measure in (accuracy_at, majority_vote_at, average_precision_at):
        assert 0.0 <= measure(k, found, "a") <= 1.0


def test_only_the_published_divisor_exceeds_1_and_only_beyond_rank_5():
    ten = ["a"] * 10
    assert average_precision_at(10, ten, "a", precision=Precision.FIVE) == 2.0
    assert average_precision_at(5, ten, "a", precision=Precision.FIVE) == 1.0
    assert average_precision_at(10, ten, "a") == 1.0


@pytest.mark.parametrize("policy", ShortList)
def test_a_query_without_results_is_wrong_in_every_measure(policy):
    assert accuracy_at(5, [], "a") == 0
    assert majority_vote_at(5, [], "a", short_list=policy) == 0
    for precision in Precision:
        assert average_precision_at(5, [], "a", precision=precision, short_list=policy) == 0


@given(RANKS, LISTS)
def test_a_better_first_result_never_lowers_average_precision(k, found):
    worse = average_precision_at(k, ["b", *found], "a", precision=Precision.MEAN)
    better = average_precision_at(k, ["a", *found], "a", precision=Precision.MEAN)
    assert better >= worse


@given(LISTS)
def test_results_nobody_labelled_have_no_vote(found):
    assert plurality_of(found) == plurality_of([label for label in found if label])


@given(RANKS)
def test_the_published_rule_asks_half_of_k_of_a_short_list(k):
    needed = math.ceil(k / 2)
    assert majority_vote_at(k, ["a"] * needed, "a") == 1
    if needed > 1:
        assert majority_vote_at(k, ["a"] * (needed - 1), "a") == 0


def test_a_measure_of_no_results_is_refused():
    with pytest.raises(ValueError, match="k = 0"):
        accuracy_at(0, ["a"], "a")
