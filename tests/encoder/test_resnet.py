"""ResNet-18 and ResNet-50: torchvision's names and shapes, v1.5 strides, embeddings >= 0."""

import pytest
import torch
from torch.nn import functional

from sish_cluster.core.errors import BadRequest, BadWeights
from sish_cluster.encoder.checkpoint import WeightsFile, fill
from sish_cluster.encoder.networks.resnet import ResNet


def meta(depth):
    with torch.device("meta"):
        return ResNet(depth)


def expected_names(depth):
    """Every name of torchvision's file, from the architecture alone."""
    blocks, convolutions = {18: ((2, 2, 2, 2), 2), 50: ((3, 4, 6, 3), 3)}[depth]
    bn = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    names = {"conv1.weight", *(f"bn1.{part}" for part in bn)}
    for stage, count in enumerate(blocks, 1):
        for block in range(count):
            place = f"layer{stage}.{block}"
            for i in range(1, convolutions + 1):
                names |= {f"{place}.conv{i}.weight", *(f"{place}.bn{i}.{part}" for part in bn)}
            if block == 0 and (stage > 1 or depth == 50):
                names |= {f"{place}.downsample.0.weight"}
                names |= {f"{place}.downsample.1.{part}" for part in bn}
    return names


@pytest.mark.parametrize(
    ("depth", "count", "parameters"), [(18, 120, 11_176_512), (50, 318, 23_508_032)]
)
def test_names_and_sizes_are_torchvisions_without_the_classifier(depth, count, parameters):
    network = meta(depth)
    assert set(network.state_dict()) == expected_names(depth)
    assert len(network.state_dict()) == count
    assert sum(p.numel() for p in network.parameters()) == parameters


def test_a_bottleneck_halves_the_grid_in_its_second_convolution():
    block = meta(50).layer2[0]
    assert block.conv1.stride == (1, 1)
    assert block.conv2.stride == (2, 2)
    assert block.downsample[0].stride == (2, 2)


@pytest.mark.parametrize(("depth", "dimensions"), [(18, 512), (50, 2048)])
def test_an_embedding_is_the_mean_of_a_grid_that_is_never_negative(depth, dimensions):
    network = ResNet(depth).eval()
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        embeddings = network(x)
    assert embeddings.shape == (2, dimensions) == (2, network.dimensions)
    assert (embeddings >= 0).all()
    assert embeddings.std() > 0


def plain_basic_block(state, place, x, stride):
    """A block of ResNet-18 in inference mode, written out."""

    def normalised(y, name):
        parts = ("running_mean", "running_var", "weight", "bias")
        mean, var, scale, shift = (state[f"{place}.{name}.{p}"].view(1, -1, 1, 1) for p in parts)
        return (y - mean) / (var + 1e-5).sqrt() * scale + shift

    y = functional.conv2d(x, state[f"{place}.conv1.weight"], stride=stride, padding=1)
    y = normalised(y, "bn1").clamp(min=0)
    y = normalised(functional.conv2d(y, state[f"{place}.conv2.weight"], padding=1), "bn2")
    if f"{place}.downsample.0.weight" in state:
        x = functional.conv2d(x, state[f"{place}.downsample.0.weight"], stride=stride)
        x = normalised(x, "downsample.1")
    return (y + x).clamp(min=0)


def test_a_block_adds_its_convolutions_to_its_shortcut():
    network = ResNet(18).eval()
    state = network.state_dict()
    x = torch.randn(1, 64, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        first = plain_basic_block(state, "layer2.0", x, 2)
        second = plain_basic_block(state, "layer2.1", first, 1)
        assert torch.allclose(network.layer2(x), second, atol=1e-5)


def test_another_depth_is_refused_and_weights_of_another_depth_are_named():
    with pytest.raises(BadRequest, match="18 or 50 layers deep; got 34"):
        ResNet(34)
    with pytest.raises(BadWeights, match=r"missing layer1\.0\.conv3"):
        fill(ResNet(50), WeightsFile("resnet18.pth", "", ResNet(18).state_dict()))
