"""Choosing the patches that stand for a slide."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sish_cluster.core.errors import BadRequest
from sish_cluster.encoder.mosaic import TwoStageSelector, TwoStageSettings, colour_histograms

REPEATED = """
import hashlib, numpy as np
from sish_cluster.encoder.mosaic import TwoStageSelector
rng = np.random.default_rng(3)
patches = rng.integers(0, 256, (300, 8, 8, 3)).astype(np.uint8)
rows = TwoStageSelector().chosen(patches, rng.integers(0, 9999, (300, 2)), rng_seed=0)
print(hashlib.sha256(rows.tobytes()).hexdigest())
"""


def coloured(shades, side_px=8):
    """Patches of one flat shade each."""
    patches = np.zeros((len(shades), side_px, side_px, 3), np.uint8)
    patches[:] = np.array(shades, np.uint8)[:, None, None, None]
    return patches


def grid(count, step=1000):
    side = int(np.ceil(np.sqrt(count)))
    return np.stack(np.divmod(np.arange(count), side), axis=1)[:, ::-1] * step


def test_a_histogram_counts_each_channel_on_its_own():
    patch = np.zeros((1, 2, 2, 3), np.uint8)
    patch[0, ..., 0] = 7
    patch[0, 0, 0, 2] = 255
    histogram = colour_histograms(patch)[0]
    assert histogram.shape == (768,)
    assert (histogram[7], histogram[256], histogram[512], histogram[767]) == (1, 1, 0.75, 0.25)


def test_every_colour_gets_its_share():
    shades = np.repeat(np.arange(9) * 25, [100, 60, 40, 20, 10, 5, 3, 2, 1])
    rows = TwoStageSelector().chosen(coloured(shades), grid(len(shades)), rng_seed=0)
    _, counts = np.unique(shades[rows], return_counts=True)
    assert counts.tolist() == [5, 3, 3, 3, 3, 3, 3, 2, 1]


def test_published_counts_are_a_twentieth_or_all():
    shades = np.repeat(np.arange(9) * 25, [100, 60, 40, 20, 19, 5, 3, 2, 1])
    selector = TwoStageSelector(TwoStageSettings(published=True))
    rows = selector.chosen(coloured(shades), grid(len(shades)), rng_seed=0)
    _, counts = np.unique(shades[rows], return_counts=True)
    assert counts.tolist() == [5, 3, 2, 1, 19, 5, 3, 2, 1]


def test_members_of_a_colour_are_spread_over_the_slide():
    places = np.concatenate([grid(9, 10) + offset for offset in ((0, 0), (9000, 0), (0, 9000))])
    rows = TwoStageSelector().chosen(coloured([50] * 27), places, rng_seed=0)
    assert sorted(row // 9 for row in rows) == [0, 1, 2]
    assert [row % 9 for row in rows] == [4, 4, 4]


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_fewer_patches_than_colours_work_from_one_upwards(count):
    rows = TwoStageSelector().chosen(coloured(range(0, count * 20, 20)), grid(count), rng_seed=0)
    assert rows.tolist() == list(range(count))


def test_identical_patches_at_one_place_work():
    rows = TwoStageSelector().chosen(coloured([9] * 50), np.zeros((50, 2), np.int32), rng_seed=0)
    assert len(rows) == 1


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 60), st.integers(0, 2**32 - 1))
def test_the_rows_are_ascending_distinct_and_the_seed_decides(count, rng_seed):
    rng = np.random.default_rng(rng_seed)
    patches = rng.integers(0, 256, (count, 4, 4, 3)).astype(np.uint8)
    places = rng.integers(0, 50_000, (count, 2))
    rows = TwoStageSelector().chosen(patches, places, rng_seed=rng_seed)
    assert 1 <= len(rows) <= count
    assert (np.diff(rows) > 0).all()
    assert 0 <= rows[0] <= rows[-1] < count
    assert rows.tolist() == TwoStageSelector().chosen(patches, places, rng_seed=rng_seed).tolist()


def test_processes_with_any_number_of_threads_choose_the_same_rows():
    found = {
        subprocess.run(
            [sys.executable, "-c", REPEATED],
            env={"OMP_NUM_THREADS": threads, "PATH": ""},
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        ).stdout
        for threads in ("1", "4")
    }
    assert len(found) == 1


def test_summaries_choose_as_pixels_do():
    rng = np.random.default_rng(8)
    patches = rng.integers(0, 256, (80, 8, 8, 3)).astype(np.uint8)
    selector = TwoStageSelector()
    blocks = [selector.summaries_of(patches[i : i + 16]) for i in range(0, 80, 16)]
    from_summaries = selector.chosen_from(np.concatenate(blocks), grid(80), rng_seed=1)
    assert from_summaries.tolist() == selector.chosen(patches, grid(80), rng_seed=1).tolist()


@pytest.mark.parametrize(
    "bad", [{"colour_clusters": 0}, {"share": 0.0}, {"share": 1.5}, {"min_members": 0}]
)
def test_settings_that_choose_nothing_are_refused(bad):
    with pytest.raises(BadRequest, match="a mosaic needs"):
        TwoStageSettings(**bad)


def test_no_patches_and_unequal_lengths_are_refused():
    with pytest.raises(BadRequest, match="got 0 patches"):
        TwoStageSelector().chosen(coloured([]), np.zeros((0, 2), np.int32), rng_seed=0)
    with pytest.raises(BadRequest, match="got 2 patches and 3 corners"):
        TwoStageSelector().chosen(coloured([1, 2]), grid(3), rng_seed=0)
