"""The published test vectors of the key, and its bounds."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sish_cluster.core.errors import BadKey
from sish_cluster.core.key import UNIVERSE, checked_keys, key_of, keys_of, seeds_of

latents = arrays(np.int64, (64, 64), elements=st.integers(0, 127), fill=st.integers(0, 127))


@pytest.mark.parametrize("code", range(128))
def test_a_constant_latent_gives_the_published_multiple(code):
    assert key_of(np.full((64, 64), code)) == code * 6_400_256_001_024


def test_the_largest_key_is_as_published_and_inside_the_universe():
    assert key_of(np.full((64, 64), 127)) == 812_832_512_130_048 < 2**50 == UNIVERSE


@given(latents)
def test_a_key_is_the_sum_of_three_stages_each_floored_cell_by_cell(ranks):
    grid, key = ranks.tolist(), 0
    for weight in (1, 10**6, 10**11):
        half = range(len(grid) // 2)
        grid = [
            [
                (grid[2 * r][2 * c] + grid[2 * r][2 * c + 1] + grid[2 * r + 1][2 * c]
                 + grid[2 * r + 1][2 * c + 1]) // 4
                for c in half
            ]
            for r in half
        ]  # fmt: skip
        key += weight * sum(map(sum, grid))
    assert key_of(ranks) == key


def test_flooring_happens_at_every_stage_not_only_at_the_end():
    ranks = np.zeros((64, 64), int)
    ranks[::2, ::2] = 3  # every 2x2 block sums to 3, and 3 // 4 is 0
    assert key_of(ranks) == 0


def test_many_latents_give_the_keys_of_each():
    ranks = np.random.default_rng(0).integers(0, 128, (5, 64, 64))
    assert keys_of(ranks).tolist() == [key_of(r) for r in ranks]


@pytest.mark.parametrize(
    ("ranks", "found"),
    [
        (np.zeros((64, 63), int), "64, 63"),
        (np.zeros((64, 64)), "float64"),
        (np.full((64, 64), 128), "128..128"),
        (np.full((64, 64), -1), "-1..-1"),
    ],
)
def test_a_wrong_latent_is_refused_saying_what_was_found(ranks, found):
    with pytest.raises(BadKey, match=found):
        key_of(ranks)


@pytest.mark.parametrize("key", [-1, UNIVERSE, 2**63 - 1])
def test_a_key_out_of_range_is_named_with_its_place_and_bound(key):
    with pytest.raises(BadKey, match=rf"keys\[1\] is {key}; a key satisfies 0 <= key < 2\*\*50"):
        checked_keys(np.array([0, key]))


def test_seeds_come_in_published_order_and_may_leave_the_universe():
    seeds = seeds_of(10**12, seed_spacing=50, seeds_per_side=10)
    stride = 5 * 10**12
    assert seeds == [10**12 - m * stride for m in range(10)] + [
        10**12 + m * stride for m in range(10)
    ]
    assert seeds[0] == seeds[10]
    assert min(seeds) < 0
