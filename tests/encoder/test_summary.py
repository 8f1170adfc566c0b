"""Summaries: the mask is redrawn, the best is kept, the baselines are what they say, the command."""

import dataclasses
import math

import h5py
import numpy as np
import pytest
import torch
from click.testing import CliRunner

from sish_cluster.cli.main import main
from sish_cluster.core.errors import BadRequest, BadWeights
from sish_cluster.encoder.networks.wsisum import SummaryNetwork, SummaryShape
from sish_cluster.encoder.summarising import ByModel
from sish_cluster.encoder.summary import (
    best_summary,
    drawn_in_proportion,
    sampled_rows,
    summary_rows,
)
from sish_cluster.encoder.summary_baselines import (
    cluster_rows,
    entropy_rows,
    location_rows,
    random_rows,
)
from sish_cluster.encoder.summary_files import SlideFeatures, read_features, write_features
from sish_cluster.encoder.summary_model import (
    SummaryModel,
    read_summary_model,
    write_summary_model,
)
from sish_cluster.encoder.summary_search import SelectionSettings
from sish_cluster.encoder.summary_teacher import Projection, mean_teacher

SHAPE = SummaryShape(8, depth=1, heads=2, decoder_width=8, decoder_depth=1, decoder_heads=2)
BASELINES = (random_rows, cluster_rows, entropy_rows, location_rows)


@pytest.fixture(autouse=True)
def one_thread():
    """Tiny networks on several threads wait for each other more than they compute."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def network_of(seed):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return SummaryNetwork(SHAPE).eval().requires_grad_(False)


@pytest.fixture
def model():
    return SummaryModel(network_of(0), torch.device("cpu"))


@pytest.fixture
def features():
    rows = np.random.default_rng(0).normal(size=(40, 8)).astype(np.float32)
    return rows + np.arange(8, dtype=np.float32)


class WatchedNetwork(SummaryNetwork):
    """A network that remembers every mask it is shown."""

    def __init__(self):
        super().__init__(SHAPE)
        self.seen = []

    def forward(self, patches, visible):
        self.seen += visible.tolist()
        return super().forward(patches, visible)


def test_the_mask_differs_between_tries(features):
    network = WatchedNetwork().eval()
    watched = SummaryModel(network, torch.device("cpu"))
    found = best_summary(features, watched, settings=SelectionSettings(max_tries=250, enough=2))
    assert found.tries == len(network.seen) == 250
    assert len({tuple(mask) for mask in network.seen}) > 240
    assert all(len(set(mask)) == 5 for mask in network.seen)


def plain_score(model, features, rows):
    """Cosine of the decoded class token and the mean embedding, for one mask."""
    with torch.inference_mode():
        decoded = model.network(torch.from_numpy(features)[None], torch.from_numpy(rows)[None])
    a, b = decoded.slides[0].double().numpy(), features.astype(np.float64).mean(axis=0)
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def test_what_is_kept_is_the_best_of_all_that_was_tried(features):
    network = WatchedNetwork().eval()
    watched = SummaryModel(network, torch.device("cpu"))
    found = best_summary(features, watched, settings=SelectionSettings(max_tries=200), rng_seed=4)
    scores = [plain_score(watched, features, np.array(mask)) for mask in list(network.seen)]
    assert found.score == pytest.approx(max(scores), abs=1e-6)
    assert found.rows.tolist() == network.seen[int(np.argmax(scores))]


def test_a_good_mask_ends_the_search_only_after_the_least_tries(features, model):
    hard = SelectionSettings(min_tries=30, max_tries=90, enough=2.0, tries_at_once=20, exchanges=25)
    easy = dataclasses.replace(hard, enough=-1.0)
    assert best_summary(features, model, settings=easy).tries == 30 + 25
    assert best_summary(features, model, settings=hard).tries == 65 + 25
    alone = dataclasses.replace(easy, max_tries=30)
    assert best_summary(features, model, settings=alone).tries == 30


def test_exchanges_change_one_patch_of_the_best_so_far(features):
    network = WatchedNetwork().eval()
    watched = SummaryModel(network, torch.device("cpu"))
    few = SelectionSettings(min_tries=20, max_tries=60, enough=-1.0, tries_at_once=10)
    found = best_summary(features, watched, settings=few, rng_seed=3)
    scores = [plain_score(watched, features, np.array(mask)) for mask in list(network.seen)]
    assert len(scores) == found.tries == 60
    for start in range(20, 60, 10):
        best = set(network.seen[int(np.argmax(scores[:start]))])
        changed = [set(mask) ^ best for mask in network.seen[start : start + 10]]
        assert all(len(patches) == 2 for patches in changed)
        assert len({tuple(sorted(patches)) for patches in changed}) > 5
    assert found.score == pytest.approx(max(scores), abs=1e-6)
    assert max(scores) > max(scores[:20])


def test_fewer_than_no_exchanges_are_refused():
    with pytest.raises(BadRequest, match="exchanges is at least 0; got -1"):
        SelectionSettings(exchanges=-1)


def test_more_tries_never_make_it_worse(features, model):
    scores = [
        best_summary(
            features, model, settings=SelectionSettings(min_tries=n, max_tries=n, enough=2)
        ).score
        for n in (20, 60, 200)
    ]
    assert scores == sorted(scores)


def test_another_teacher_gives_another_score(features, model):
    teacher = -mean_teacher(features)
    few = SelectionSettings(min_tries=20, max_tries=20)
    plain = best_summary(features, model, settings=few)
    turned = best_summary(features, model, teacher=teacher, settings=few)
    assert turned.score != plain.score


def test_rows_are_ascending_real_and_repeat_with_the_seed(features, model):
    coords = np.zeros((40, 2))
    rows = summary_rows(features, coords, n_visible=6, model=model, rng_seed=1)
    assert len(rows) == len(set(rows.tolist())) == 6
    again = summary_rows(features, coords, n_visible=6, model=model, rng_seed=1)
    assert rows.tolist() == again.tolist() == sorted(rows.tolist())
    few = SelectionSettings(min_tries=5, max_tries=5)
    one, two, three = (
        best_summary(features, model, n_visible=6, settings=few, rng_seed=seed).rows.tolist()
        for seed in (1, 1, 2)
    )
    assert one == two != three


@pytest.mark.parametrize("count", [1, 5])
def test_a_slide_with_no_more_patches_than_wanted_is_kept_whole(features, model, count):
    rows = summary_rows(
        features[:count], np.zeros((count, 2)), n_visible=5, model=model, rng_seed=0
    )
    assert rows.tolist() == list(range(count))


def test_features_of_another_length_are_refused(model):
    with pytest.raises(BadRequest, match=r"reads features \(n, 8\); found \(4, 5\)"):
        best_summary(np.zeros((4, 5), np.float32), model)


def test_a_sample_takes_of_each_cluster_its_share():
    labels = np.repeat([0, 1, 2], [60, 30, 10])
    rows = drawn_in_proportion(labels, 20, np.random.default_rng(0))
    assert np.bincount(labels[rows]).tolist() == [12, 6, 2]
    rows = drawn_in_proportion(labels, 33, np.random.default_rng(0))
    assert len(set(rows.tolist())) == 33
    assert np.abs(np.bincount(labels[rows]) - np.array([19.8, 9.9, 3.3])).max() < 1


def test_a_sample_of_a_large_slide_has_the_count_asked_for():
    features = np.random.default_rng(0).normal(size=(300, 4)).astype(np.float32)
    rows = sampled_rows(features, 100, 10, rng_seed=0)
    assert len(set(rows.tolist())) == 100
    assert sampled_rows(features[:50], 100, 10, rng_seed=0).tolist() == list(range(50))


@pytest.mark.parametrize("choose", BASELINES)
def test_a_baseline_returns_ascending_rows_of_any_size(choose, features):
    coords = np.stack([np.arange(40) % 8, np.arange(40) // 8], axis=1)
    pictures = np.random.default_rng(1).integers(0, 256, (40, 6, 6, 3), dtype=np.uint8)
    for described in (features, pictures, np.zeros((40, 3), np.float32)):
        for n in (1, 7, 40, 90):
            rows = choose(described, coords, n, 3)
            assert rows.tolist() == sorted(set(rows.tolist()))
            assert len(rows) == min(n, 40)
            assert rows.tolist() == choose(described, coords, n, 3).tolist()


def test_the_cluster_baseline_takes_one_of_each_kind():
    features = np.repeat(np.eye(4, 8), 10, axis=0).astype(np.float32)
    features += 0.01 * np.random.default_rng(0).normal(size=features.shape).astype(np.float32)
    rows = cluster_rows(features, np.zeros((40, 2)), 4, 0)
    assert sorted(rows // 10) == [0, 1, 2, 3]


def test_the_location_baseline_takes_one_of_each_place():
    coords = np.repeat([[0, 0], [0, 900], [900, 0]], 5, axis=0) + np.arange(15)[:, None]
    rows = location_rows(np.zeros((15, 2), np.float32), coords, 3, 0)
    assert sorted(rows // 5) == [0, 1, 2]


def test_the_entropy_baseline_takes_the_most_varied():
    pictures = np.full((5, 8, 8, 3), 200, np.uint8)
    pictures[3] = np.arange(64, dtype=np.uint8).reshape(8, 8, 1) * 4
    pictures[1, :4] = 100
    assert entropy_rows(pictures, np.zeros((5, 2)), 2, 0).tolist() == [1, 3]
    features = np.array([[1, 0, 0, 0], [1, 1, 1, 1], [1, 1, 0, 0]], np.float32)
    assert entropy_rows(features, np.zeros((3, 2)), 1, 0).tolist() == [1]


def test_the_random_baseline_depends_on_the_seed_alone(features):
    coords = np.zeros((40, 2))
    draws = {tuple(random_rows(features, coords, 5, seed)) for seed in range(20)}
    assert len(draws) > 15
    with pytest.raises(BadRequest, match="got n = 0"):
        random_rows(features, coords, 0, 0)


def test_a_model_file_gives_back_the_network_and_the_projection(tmp_path):
    projection = Projection(np.ones(5, np.float32), np.eye(8, 5, dtype=np.float32))
    write_summary_model(tmp_path / "m.safetensors", network_of(3), projection)
    found = read_summary_model(tmp_path / "m.safetensors")
    for name, tensor in network_of(3).state_dict().items():
        assert torch.equal(found.network.state_dict()[name], tensor)
    assert np.array_equal(found.projection.axes, projection.axes)
    assert len(found.digest) == 32
    first = (tmp_path / "m.safetensors").read_bytes()
    write_summary_model(tmp_path / "m.safetensors", network_of(3), projection)
    assert (tmp_path / "m.safetensors").read_bytes() == first


def test_a_file_that_is_no_summary_model_is_refused(tmp_path):
    import safetensors.torch

    (tmp_path / "a.safetensors").write_bytes(b"nothing")
    safetensors.torch.save_file({"x": torch.zeros(1)}, tmp_path / "b.safetensors")
    for name in ("a", "b", "missing"):
        with pytest.raises(BadWeights, match=f"{name}.safetensors: is no summary model"):
            read_summary_model(tmp_path / f"{name}.safetensors")


def test_a_model_trained_against_vectors_asks_for_them(features):
    projection = Projection(np.zeros(3, np.float32), np.eye(8, 3, dtype=np.float32))
    model = SummaryModel(network_of(0), torch.device("cpu"), projection)
    with pytest.raises(BadRequest, match="give the same --teacher files"):
        ByModel(model)
    few = SelectionSettings(min_tries=5, max_tries=5)
    by_model = ByModel(model, [{"s": np.array([1, 2, 3], np.float32)}], settings=few)
    found = by_model(SlideFeatures("s", features, np.zeros((40, 2))))
    plain = best_summary(
        features, model, teacher=np.array([1, 2, 3, 0, 0, 0, 0, 0], np.float32), settings=few
    )
    assert found.score == plain.score


@pytest.fixture
def folder(tmp_path, features):
    write_features(tmp_path / "features" / "one.h5", features, np.arange(80).reshape(40, 2))
    write_features(tmp_path / "features" / "two.h5", features[:9], np.arange(18).reshape(9, 2))
    write_summary_model(tmp_path / "m.safetensors", network_of(0), None)
    return tmp_path


def run(folder, *more):
    out = folder / "out"
    args = ["summarise", str(folder / "features"), "--out", str(out), "--device", "cpu", *more]
    return CliRunner().invoke(main, args), out


def test_the_command_writes_features_coords_indices_and_score(folder, features):
    found, out = run(folder, "--model", str(folder / "m.safetensors"), "--tries", "20")
    assert found.exit_code == 0, found.output
    with h5py.File(out / "one.h5") as file:
        rows = file["indices"][()]
        assert len(rows) == 5
        assert np.array_equal(file["features"][()], features[rows])
        assert np.array_equal(file["coords"][()], np.arange(80).reshape(40, 2)[rows])
        assert -1 <= float(file["score"][()]) <= 1
        assert file.attrs["method"] == "wsisum"
    assert len(read_features(out / "two.h5")) == 2


def test_the_command_leaves_done_summaries_alone_and_names_broken_files(folder):
    found, out = run(folder, "--method", "location", "--patches", "3")
    assert found.exit_code == 0, found.output
    stamp = (out / "one.h5").stat().st_mtime_ns
    (folder / "features" / "zero.h5").write_bytes(b"nothing")
    found, out = run(folder, "--method", "location", "--patches", "3")
    assert found.exit_code == 4
    assert "is no h5 file" in " ".join(found.output.split())
    assert (out / "one.h5").stat().st_mtime_ns == stamp
    with h5py.File(out / "one.h5") as file:
        assert math.isnan(file["score"][()])


def test_the_command_says_what_it_lacks(folder):
    found, _ = run(folder)
    assert found.exit_code == 2
    assert "needs --model" in found.output
