"""What a search names and its collection does not have is told; what may be there is not."""

import pytest

from sish_cluster.client import unknown_in_filter, unknown_label
from sish_cluster.client.unknown_labels import MOST_COUNTED
from sish_cluster.core.collection import Collection, CollectionState
from sish_cluster.core.query import Filter
from sish_cluster.shard.ledger import MOST_LABEL_VALUES

COUNTS = {"site": {"lung": 3, "skin": 1}, "patient": {"P1": 2, "P2": 2}}


@pytest.fixture
def state():
    return CollectionState(Collection("c", "f" * 32, 1024), 4, 40, 0, COUNTS)


def test_a_misspelt_exclusion_is_told_with_what_there_is(state):
    told = unknown_in_filter(Filter.of(leave_out={"patient": ["P1", "p2"]}), state)
    assert len(told) == 1
    for expected in ("patient 'p2'", "leaves nothing out", "'P1', 'P2'"):
        assert expected in told[0]


def test_a_value_and_a_label_that_nobody_gave_are_told(state):
    where = Filter.of(keep={"site": ["lung", "liver"], "stain": ["HE"]})
    by_value, by_label = unknown_in_filter(where, state)
    assert "site 'liver'" in by_value
    assert "no slide has that label at all" in by_label


def test_what_is_there_and_slides_by_name_are_not_told(state):
    where = Filter.of(keep={"site": ["lung"]}, leave_out={"patient": ["P1"], "slide": ["any"]})
    assert unknown_in_filter(where, state) == []


def test_a_label_too_varied_to_be_described_is_taken_on_trust():
    n_slides = MOST_COUNTED + 1
    state = CollectionState(Collection("c", "f" * 32, 1024), n_slides, n_slides, 0, {})
    assert unknown_in_filter(Filter.of(leave_out={"patient": ["P7"]}), state) == []
    assert unknown_label("patient", state) == []
    assert MOST_COUNTED == MOST_LABEL_VALUES


def test_a_ranking_by_a_label_nobody_gave_is_told(state):
    assert unknown_label("site", state) == []
    assert "'grade'" in unknown_label("grade", state)[0]
