"""The number of actors follows what waits and what idles, slowly and within its bounds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sish_cluster.core.errors import BadRequest
from sish_cluster.encoder.scaling import Scaler, ScalingSettings

BOUNDS = ScalingSettings(min_actors=1, max_actors=3, grow_after_s=5.0, shrink_after_s=60.0)


class HandClock:
    """Time that moves when told to."""

    def __init__(self):
        self.time_s = 1.0

    def now_s(self):
        return self.time_s


@pytest.fixture
def clock():
    return HandClock()


def test_an_actor_is_added_once_patches_have_waited_long_enough(clock):
    scaler = Scaler(BOUNDS, clock)
    assert scaler.wanted(n_actors=1, n_busy=1, n_waiting=4) == 1
    clock.time_s += 4.9
    assert scaler.wanted(n_actors=1, n_busy=1, n_waiting=4) == 1
    clock.time_s += 0.1
    assert scaler.wanted(n_actors=1, n_busy=1, n_waiting=4) == 2
    assert scaler.wanted(n_actors=2, n_busy=2, n_waiting=4) == 2


def test_a_moment_without_waiting_starts_the_count_again(clock):
    scaler = Scaler(BOUNDS, clock)
    for n_waiting in (4, 0, 4):
        assert scaler.wanted(n_actors=1, n_busy=1, n_waiting=n_waiting) == 1
        clock.time_s += 4.0
    assert scaler.wanted(n_actors=1, n_busy=1, n_waiting=4) == 1


def test_an_idle_actor_is_ended_after_a_while_but_never_the_last(clock):
    scaler = Scaler(BOUNDS, clock)
    assert scaler.wanted(n_actors=2, n_busy=1, n_waiting=0) == 2
    clock.time_s += 60.0
    assert scaler.wanted(n_actors=2, n_busy=1, n_waiting=0) == 1
    scaler.wanted(n_actors=1, n_busy=0, n_waiting=0)
    clock.time_s += 600.0
    assert scaler.wanted(n_actors=1, n_busy=0, n_waiting=0) == 1


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3), st.floats(0, 100)), max_size=60))
def test_the_number_stays_within_its_bounds_and_moves_by_one(steps):
    clock = HandClock()
    scaler, n_actors = Scaler(BOUNDS, clock), 1
    for n_waiting, n_busy, passed_s in steps:
        clock.time_s += passed_s
        wanted = scaler.wanted(n_actors=n_actors, n_busy=min(n_busy, n_actors), n_waiting=n_waiting)
        assert abs(wanted - n_actors) <= 1
        assert 1 <= wanted <= 3
        n_actors = wanted


def test_bounds_that_cross_are_refused():
    with pytest.raises(BadRequest, match="asked for 3 to 2"):
        ScalingSettings(min_actors=3, max_actors=2)
