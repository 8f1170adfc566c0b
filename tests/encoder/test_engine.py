"""Engines: OpenVINO computes what torch computes, the same bytes every time, and calls nobody."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from sish_cluster.core.code import codes_of
from sish_cluster.core.errors import BadRequest, EncoderUnavailable, Internal
from sish_cluster.encoder.embedders import KINDS, NetworkEmbedder
from sish_cluster.encoder.keying import KeyNetwork
from sish_cluster.encoder.networks import engine as engines
from sish_cluster.encoder.networks import inputs
from sish_cluster.encoder.networks.engine import EngineSettings, Plan, Runner, TorchEngine, plan_of
from sish_cluster.encoder.networks.openvino_graph import graph_of
from sish_cluster.encoder.networks.openvino_run import OpenVinoEngine, multiplies_bfloat16
from sish_cluster.encoder.networks.vqvae import COMPACT, LARGE, VqVae

CPU = torch.device("cpu")
NETWORKS = {name: kind.build for name, kind in KINDS.items()} | {
    size.name: lambda size=size: VqVae(size).encoder for size in (COMPACT, LARGE)
}


def drawn(name):
    """Return a network whose norms have statistics of their own, as trained ones have."""
    torch.manual_seed(4)
    network = NETWORKS[name]().eval().requires_grad_(False)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.1)
            layer.running_var.uniform_(0.8, 1.2)
            layer.weight.uniform_(0.8, 1.2)
            layer.bias.normal_(0, 0.1)
    return network


def picture(side_px, n=1):
    x = torch.randn(n, 3, side_px, side_px, generator=torch.Generator().manual_seed(side_px))
    return x.to(memory_format=torch.channels_last)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("side_px", [64, 112])
def test_openvino_computes_what_torch_computes(name, side_px):
    network = drawn(name)
    x = picture(side_px)
    wanted = network(x)
    found = OpenVinoEngine(network, numbers="float32")(x)
    assert found.shape == wanted.shape
    assert found.dtype == torch.float32
    assert torch.allclose(found, wanted, rtol=1e-4, atol=1e-4 * float(wanted.abs().max()))


def test_odd_sides_are_padded_as_tensorflow_pads():
    network = drawn("efficientnet-lite0")
    for side_px in (65, 99, 128):
        x = picture(side_px)
        found = OpenVinoEngine(network, numbers="float32")(x)
        assert torch.allclose(found, network(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("numbers", ["float32", "bfloat16"])
def test_an_answer_has_the_same_bytes_every_time_and_on_every_thread(numbers):
    network = drawn("resnet18")
    first, second = (OpenVinoEngine(network, numbers=numbers, at_once=n) for n in (1, 3))
    x = picture(96)
    answers = [first(x), first(x)]
    threads = [threading.Thread(target=lambda: answers.append(second(x))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(answers) == 8
    assert len({answer.numpy().tobytes() for answer in answers}) == 1


def test_an_answer_is_not_overwritten_by_the_next():
    engine = OpenVinoEngine(drawn("resnet18"), numbers="float32")
    first = engine(picture(64))
    kept = first.clone()
    engine(picture(64) + 1)
    assert torch.equal(first, kept)


@pytest.mark.parametrize("name", KINDS)
def test_bfloat16_of_torch_stays_near_float32_and_its_mean_is_finer_than_bfloat16(name):
    network = drawn(name)
    x = picture(128)
    wanted = network(x)
    found = TorchEngine(network, Plan("torch", "bfloat16", CPU))(x)
    assert float((found - wanted).norm() / wanted.norm()) < 0.05
    rounded = found.bfloat16().float()
    assert not torch.equal(found, rounded)


def test_few_bits_of_a_code_differ_in_bfloat16(patches):
    full, half = (
        NetworkEmbedder(device="cpu", running=EngineSettings("auto", p)) for p in ("full", "half")
    )
    bits = [np.unpackbits(codes_of(e.embeddings_of(patches[:2])), axis=1) for e in (full, half)]
    assert (bits[0] != bits[1]).sum(axis=1).max() <= 32


def test_next_to_no_codeword_differs_between_engines(patches):
    ways = (EngineSettings("torch", "full"), EngineSettings("openvino", "half"))
    latents = [
        KeyNetwork(COMPACT.name, device="cpu", running=way).latents_of(patches) for way in ways
    ]
    assert (latents[0] != latents[1]).mean() < 1e-3


def test_a_fingerprint_knows_nothing_of_engine_and_precision_and_keys_are_float32():
    runs = [EngineSettings("torch", "full"), EngineSettings("openvino", "half")]
    parts = [NetworkEmbedder(device="cpu", running=running).parts for running in runs]
    assert parts[0] == parts[1]
    keying = KeyNetwork(COMPACT.name, device="cpu", running=runs[1])
    assert keying.runner.plan.numbers == "float32"


def test_half_precision_is_for_those_that_multiply_it_themselves(monkeypatch):
    for multiplies, numbers in ((True, "bfloat16"), (False, "float32")):
        monkeypatch.setattr(engines, "multiplies_bfloat16", lambda answer=multiplies: answer)
        assert plan_of(EngineSettings(), CPU) == Plan("openvino", numbers, CPU)
    assert plan_of(EngineSettings(precision="full"), CPU).numbers == "float32"
    assert plan_of(EngineSettings("torch"), CPU).numbers == "float32"
    assert multiplies_bfloat16() in (True, False)


def test_without_openvino_torch_runs_on_the_cpu(monkeypatch):
    monkeypatch.setattr(engines, "has_openvino", lambda: False)
    assert plan_of(EngineSettings(), CPU) == Plan("torch", "float32", CPU)
    assert plan_of(EngineSettings(), torch.device("cuda")).engine == "torch"


def test_what_cannot_run_is_refused_and_says_what_can():
    with pytest.raises(BadRequest, match="--device cpu"):
        plan_of(EngineSettings("openvino"), torch.device("cuda"))
    with pytest.raises(BadRequest, match="auto, openvino, torch; got 'onnx'"):
        EngineSettings("onnx")
    with pytest.raises(BadRequest, match="half, full; got 'double'"):
        EngineSettings(precision="double")
    with pytest.raises(BadRequest, match="at least 1"):
        EngineSettings(at_once=0)
    with pytest.raises(Internal, match="tanh, which has no translation for OpenVINO"):
        graph_of(nn.Sequential(nn.Conv2d(3, 4, 3), Tanh()))


class Tanh(nn.Module):
    def forward(self, x):
        return torch.tanh(x)


def test_a_runner_starts_when_it_is_first_asked_and_lets_torchs_weights_go():
    runner = Runner(drawn("resnet18"), Plan("openvino", "float32", CPU))
    assert runner.network is not None
    runner(picture(64))
    assert runner.network is None
    kept = Runner(drawn("resnet18"), Plan("torch", "float32", CPU))
    kept(picture(64))
    assert kept.network is not None


CALLS = """
import json, sys
calls = []
WATCHED = ("socket.", "subprocess.", "os.posix_spawn", "os.exec", "os.fork", "urllib.")
sys.addaudithook(lambda name, args: calls.append(name) if name.startswith(WATCHED) else None)
import numpy as np
from sish_cluster.encoder.embedders import NetworkEmbedder
from sish_cluster.encoder.networks.engine import EngineSettings
embedder = NetworkEmbedder(device="cpu", running=EngineSettings("openvino"))
calls.clear()
rows = embedder.embeddings_of(np.zeros((1, 64, 64, 3), np.uint8))
loaded = [n for n, m in sys.modules.items() if m and ("telemetry" in n or ".ovc" in n)]
print(json.dumps([calls, loaded, rows.shape, "openvino" in sys.modules]))
"""


def test_openvino_reports_to_nobody(tmp_path):
    environment = {**os.environ, "HOME": str(tmp_path), "PYTHONPATH": str(Path.cwd())}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CALLS],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    assert json.loads(done.stdout) == [[], [], [1, 1024], True]
    assert [path.name for path in tmp_path.rglob("*") if "intel" in str(path)] == []


def test_an_openvino_that_does_not_load_is_said_to_be_missing(monkeypatch):
    from sish_cluster.encoder.networks import openvino_quiet

    openvino_quiet.openvino_parts.cache_clear()
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(EncoderUnavailable, match="install openvino, or use --engine torch"):
        openvino_quiet.openvino_parts()
    assert not openvino_quiet.has_openvino()
    monkeypatch.undo()
    assert openvino_quiet.has_openvino()


def test_patches_together_as_on_a_gpu_give_the_rows_of_patches_alone(patches, monkeypatch):
    running = EngineSettings("torch", "full")
    embedder = NetworkEmbedder(device="cpu", running=running)
    keying = KeyNetwork(COMPACT.name, device="cpu", running=running)
    small = np.ascontiguousarray(patches[:, :128, :128])
    alone, keys = embedder.embeddings_of(small), keying.keys_of(patches)
    sizes = []

    def together(device, n):
        sizes.append(n)
        return n

    monkeypatch.setattr(inputs, "together_on", together)
    assert np.allclose(embedder.embeddings_of(small), alone, rtol=1e-4, atol=1e-5)
    apart = np.abs(keying.keys_of(patches).astype(float) - keys.astype(float))
    assert apart.max() <= 1e-6 * float(keys.max())
    assert sizes == [3, 3]


@pytest.mark.parametrize("name", KINDS)
def test_whole_pixels_with_folded_weights_are_normalised_pixels(name):
    network, normalisation = drawn(name), KINDS[name].normalisation
    rng = np.random.default_rng(2)
    patch = rng.integers(0, 256, (1, 96, 96, 3), dtype=np.uint8)
    wanted = network(normalisation.batch_of(patch, CPU))
    engine = OpenVinoEngine(network, numbers="float32", whole=normalisation)
    found = engine(inputs.whole_of(patch, CPU))
    assert torch.allclose(found, wanted, rtol=1e-4, atol=1e-4 * float(wanted.abs().max()))


def test_whole_pixels_are_exact_in_bfloat16():
    levels = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 16, 16, 3)
    x = inputs.whole_of(levels, CPU)
    assert torch.equal(x.bfloat16().float(), x)
    assert torch.equal(x[:, :3].flatten(2).unique() + 128, torch.arange(256.0))
    assert (x[:, 3] == 1).all()
