"""The networks: published names and sizes, weights that are the same everywhere."""

import numpy as np
import pytest
import torch

from sish_cluster.encoder.networks.codeword_order import ranks_of
from sish_cluster.encoder.networks.densenet import DenseNet121
from sish_cluster.encoder.networks.inputs import IMAGENET, SYMMETRIC, device_of, repeatable
from sish_cluster.encoder.networks.seeding import SEED, drawn_network, sampled_codewords, seeded
from sish_cluster.encoder.networks.vqvae import COMPACT, LARGE, VqVae

CPU = torch.device("cpu")


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_the_large_network_has_the_published_number_of_parameters():
    network = VqVae(LARGE)
    assert count(network.encoder) + count(network.codebook) == 4_507_136
    assert count(network) == 8_981_763


def test_the_large_network_has_the_published_names():
    names = {name.rsplit(".", 1)[0] for name, _ in VqVae(LARGE).named_parameters()}
    convolutions = {f"encoder.{i}" for i in (0, 2, 3, 5, 6, 8, 9)}
    residuals = {f"encoder.{i}.net.{j}" for i in (10, 11) for j in (0, 2, 3, 5)}
    decoder = {name for name in names if name.startswith("decoder.")}
    assert names - decoder == convolutions | residuals | {"codebook.embedding"}


@pytest.mark.parametrize("size", [COMPACT, LARGE], ids=lambda size: size.name)
def test_both_sizes_turn_their_side_into_a_grid_of_64(size):
    encoder = VqVae(size).encoder.to("meta")
    grid = encoder(torch.zeros(1, 3, size.side_px, size.side_px, device="meta"))
    assert grid.shape == (1, size.channels, 64, 64)
    assert size.side_px == (512 if size is COMPACT else 1024)


def test_a_place_takes_the_codeword_nearest_by_l2():
    codebook = VqVae(COMPACT).codebook
    z = torch.randn(2, 64, 3, 3, generator=torch.Generator().manual_seed(0)) * 0.01
    words = codebook.embedding.weight.double()
    plain = torch.cdist(z.permute(0, 2, 3, 1).reshape(-1, 64).double(), words).argmin(1)
    assert torch.equal(codebook.nearest(z).flatten(), plain)


def test_the_loss_is_the_published_one_and_its_gradient_reaches_the_encoder():
    network = VqVae(COMPACT).eval()
    x = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
    reconstruction, loss = network(x)
    z = network.encoder(x)
    e = network.codebook.looked_up(network.codebook.nearest(z))
    plain = ((reconstruction - x) ** 2).mean() + 2 * ((z - e) ** 2).mean()
    assert torch.allclose(loss, plain)
    loss.backward()
    assert network.encoder[0].weight.grad.abs().sum() > 0


def test_seeded_weights_depend_on_the_seed_alone():
    torch.manual_seed(1)
    first = drawn_network(COMPACT, rng_seed=7).state_dict()
    state = torch.get_rng_state()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(2)
    second = drawn_network(COMPACT, rng_seed=7).state_dict()
    torch.set_num_threads(threads)
    other = drawn_network(COMPACT, rng_seed=8).state_dict()
    convolution = "encoder.0.weight"
    assert all(torch.equal(first[n], second[n]) for n in first if "codebook" not in n)
    assert not torch.equal(first[convolution], other[convolution])
    assert not torch.equal(state, torch.get_rng_state())


def test_seeding_leaves_the_global_generator_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    seeded(COMPACT)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.slow
def test_the_codebook_that_ships_is_what_a_fresh_calculation_gives():
    network, ranks = seeded(COMPACT)
    with repeatable():
        fresh = sampled_codewords(drawn_network(COMPACT, rng_seed=SEED), rng_seed=SEED)
    shipped = network.codebook.embedding.weight
    assert torch.allclose(shipped, fresh, rtol=1e-3, atol=1e-3)
    assert np.array_equal(ranks, ranks_of(network))


def test_ranks_follow_the_codebook_when_its_rows_are_shuffled():
    network, ranks = seeded(COMPACT)
    shuffle = torch.randperm(128, generator=torch.Generator().manual_seed(0))
    network.codebook.embedding.weight.data = network.codebook.embedding.weight[shuffle].clone()
    assert np.array_equal(ranks_of(network), ranks[shuffle.numpy()])


def test_brighter_codewords_have_higher_ranks_by_their_decoded_brightness():
    network, ranks = seeded(COMPACT)
    grids = torch.arange(128)[:, None, None].expand(-1, 4, 4)
    with torch.inference_mode():
        brightness = network.decoded(grids).mean((1, 2, 3)).numpy()
    assert np.corrcoef(ranks, brightness)[0, 1] > 0


def test_the_texture_network_has_1024_dimensions_and_keeps_negative_values():
    torch.manual_seed(0)
    network = DenseNet121().eval()
    assert count(network) == 6_953_856
    embedding = network(torch.randn(1, 3, 64, 64))
    assert embedding.shape == (1, DenseNet121.dimensions)
    assert (embedding < 0).any()


def test_normalisations_are_2x_minus_1_and_imagenets():
    patch = np.zeros((2, 2, 3), np.uint8)
    patch[0, 0] = 255
    x = SYMMETRIC.tensor_of(patch, CPU)
    assert x.shape == (1, 3, 2, 2)
    assert torch.allclose(x[0, :, 0, 0], torch.ones(3))
    assert torch.allclose(x[0, :, 1, 1], -torch.ones(3))
    mean = torch.tensor([0.485, 0.456, 0.406])
    deviation = torch.tensor([0.229, 0.224, 0.225])
    white = IMAGENET.tensor_of(patch, CPU)[0, :, 0, 0]
    assert torch.allclose(white, (1 - mean) / deviation, atol=1e-5)


def test_repeatable_restores_the_thread_count_after_an_error():
    threads = torch.get_num_threads()
    with pytest.raises(ValueError, match="stop"), repeatable():
        assert torch.get_num_threads() == 1
        raise ValueError("stop")
    assert torch.get_num_threads() == threads
    assert device_of("cpu") == CPU
