"""What a router takes its scans to cost: measured, rolling, forgotten."""

from __future__ import annotations

import pytest

from sish_cluster.core.collection import Collection
from sish_cluster.core.errors import BadRequest
from sish_cluster.core.query import Mode
from sish_cluster.router.choosing import Affordable, settled
from sish_cluster.router.scan_speed import LEAST_TAUGHT_S, MEMORY_S, MEMORY_SEARCHES, ScanSpeed
from sish_cluster.router.settings import RouterSettings


class HandClock:
    def __init__(self):
        self.at_s = 0.0

    def now_s(self):
        return self.at_s


def test_the_assumed_speed_counts_until_a_search_was_measured():
    speed = ScanSpeed(1e9, clock=HandClock())
    speed.learn(1e6, elapsed_s=LEAST_TAUGHT_S / 2)
    assert speed.bytes_per_s == 1e9
    speed.learn(1e6, elapsed_s=0.5)
    assert speed.bytes_per_s == 2e6


def test_one_stalled_search_changes_nothing():
    speed = ScanSpeed(1e9, clock=HandClock())
    for elapsed_s in (1.0, 1.1, 60.0, 0.9, 1.0):
        speed.learn(1e6, elapsed_s=elapsed_s)
    assert speed.bytes_per_s == 1e6


def test_measurements_are_forgotten_by_age_and_by_number():
    clock = HandClock()
    speed = ScanSpeed(1e9, clock=clock)
    for _ in range(MEMORY_SEARCHES):
        speed.learn(1e6, elapsed_s=1.0)
    for _ in range(MEMORY_SEARCHES // 2 + 1):
        speed.learn(5e6, elapsed_s=1.0)
    assert speed.bytes_per_s == 5e6
    clock.at_s = MEMORY_S + 1
    assert speed.bytes_per_s == 1e9


def budget(**changes):
    usual = {
        "n_query_patches": 87, "patch_bytes": 128, "time_left_s": 9.8, "bytes_per_s": 1e10,
        "exact_share": 0.25, "exact_limit_s": 5.0,
    }  # fmt: skip
    return Affordable(**(usual | changes))


def test_a_choice_says_what_it_went_by():
    assert budget().choice(12_345).told == (
        "exact: 12,345 eligible postings x 87 patches need about 14 ms of the 9.8 s left"
    )
    assert budget().choice(50_000_000).told == (
        "guided: to scan 50,000,000 eligible postings x 87 patches needs about 56 s, above 25% of the"
        " 9.8 s left"
    )
    assert (
        budget(time_left_s=600.0)
        .choice(50_000_000)
        .told.endswith("above the 5.0 s an automatic search may scan")
    )
    assert budget(time_left_s=0.0).choice(1).mode is Mode.GUIDED
    assert budget(time_left_s=0.0).choice(0).mode is Mode.EXACT


def test_collections_with_one_kind_of_search_need_no_count():
    features = Collection("features", "f", 0, dimensions=8)
    keyless = Collection("keyless", "f", 64, has_keys=False)
    assert settled(features, Mode.AUTO).told == (
        "direct: the collection keeps embeddings and no codes"
    )
    assert settled(keyless, Mode.AUTO).mode is Mode.EXACT
    assert settled(Collection("demo", "f", 64), Mode.AUTO) is None
    assert settled(Collection("demo", "f", 64), Mode.SISH).told == "sish: asked for"


@pytest.mark.parametrize(
    "wrong", [{"scan_bytes_per_s": 0.0}, {"exact_share": 1.5}, {"exact_limit_s": -1.0}]
)
def test_settings_no_choice_can_be_made_by_are_refused(wrong):
    with pytest.raises(BadRequest, match=r"exact_share 0\.\.1"):
        RouterSettings(**wrong)
