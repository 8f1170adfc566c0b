"""The key network that ships: the file its card describes, the order it says, pictures it can redraw."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from sish_cluster.core.geometry import Box
from sish_cluster.encoder.checkpoint import read_weights
from sish_cluster.encoder.keying import RANKS_NAME, SHIPPED, KeyNetwork
from sish_cluster.encoder.networks.codeword_order import line_ranks
from sish_cluster.encoder.networks.inputs import SYMMETRIC, repeatable
from sish_cluster.encoder.networks.vqvae import COMPACT, VqVae
from sish_cluster.encoder.slide import open_slide
from sish_cluster.testing.histology import Drawing, drawn

WEIGHTS = SHIPPED[COMPACT.name]


@pytest.fixture(scope="module")
def network():
    """The whole shipped network, decoder included."""
    state = dict(read_weights(WEIGHTS).state)
    state.pop(RANKS_NAME)
    whole = VqVae(COMPACT).eval().requires_grad_(False)
    whole.load_state_dict(state, strict=False)
    return whole


@pytest.fixture(scope="module")
def tissue():
    """Four pieces of drawn tissue (256, 256, 3) at 1 um per px."""
    patterns = ("glands", "fibres", "sheets", "fat")
    slides = [drawn(Drawing(pattern, side_px=1024, mpp=1.0)) for pattern in patterns]
    return [slide[384:640, 384:640] for slide in slides]


def psnr(network, picture):
    """Return dB between a picture (side, side, 3) and what its codewords decode to."""
    with repeatable():
        x = SYMMETRIC.tensor_of(picture, torch.device("cpu"))
        error = (network.decoded(network.latents_of(x)) - x).square().mean()
    return float(10 * torch.log10(4 / error))


def test_the_card_names_the_file_that_ships():
    card = WEIGHTS.with_suffix(".md").read_text("utf-8")
    assert read_weights(WEIGHTS).digest in card
    assert re.search(r"CC BY", card)
    assert WEIGHTS.stat().st_size < 20 << 20


def test_the_default_compact_network_is_this_file_and_says_so():
    keying = KeyNetwork(COMPACT.name, device="cpu")
    assert keying.is_trained
    assert "trained, vqvae-compact.safetensors" in keying.description
    given = KeyNetwork(COMPACT.name, WEIGHTS, device="cpu")
    assert (given.weights_digest, given.ranks_digest) == (
        keying.weights_digest,
        keying.ranks_digest,
    )


def test_the_stored_order_is_the_one_the_codebook_gives(network):
    stored = read_weights(WEIGHTS).state[RANKS_NAME].numpy()
    assert np.array_equal(stored, line_ranks(network.codebook.embedding.weight))


def test_tissue_of_a_kind_it_never_saw_can_be_redrawn(network, tissue):
    torch.manual_seed(0)
    untrained = VqVae(COMPACT).eval().requires_grad_(False)
    for picture in tissue:
        assert psnr(network, picture) > psnr(untrained, picture) + 5


def test_different_tissue_takes_different_codewords(network, tissue):
    with repeatable():
        latents = [
            network.latents_of(SYMMETRIC.tensor_of(t, torch.device("cpu"))).unique().tolist()
            for t in tissue
        ]
    assert len(set().union(*map(set, latents))) >= 40


def test_a_slide_held_out_of_the_training_can_be_redrawn(network, shared_data):
    with open_slide(shared_data / "slides" / "native" / "CMU-1-Small-Region.svs") as slide:
        boxes = [Box(x, 1024, x + 512, 1536) for x in (256, 768, 1280)]
        pictures = [slide.region(box, side_px=256) for box in boxes]
    assert np.mean([psnr(network, picture) for picture in pictures]) > 17
