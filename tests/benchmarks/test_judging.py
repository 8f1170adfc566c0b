"""The judge of short trainings: halves by source, neighbours of other groups, paired intervals."""

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.training.judging import (
    HALVES,
    Judge,
    half_of,
    interval,
    with_statistics_of,
)
from sish_cluster.encoder.training.places import PlacedPatches
from sish_cluster.encoder.training.views import plain_views


class MeanColour(nn.Module):
    """Embeds a picture as its mean colour; batch statistics are there, and unused."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(3)

    def forward(self, x):
        self.norm(x)
        return x.mean(dim=(2, 3))


def tiles_of(colours):
    """Tiles of 16 px of the colours (n, 3)."""
    colours = np.array(colours, np.uint8)
    return np.broadcast_to(colours[:, None, None], (len(colours), 16, 16, 3)).copy()


RED, BLUE = (250, 20, 20), (20, 20, 250)


@pytest.fixture
def judge():
    """Three sources: a's tiles are each other's nearest, of two classes."""
    colours = [RED, (230, 40, 20), (200, 80, 20), BLUE, (25, 25, 240)]
    return Judge(tiles_of(colours), np.array(list("xyxyy")), np.array(list("aabcb")))


def test_a_tile_is_judged_by_the_nearest_of_another_group(judge):
    hits = judge.hits(MeanColour(), 16)
    # The first two are each other's nearest, but of one group: both are judged by the third.
    assert hits.tolist() == [True, False, False, True, True]


def test_without_groups_the_nearest_of_all_would_decide(judge):
    alone = Judge(judge.pixels, judge.labels, np.arange(5))
    assert alone.hits(MeanColour(), 16).tolist() == [False, False, False, True, True]


def test_judging_leaves_the_network_as_it_was(judge):
    network = MeanColour().train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    judge.hits(network, 16)
    assert network.training
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_halves_are_fixed_and_share_no_source(judge):
    names = [f"lung_n_cluster{number}" for number in range(400)]
    share = np.mean([half_of(name) == HALVES[0] for name in names])
    assert 0.4 < share < 0.6
    # SHA-256 of "abc" begins with ba, of "" with e3.
    assert (half_of("abc"), half_of("")) == ("tuning", "untouched")
    groups = [set(judge.half(half).groups) for half in HALVES]
    assert groups[0] | groups[1] == set("abc")
    assert not groups[0] & groups[1]


def test_statistics_are_the_means_over_all_patches():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (130, 16, 16, 3), dtype=np.uint8)
    patches = PlacedPatches(
        pixels, np.zeros(130, np.int64), np.full((130, 2), np.nan), ("s",), "id"
    )
    network = MeanColour().eval()
    found = with_statistics_of(network, patches, 16)
    wanted = plain_views(torch.from_numpy(pixels), 16).mean(dim=(0, 2, 3))
    assert torch.allclose(found.norm.running_mean, wanted, atol=1e-2)
    assert wanted.abs().min() > 0.05
    assert torch.equal(network.norm.running_mean, torch.zeros(3))


def test_an_interval_covers_the_true_gain_about_as_often_as_it_says():
    rng = np.random.default_rng(1)
    groups = np.repeat(np.arange(60), 2)
    covered = 0
    for trial in range(100):
        of_groups = np.repeat(rng.normal(0.1, 0.5, 60), 2)
        low, high = interval(of_groups[None], groups, rng_seed=trial)
        covered += low <= 0.1 <= high
    assert 85 <= covered <= 100


def test_an_interval_resamples_groups_not_tiles():
    gains = np.repeat(np.random.default_rng(2).normal(size=30), 10)[None]
    low, high = interval(gains, np.repeat(np.arange(30), 10))
    tight_low, tight_high = interval(gains, np.arange(300))
    assert high - low > 2 * (tight_high - tight_low)
