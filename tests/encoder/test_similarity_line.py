"""The similarity line: look-alike patches side by side, and keys that learn to follow it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sish_cluster.core.key import COARSE_UNIT, CODEBOOK_SIZE, keys_of
from sish_cluster.encoder.networks.codeword_order import line_ranks
from sish_cluster.encoder.networks.vqvae import VqVae, VqVaeSize
from sish_cluster.encoder.training.crops import Crops
from sish_cluster.encoder.training.similarity_line import (
    crop_codes,
    crop_positions,
    positions_of,
)
from sish_cluster.encoder.training.vqvae import mean_rank_of
from sish_cluster.encoder.training.vqvae_metrics import neighbour_recall

RNG = np.random.default_rng(4)


def codes_in_clusters(n_clusters=4, members=20):
    """Codes of 256 bits: each cluster's differ in few bits, the clusters in about half."""
    centres = RNG.integers(0, 256, (n_clusters, 32), dtype=np.uint8)
    noise = np.packbits(RNG.random((n_clusters * members, 256)) < 0.05, axis=1)
    return np.repeat(centres, members, axis=0) ^ noise


def test_patches_of_one_kind_lie_together_on_the_line():
    codes = codes_in_clusters()
    positions = positions_of(codes, np.arange(80), rng_seed=0, perplexity=10)
    order = np.argsort(positions)
    kinds = np.repeat(np.arange(4), 20)[order]
    assert (np.diff(kinds) != 0).sum() <= 6


def test_positions_are_evenly_spread_and_missing_where_nothing_was_asked():
    codes = codes_in_clusters()
    rows = np.arange(0, 80, 2)
    positions = positions_of(codes, rows, rng_seed=0)
    assert np.isnan(positions[1::2]).all()
    assert np.allclose(np.diff(np.sort(positions[rows])), 2 / 40)
    assert positions[rows].max() == pytest.approx(1 - 1 / 40)
    assert np.array_equal(positions_of(codes, rows, rng_seed=0)[rows], positions[rows])


def test_the_line_is_drawn_once_for_a_folder_and_again_for_other_crops(tmp_path):
    codes = codes_in_clusters()
    first = crop_positions(codes, np.arange(60), tmp_path, rng_seed=0)
    (tmp_path / "line.npy").touch()
    written = (tmp_path / "line.npy").stat().st_mtime_ns
    again = crop_positions(codes, np.arange(60), tmp_path, rng_seed=0)
    assert np.array_equal(first, again, equal_nan=True)
    assert (tmp_path / "line.npy").stat().st_mtime_ns == written
    other = crop_positions(codes, np.arange(70), tmp_path, rng_seed=0)
    assert np.isfinite(other).sum() == 70


class Counting:
    """Embeds a crop as its mean colours; counts what it is asked."""

    weights_digest = "means"

    def __init__(self):
        self.asked = 0

    def embeddings_of(self, patches):
        self.asked += len(patches)
        return np.tile(patches.mean((1, 2)), (1, 32))[:, :64].astype(np.float32)


def test_codes_of_crops_are_computed_once(tmp_path):
    pixels = RNG.integers(0, 256, (5, 16, 16, 3), dtype=np.uint8)
    names = tuple("abcde")
    embedder = Counting()
    for identity, asked in (("one", 5), ("one", 5), ("two", 10)):
        crops = Crops(pixels, names, names, np.ones(5), identity)
        codes = crop_codes(crops, tmp_path, embedder)
        assert codes.shape == (5, 8)
        assert embedder.asked == asked


def test_the_mean_rank_is_what_the_coarse_part_of_a_key_adds_up():
    torch.manual_seed(0)
    network = VqVae(VqVaeSize("small", channels=8, halvings=2))
    network.codebook.embedding.weight.data.normal_()
    terms = network.eval().terms_of(torch.rand(3, 3, 256, 256) * 2 - 1)
    words = network.codebook.embedding.weight
    found = (mean_rank_of(terms, words) + 1) / 2 * (CODEBOOK_SIZE - 1)
    keys = keys_of(line_ranks(words)[terms.codewords.numpy()])
    # Pooling floors at each of three stages: less than three ranks in all.
    coarse = keys.astype(np.int64) // COARSE_UNIT / 64
    difference = found.detach().numpy() - coarse
    assert ((difference >= -1e-3) & (difference < 3)).all()


def test_only_the_first_channel_is_moved_towards_a_position():
    torch.manual_seed(0)
    network = VqVae(VqVaeSize("small", channels=8, halvings=2)).eval()
    network.codebook.embedding.weight.data.normal_()
    terms = network.terms_of(torch.rand(2, 3, 32, 32) * 2 - 1)
    terms.z.retain_grad()
    mean_rank_of(terms, network.codebook.embedding.weight).sum().backward()
    assert (terms.z.grad[:, 0] > 0).all()
    assert (terms.z.grad[:, 1:] == 0).all()


def test_codewords_are_ranked_by_their_first_channel():
    words = torch.randn(CODEBOOK_SIZE, 4, generator=torch.Generator().manual_seed(0))
    ranks = line_ranks(words)
    assert sorted(ranks) == list(range(CODEBOOK_SIZE))
    assert (np.diff(words[np.argsort(ranks), 0].numpy()) > 0).all()


def test_keys_in_the_order_of_likeness_find_all_neighbours_and_drawn_ones_a_tenth():
    n = 400
    bits = np.arange(512)[None, :] < np.arange(n)[:, None]
    codes, groups = np.packbits(bits, axis=1), np.array([f"g{i % 7}" for i in range(n)])
    asking = np.arange(50, 350)
    in_order = np.arange(n, dtype=np.uint64)
    assert neighbour_recall(in_order, codes, groups, asking) == 1.0
    drawn = RNG.permutation(n).astype(np.uint64)
    assert neighbour_recall(drawn, codes, groups, asking) == pytest.approx(0.1, abs=0.03)
    assert neighbour_recall(in_order, codes, np.full(n, "all"), asking) == 0.0
