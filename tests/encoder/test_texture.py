"""Texture codes: signs of an embedding's rises and falls, whatever the batch."""

import csv

import cv2
import numpy as np
import pytest
import torch

from sish_cluster.core.code import codes_of, distances_between
from sish_cluster.core.errors import BadRequest, BadWeights
from sish_cluster.encoder.networks.densenet import DenseNet121
from sish_cluster.encoder.texture import IMAGENET_WEIGHTS, TextureNetwork

N_TILES = 60


@pytest.fixture(scope="module")
def texture():
    return TextureNetwork()


@pytest.fixture(scope="module")
def small():
    return np.random.default_rng(0).integers(0, 256, (3, 96, 96, 3), dtype=np.uint8)


def test_the_shipped_weights_fill_every_tensor_of_the_network():
    network = DenseNet121()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    filled = TextureNetwork(IMAGENET_WEIGHTS)._network.state_dict()
    same = [n for n in before if torch.equal(before[n], filled[n]) and not n.endswith("tracked")]
    assert same == []


def test_a_code_is_that_of_its_embedding_whatever_the_batch(texture, small):
    embeddings = texture.embeddings_of(small)
    assert embeddings.shape == (3, texture.dimensions)
    codes = texture.codes_of(small)
    assert np.array_equal(codes, codes_of(embeddings))
    assert np.array_equal(codes[2], texture.codes_of(small[2:])[0])
    assert codes.shape == (3, 128)


def test_a_classifier_in_the_weights_file_is_left_out(tmp_path, texture):
    state = texture._network.state_dict() | {"classifier.weight": torch.zeros(1000, 1024)}
    torch.save(state, tmp_path / "densenet121.pth")
    assert TextureNetwork(tmp_path / "densenet121.pth").weights_digest == texture.weights_digest
    torch.save({"fc.weight": torch.zeros(1)}, tmp_path / "resnet.pth")
    with pytest.raises(BadWeights, match=r"missing features"):
        TextureNetwork(tmp_path / "resnet.pth")


def test_patches_that_are_not_bytes_are_refused(texture):
    with pytest.raises(BadRequest, match="uint8"):
        texture.codes_of(np.zeros((1, 64, 64, 3), np.float32))


@pytest.mark.slow
@pytest.mark.shared
def test_the_nearest_code_of_a_real_tile_is_mostly_of_its_own_class(texture, shared_data):
    with (shared_data / "tiles" / "labels.csv").open() as stream:
        rows = [row for row in csv.DictReader(stream) if row["set"] == "lc25000"]
    rows = rows[:: len(rows) // N_TILES]
    files = [shared_data / "tiles" / row["file"] for row in rows]
    codes = texture.codes_of(np.stack([cv2.imread(str(file))[..., ::-1] for file in files]))
    labels, groups = (np.array([row[name] for row in rows]) for name in ("label", "group"))
    right = 0
    for code, label, group in zip(codes, labels, groups, strict=True):
        distances = distances_between(code, codes)
        distances[groups == group] = 1 << 20
        right += labels[distances.argmin()] == label
    assert right / len(rows) > 0.7
