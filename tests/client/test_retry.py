import pytest

from sish_cluster.client.retry import UNLIMITED, Retry
from sish_cluster.client.settings import ClientSettings
from sish_cluster.core.clock import Deadline
from sish_cluster.core.errors import BadRequest, Refused, StoreFull, Unavailable

SETTINGS = ClientSettings(backoff_s=0.1, max_backoff_s=1.0)


class VirtualTime:
    """A clock that only waiting moves."""

    def __init__(self):
        self.time_s = 0.0
        self.waits_s = []

    def now_s(self):
        return self.time_s

    async def sleep(self, seconds):
        self.waits_s.append(seconds)
        self.time_s += seconds

    def retry(self, attempts):
        return Retry(SETTINGS, attempts, sleep=self.sleep, jitter=lambda: 1.0)


def failing(times, error):
    calls = []

    async def call():
        calls.append(None)
        if len(calls) <= times:
            raise error
        return len(calls)

    return call


async def test_an_unavailable_cluster_is_tried_again_with_doubled_waits():
    time = VirtualTime()
    call = failing(3, Unavailable("down", retry_after_s=0.0))
    answer = await time.retry(4).answer_of(call, deadline=Deadline.after(60, time))
    assert answer == 4
    assert time.waits_s == pytest.approx([0.1, 0.2, 0.4])


async def test_a_read_gives_up_after_its_attempts():
    time = VirtualTime()
    call = failing(9, Unavailable("down", retry_after_s=0.0))
    with pytest.raises(Unavailable, match="down"):
        await time.retry(3).answer_of(call, deadline=Deadline.after(60, time))
    assert len(time.waits_s) == 2


async def test_a_write_goes_on_until_its_time_is_up_and_never_waits_longer():
    time = VirtualTime()
    call = failing(10**6, Unavailable("down", retry_after_s=0.0))
    with pytest.raises(Unavailable):
        await time.retry(UNLIMITED).answer_of(call, deadline=Deadline.after(30, time))
    assert 28 < time.now_s() < 30
    assert max(time.waits_s) == 1.0


async def test_what_the_server_asks_for_is_waited_for():
    time = VirtualTime()
    call = failing(1, StoreFull("full", retry_after_s=7.0))
    await time.retry(2).answer_of(call, deadline=Deadline.after(30, time))
    assert time.waits_s == [7.0]


async def test_a_wait_beyond_the_deadline_is_not_begun():
    time = VirtualTime()
    call = failing(1, StoreFull("full", retry_after_s=31.0))
    with pytest.raises(StoreFull):
        await time.retry(UNLIMITED).answer_of(call, deadline=Deadline.after(30, time))
    assert time.waits_s == []


async def test_a_refusal_is_never_repeated():
    time = VirtualTime()
    with pytest.raises(Refused):
        await time.retry(9).answer_of(failing(1, Refused("no")), deadline=Deadline.after(30, time))
    assert time.waits_s == []


@pytest.mark.parametrize("wrong", [{"timeout_s": 0}, {"attempts": 0}, {"window": -1}])
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(BadRequest, match=next(iter(wrong))):
        ClientSettings(**wrong)
