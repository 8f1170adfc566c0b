"""The shared encoder actors: the least busy is next, their number follows the work, closing ends all."""

from concurrent.futures import Future

import pytest

from sish_cluster.core.errors import EncoderUnavailable
from sish_cluster.encoder.encoders import Encoders
from sish_cluster.encoder.scaling import ScalingSettings


class Member:
    """An actor whose batches end when told to."""

    def __init__(self, is_ready=True):
        self.is_ready = is_ready
        self.begun = []
        self.ended = 0
        self.restarts = 0

    def begin(self, pixels):
        self.begun.append((pixels, Future()))
        return self.begun[-1][1]

    def restart(self):
        self.restarts += 1

    def close(self):
        self.ended += 1


class HandClock:
    """Time that moves when told to."""

    def __init__(self):
        self.time_s = 1.0

    def now_s(self):
        return self.time_s


@pytest.fixture
def started():
    return []


@pytest.fixture
def start(started):
    def begin():
        started.append(Member())
        return started[-1]

    return begin


def two(start):
    return Encoders(start, ScalingSettings(min_actors=2, max_actors=2))


def test_a_batch_goes_to_the_actor_with_the_least_before_it(start, started):
    with two(start) as encoders:
        for name in "abc":
            encoders.submit(name)
        assert [[name for name, _ in member.begun] for member in started] == [["a", "c"], ["b"]]
        started[0].begun[0][1].set_result("A")
        started[0].begun[1][1].set_result("C")
        encoders.submit("d")
        assert [name for name, _ in started[0].begun] == ["a", "c", "d"]
    assert [member.ended for member in started] == [1, 1]


def test_an_actor_that_is_not_there_yet_gets_nothing_while_another_is(start, started):
    with two(start) as encoders:
        started[0].is_ready = False
        for name in "ab":
            encoders.submit(name)
        assert [len(member.begun) for member in started] == [0, 2]


def test_only_the_actors_with_a_stuck_jobs_batches_are_restarted(start, started):
    with two(start) as encoders:
        encoders.submit("a", ticket="stuck")
        encoders.submit("b", ticket="fine")
        encoders.restart_stuck("stuck")
        assert [member.restarts for member in started] == [1, 0]


def test_actors_are_added_while_batches_wait_and_ended_when_they_idle(start, started):
    clock = HandClock()
    bounds = ScalingSettings(min_actors=1, max_actors=2, grow_after_s=5.0, shrink_after_s=60.0)
    with Encoders(start, bounds, clock) as encoders:
        answers = [encoders.submit(name) for name in "abcd"]
        encoders.tend()
        clock.time_s += 5.0
        encoders.tend()
        assert encoders.n_actors == 2
        for answer in answers:
            answer.set_result("done")
        encoders.tend()
        clock.time_s += 60.0
        encoders.tend()
        assert encoders.n_actors == 1
        assert [member.ended for member in started] == [0, 1]


def test_a_batch_that_cannot_be_begun_leaves_its_actor_free(start, started, monkeypatch):
    with two(start) as encoders:
        monkeypatch.setattr(started[0], "begin", lambda pixels: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            encoders.submit("a")
        monkeypatch.undo()
        encoders.submit("b")
        assert [name for name, _ in started[0].begun] == ["b"]


def test_closed_actors_take_nothing_more(start):
    encoders = two(start)
    encoders.close()
    with pytest.raises(EncoderUnavailable, match="start them again"):
        encoders.submit("a")


def test_no_actor_is_added_to_those_that_were_closed(start, started):
    encoders = Encoders(start, ScalingSettings(min_actors=2, max_actors=3))
    encoders.close()
    encoders.tend()
    assert len(started) == 2
    assert encoders.n_actors == 0
