"""Weights files: the published layout loads, everything else is refused by name."""

import collections
import os
import pickle

import numpy as np
import pytest
import safetensors.torch
import torch

from sish_cluster.core.errors import BadWeights
from sish_cluster.encoder.checkpoint import digest_of_state, fill, read_ranks, read_weights
from sish_cluster.encoder.keying import KeyNetwork
from sish_cluster.encoder.networks.seeding import drawn_network
from sish_cluster.encoder.networks.vqvae import COMPACT, VqVae

PUBLISHED = "vqvae-compact"


@pytest.fixture
def network():
    return drawn_network(COMPACT, rng_seed=1)


def prefixed(state):
    return {f"module.{name}": tensor for name, tensor in state.items()}


@pytest.mark.parametrize("wrap", [dict, prefixed], ids=["plain", "module prefix"])
def test_the_published_layout_loads_with_or_without_prefix(tmp_path, network, wrap):
    path = tmp_path / "model_9.pt"
    torch.save({"model": wrap(network.state_dict()), "epoch": 9}, path)
    read = VqVae(COMPACT)
    weights = read_weights(path)
    fill(read, weights)
    assert digest_of_state(read) == digest_of_state(network)
    assert len(weights.digest) == 32


def test_safetensors_in_half_precision_load_as_float32(tmp_path, network):
    path = tmp_path / "model.safetensors"
    halved = {name: tensor.half() for name, tensor in network.state_dict().items()}
    safetensors.torch.save_file(halved, path)
    read = VqVae(COMPACT)
    fill(read, read_weights(path))
    assert read.encoder[0].weight.dtype == torch.float32
    assert torch.equal(read.encoder[0].weight.half(), halved["encoder.0.weight"])


def test_what_differs_is_named(tmp_path, network):
    state = network.state_dict()
    state["encoder.0.weight"] = state["encoder.0.weight"][:32]
    state["stranger"] = torch.zeros(1)
    del state["encoder.3.bias"]
    path = tmp_path / "other.pt"
    torch.save({"model": state}, path)
    with pytest.raises(BadWeights) as caught:
        fill(VqVae(COMPACT), read_weights(path))
    for named in ("missing encoder.3.bias", "unexpected stranger", "[32, 3, 4, 4]".strip("[]")):
        assert named in str(caught.value)
    assert caught.value.metadata["file"] == "other.pt"


def test_a_file_that_would_run_code_is_refused_and_runs_nothing(tmp_path):
    class Hostile:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "made"),)

    path = tmp_path / "hostile.pt"
    torch.save({"model": Hostile()}, path)
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Hostile()))
    for name in ("hostile.pt", "plain.pt"):
        with pytest.raises(BadWeights, match="no weights file"):
            read_weights(tmp_path / name)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("name", ["torn.pt", "torn.safetensors"])
def test_a_torn_or_missing_file_is_refused(tmp_path, network, name):
    with pytest.raises(BadWeights, match="cannot be read"):
        read_weights(tmp_path / name)
    whole = tmp_path / "whole.pt"
    torch.save({"model": network.state_dict()}, whole)
    (tmp_path / name).write_bytes(whole.read_bytes()[:5000])
    with pytest.raises(BadWeights, match="no weights file"):
        read_weights(tmp_path / name)


def test_a_state_that_holds_more_than_tensors_is_refused(tmp_path):
    torch.save({"model": {"encoder.0.weight": "text"}}, tmp_path / "text.pt")
    with pytest.raises(BadWeights, match="is no tensor"):
        read_weights(tmp_path / "text.pt")


@pytest.mark.parametrize(
    "form", [lambda r: dict(enumerate(r)), list, torch.tensor, collections.OrderedDict],
    ids=["mapping", "list", "tensor", "ordered"],
)  # fmt: skip
def test_codebook_semantic_loads_as_mapping_list_or_tensor(tmp_path, form):
    ranks = np.random.default_rng(0).permutation(128).tolist()
    given = form(list(enumerate(ranks))) if form is collections.OrderedDict else form(ranks)
    torch.save(given, tmp_path / "codebook_semantic.pt")
    assert read_ranks(tmp_path / "codebook_semantic.pt").tolist() == ranks


@pytest.mark.parametrize("ranks", [[0] * 128, list(range(127)), list(range(1, 129)), [1.5] * 128])
def test_an_order_that_is_no_permutation_is_refused(tmp_path, ranks):
    torch.save(ranks, tmp_path / "order.pt")
    with pytest.raises(BadWeights, match=r"one rank of"):
        read_ranks(tmp_path / "order.pt")


def test_a_published_checkpoint_gives_keys_by_its_own_order(tmp_path, network, patches):
    torch.save({"model": network.state_dict()}, tmp_path / "model_9.pt")
    torch.save(dict(enumerate(reversed(range(128)))), tmp_path / "codebook_semantic.pt")
    own = KeyNetwork(PUBLISHED, tmp_path / "model_9.pt")
    given = KeyNetwork(
        PUBLISHED,
        tmp_path / "model_9.pt",
        codeword_order=tmp_path / "codebook_semantic.pt",
    )
    assert np.array_equal(own.latents_of(patches), given.latents_of(patches))
    assert given.ranks.tolist() == list(reversed(range(128)))
    assert own.ranks_digest != given.ranks_digest
    assert "model_9.pt" in own.description
    assert "untrained" not in own.description


def test_without_decoder_an_order_must_be_given(tmp_path, network):
    state = {n: t for n, t in network.state_dict().items() if not n.startswith("decoder.")}
    torch.save({"model": state}, tmp_path / "encoder.pt")
    torch.save(list(range(128)), tmp_path / "order.pt")
    with pytest.raises(BadWeights, match="missing decoder"):
        KeyNetwork(PUBLISHED, tmp_path / "encoder.pt")
    read = KeyNetwork(PUBLISHED, tmp_path / "encoder.pt", codeword_order=tmp_path / "order.pt")
    assert read.weights_digest == digest_of_state(network, prefixes=("encoder.", "codebook."))


def test_a_refused_file_is_told_what_it_asks_to_build_and_not_to_run_it(tmp_path):
    path = tmp_path / "other.pt"
    torch.save({"model": {"weight": torch.zeros(1)}, "by": os.getcwd}, path)
    with pytest.raises(BadWeights) as caught:
        read_weights(path)
    assert "posix.getcwd" in caught.value.message
    assert "weights_only" not in caught.value.message


def test_weights_that_are_not_finite_are_refused_by_name(tmp_path, network):
    state = network.state_dict()
    state["encoder.3.bias"] = state["encoder.3.bias"] * float("nan")
    path = tmp_path / "diverged.pt"
    torch.save({"model": state}, path)
    with pytest.raises(BadWeights, match=r"diverged\.pt: encoder\.3\.bias holds numbers that are"):
        fill(VqVae(COMPACT), read_weights(path))
