"""Keys: nothing but a patch's pixels decides them, and different tissue gets different ones."""

import numpy as np
import pytest
import torch

from sish_cluster.core.errors import BadRequest
from sish_cluster.core.key import COARSE_UNIT, key_of
from sish_cluster.encoder.keying import KeyNetwork
from sish_cluster.testing.histology import PATTERNS, Drawing, drawn


@pytest.fixture(scope="module")
def keying():
    return KeyNetwork("vqvae-compact")


@pytest.fixture(scope="module")
def tissue():
    """Two 512 px patches of every pattern, at 1 um per px."""
    return np.stack(
        [
            drawn(Drawing(pattern, side_px=512, mpp=1.0, rng_seed=seed, tissue_share=1.5))
            for pattern in sorted(PATTERNS)
            for seed in (1, 2)
        ]
    )


def test_a_key_is_the_pooled_sum_of_the_ranks(keying, patches):
    latents = keying.latents_of(patches)
    assert latents.shape == (3, 64, 64)
    plain = [key_of(keying.ranks[latent]) for latent in latents]
    assert keying.keys_of(patches).tolist() == plain


def test_a_key_depends_neither_on_its_batch_nor_on_the_thread_count(keying, patches):
    together = keying.keys_of(patches)
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    alone = [keying.keys_of(patches[i : i + 1])[0] for i in (2, 0, 1)]
    torch.set_num_threads(threads)
    assert together[[2, 0, 1]].tolist() == alone


def test_keys_of_the_shipped_network_vary_and_use_many_codewords(keying, tissue):
    used = len(np.unique(keying.latents_of(tissue)))
    coarse = keying.keys_of(tissue) // COARSE_UNIT
    assert used >= 40
    assert len(np.unique(coarse)) == len(tissue)
    assert np.ptp(coarse.astype(np.int64)) > 500


def test_no_patches_give_no_keys(keying):
    assert keying.keys_of(np.zeros((0, 512, 512, 3), np.uint8)).tolist() == []


@pytest.mark.parametrize(
    "shape", [(1, 512, 512, 4), (1, 500, 500, 3), (1, 512, 256, 3), (512, 512, 3)]
)
def test_patches_of_another_shape_are_refused(keying, shape):
    with pytest.raises(BadRequest, match="multiple of 512"):
        keying.keys_of(np.zeros(shape, np.uint8))


def test_the_description_says_whether_the_network_is_trained(keying):
    assert keying.is_trained
    assert "(trained, vqvae-compact.safetensors" in keying.description
