"""WSISum's training: the loss against a plain formula, masks, positions, teachers, sampling."""

import math

import h5py
import numpy as np
import pytest
import torch
from click.testing import CliRunner

from sish_cluster.cli.main import main
from sish_cluster.core.errors import BadRequest, BadSlide
from sish_cluster.core.geometry import Box
from sish_cluster.encoder.embedders import NetworkEmbedder
from sish_cluster.encoder.networks.resnet import ResNet
from sish_cluster.encoder.networks.wsisum import (
    Decoded,
    SummaryNetwork,
    SummaryShape,
    shape_for,
    sinusoids,
    visible_count,
)
from sish_cluster.encoder.slide import open_slide
from sish_cluster.encoder.summary_files import read_features, write_features
from sish_cluster.encoder.summary_model import read_summary_model
from sish_cluster.encoder.summary_teacher import fitted_projection, joined, mean_teacher
from sish_cluster.encoder.training.patch_run import write_backbone
from sish_cluster.encoder.training.slide_features import features_of_slides
from sish_cluster.encoder.training.wsisum import FeatureShelf, WsisumSettings, WsisumTask
from sish_cluster.encoder.training.wsisum_losses import (
    drawn_visible,
    masked_loss,
    summary_losses,
)
from sish_cluster.encoder.training.wsisum_run import WsisumRun, train_wsisum, width_of
from sish_cluster.testing.histology import Drawing
from sish_cluster.testing.slides import draw_slide

CPU = torch.device("cpu")
TINY = SummaryShape(8, depth=1, heads=2, decoder_width=8, decoder_depth=1, decoder_heads=2)
SMALL = WsisumSettings(shape=TINY, patches=16, clusters=3, batch=2, passes=4, warmup_passes=1)


@pytest.fixture(autouse=True)
def one_thread():
    """Several threads add in an order of their own: results would repeat only nearly."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def features(tmp_path):
    """Three slides of 20, 20 and 6 patches."""
    rng = np.random.default_rng(0)
    for name, count in (("a", 20), ("b", 20), ("c", 6)):
        rows = rng.normal(size=(count, 8)).astype(np.float32)
        write_features(
            tmp_path / "features" / f"{name}.h5", rows, np.arange(2 * count).reshape(-1, 2)
        )
    return tmp_path / "features"


def test_the_published_network_has_the_published_sizes():
    with torch.device("meta"):
        network = SummaryNetwork()
    encoder = 12 * (4 * 768 * 768 + 2 * 4 * 768 * 768) + 12 * (9 + 4) * 768
    assert sum(p.numel() for p in network.blocks.parameters()) == encoder
    assert len(network.decoder_blocks) == 4
    assert {b.heads for b in network.blocks} == {12}
    assert {b.heads for b in network.decoder_blocks} == {6}
    assert network.decoder_pred.weight.shape == (768, 384)


def test_sixty_three_of_five_hundred_patches_stay_visible():
    assert visible_count(500, 0.875) == 63
    assert visible_count(8, 0.875) == 1
    assert visible_count(1, 0.875) == 1


def test_the_masked_loss_counts_masked_patches_alone():
    draws = torch.Generator().manual_seed(0)
    true, found = torch.randn(2, 5, 3, generator=draws), torch.randn(2, 5, 3, generator=draws)
    visible = torch.tensor([[0, 3], [1, 2]])
    total = 0.0
    for slide, seen in enumerate(visible.tolist()):
        for patch in set(range(5)) - set(seen):
            total += sum(
                (float(found[slide, patch, d]) - float(true[slide, patch, d])) ** 2
                for d in range(3)
            )
    assert float(masked_loss(found, true, visible)) == pytest.approx(total / (2 * 3 * 3))


def test_the_loss_is_the_masked_error_plus_that_of_the_slide():
    true = torch.zeros(2, 4, 3)
    decoded = Decoded(torch.full((2, 3), 2.0), torch.full((2, 4, 3), 3.0))
    losses = summary_losses(decoded, true, torch.tensor([[0], [1]]), torch.full((2, 3), 1.0))
    assert {k: float(v) for k, v in losses.items()} == {"loss": 10.0, "masked": 9.0, "slide": 1.0}


def test_positions_are_sines_and_cosines_of_growing_wavelengths():
    found = sinusoids(7, 6)
    for place in range(7):
        for i in range(3):
            angle = place / 10_000 ** (i / 3)
            assert float(found[place, i]) == pytest.approx(math.sin(angle), abs=1e-5)
            assert float(found[place, 3 + i]) == pytest.approx(math.cos(angle), abs=1e-5)


def test_what_is_masked_has_no_influence_and_what_is_visible_has():
    network = SummaryNetwork(TINY).eval()
    patches = torch.randn(1, 6, 8, generator=torch.Generator().manual_seed(0))
    visible = torch.tensor([[1, 4]])
    plain = network(patches, visible)
    masked, seen = patches.clone(), patches.clone()
    # No constant shift: layer norms take that out again.
    other = torch.randn(6, 8, generator=torch.Generator().manual_seed(1))
    masked[0, [0, 2, 3, 5]] += other[[0, 2, 3, 5]]
    seen[0, 4] += other[4]
    assert torch.equal(network(masked, visible).patches, plain.patches)
    assert not torch.allclose(network(seen, visible).slides, plain.slides)
    assert plain.slides.shape == (1, 8)
    assert plain.patches.shape == (1, 6, 8)


def test_the_class_token_is_never_masked():
    network = SummaryNetwork(TINY).eval()
    patches = torch.randn(1, 6, 8, generator=torch.Generator().manual_seed(0))
    for visible in ([[0]], [[5]], [[0, 1, 2, 3, 4, 5]]):
        tokens = network.encoded(patches, torch.tensor(visible))
        assert tokens.shape == (1, 1 + len(visible[0]), 8)
    with torch.no_grad():
        before = network(patches, torch.tensor([[2]])).slides
        network.cls_token += torch.linspace(-1, 1, 8)
        assert not torch.allclose(network(patches, torch.tensor([[2]])).slides, before)


def test_masks_are_drawn_without_repetition_and_differ_between_slides():
    found = drawn_visible(40, 16, 4, torch.Generator().manual_seed(0))
    assert all(len(set(row)) == 4 and row == sorted(row) for row in found.tolist())
    assert len({tuple(row) for row in found.tolist()}) > 30
    assert set(found.flatten().tolist()) == set(range(16))


def test_a_width_that_its_heads_do_not_divide_is_refused():
    with pytest.raises(BadRequest, match="1000 and 12"):
        SummaryShape(1000)
    assert shape_for(1024).heads == 16


def test_the_teacher_is_the_mean_embedding_where_there_are_no_vectors():
    rows = np.array([[1, 2], [3, 6]], np.float32)
    assert mean_teacher(rows).tolist() == [2, 4]


def test_the_projection_keeps_distances_of_slides_when_it_has_room():
    vectors = np.random.default_rng(0).normal(size=(6, 30)).astype(np.float32)
    found = fitted_projection(vectors, 8).of(vectors)
    assert found.shape == (6, 8)
    assert np.abs(found[:, 5:]).max() < 1e-5
    for i in range(6):
        distances = np.linalg.norm(vectors - vectors[i], axis=1)
        np.testing.assert_allclose(np.linalg.norm(found - found[i], axis=1), distances, atol=1e-4)


def test_the_first_component_is_the_direction_of_greatest_spread():
    rng = np.random.default_rng(1)
    direction = np.array([0.6, 0.8, 0.0])
    vectors = rng.normal(size=(50, 1)) * 5 * direction + 0.1 * rng.normal(size=(50, 3))
    axis = fitted_projection(vectors.astype(np.float32), 2).axes[0]
    np.testing.assert_allclose(axis, direction, atol=0.02)


def test_vectors_of_several_models_are_joined_in_order_and_a_missing_slide_is_named():
    models = [
        {"a": np.ones(2, np.float32), "b": np.zeros(2, np.float32)},
        {"a": np.full(3, 2, np.float32)},
    ]
    assert joined(["a"], models).tolist() == [[1, 1, 2, 2, 2]]
    with pytest.raises(BadRequest, match="teacher file 2 has no vector of slide 'b'"):
        joined(["a", "b"], models)


def task_of(folder):
    shelf = FeatureShelf(sorted(folder.iterdir()))
    teachers = np.stack([mean_teacher(shelf.slide(i).features) for i in range(len(shelf))])
    return WsisumTask(shelf, teachers, SMALL, device=CPU)


def test_the_rate_is_a_share_of_the_published_one(features):
    assert task_of(features).rate == pytest.approx(1.5e-4 * 2 / 256)


def test_slides_of_a_step_are_sampled_anew_and_small_ones_are_shown_whole(features):
    task = task_of(features)
    groups = [task.batch_at(s, torch.Generator().manual_seed(s)) for s in range(8)]
    flat = [group for batch in groups for group in batch]
    assert {group.patches.shape[1] for group in flat} == {16, 6}
    assert {group.visible.shape[1] for group in flat} == {2, 1}
    large = [g.patches[0] for g in flat if g.patches.shape[1] == 16]
    assert not all(torch.equal(large[0], other) for other in large[1:])


def test_the_mask_of_a_slide_differs_between_tries_and_repeats_with_the_seed(features):
    # Slide c has six patches of which one is visible: the sample is the same at every try.
    task = task_of(features)

    def masks(seed):
        batches = [task.batch_at(s, torch.Generator().manual_seed(seed + s)) for s in range(24)]
        small = [group for batch in batches for group in batch if group.patches.shape[1] == 6]
        return [int(group.visible) for group in small]

    assert len(set(masks(0))) >= 3
    assert masks(0) == masks(0)
    assert masks(0) != masks(100)


def test_the_loss_of_a_step_is_the_mean_over_its_slides(features):
    task = task_of(features)
    groups = next(
        batch
        for batch in (task.batch_at(s, torch.Generator().manual_seed(s)) for s in range(8))
        if len(batch) == 2
    )
    with torch.no_grad():
        found = task.losses_of(groups, 0)["loss"]
        single = [
            summary_losses(task.network(g.patches, g.visible), g.patches, g.visible, g.teachers)
            for g in groups
        ]
    assert float(found) == pytest.approx(sum(float(s["loss"]) for s in single) / 2)


class Stopped(Exception):
    pass


def test_a_run_learns_resumes_to_the_same_model_and_is_read_back(tmp_path, features):
    def stop_at_two(report):
        if report.step == 2:
            raise Stopped

    whole = train_wsisum(WsisumRun(tmp_path / "whole", features, device="cpu"), SMALL)
    run = WsisumRun(tmp_path / "cut", features, device="cpu", checkpoint_every=1, log_every=1)
    with pytest.raises(Stopped):
        train_wsisum(run, SMALL, reporter=stop_at_two)
    assert train_wsisum(run, SMALL)["digest"] == whole["digest"]
    model = read_summary_model(tmp_path / "whole" / "wsisum.safetensors")
    assert model.network.shape == TINY
    assert model.projection is None
    assert (tmp_path / "whole" / "loss.png").stat().st_size > 1000


def test_a_run_against_slide_vectors_keeps_their_projection(tmp_path, features):
    with h5py.File(tmp_path / "vectors.h5", "w") as file:
        for i, name in enumerate("abc"):
            file[name] = np.eye(3, 5, dtype=np.float32)[i]
    run = WsisumRun(tmp_path / "run", features, (tmp_path / "vectors.h5",), device="cpu")
    found = train_wsisum(run, SMALL)
    projection = read_summary_model(tmp_path / "run" / "wsisum.safetensors").projection
    assert found["teacher"] == "slide vectors"
    assert projection.axes.shape == (8, 5)


def test_features_of_another_length_are_named(tmp_path, features):
    write_features(features / "d.h5", np.zeros((4, 5), np.float32), np.zeros((4, 2)))
    assert width_of(features) == 8
    with pytest.raises(ValueError, match="shape"):
        train_wsisum(WsisumRun(tmp_path / "run", features, device="cpu"), SMALL)


@pytest.mark.parametrize("axis", [False, True], ids=["plain", "leading axis of one"])
def test_feature_files_of_both_layouts_are_read(tmp_path, axis):
    features, coords = np.arange(6, dtype=np.float16).reshape(3, 2), np.arange(6).reshape(3, 2)
    with h5py.File(tmp_path / "s.h5", "w") as file:
        file["features"] = features[None] if axis else features
        file["coords"] = coords[None] if axis else coords
    found = read_features(tmp_path / "s.h5")
    assert found.name == "s"
    assert found.features.dtype == np.float32
    assert found.features.tolist() == features.tolist()
    assert found.coords.tolist() == coords.tolist()


def test_damaged_feature_files_are_named_with_their_cause(tmp_path):
    (tmp_path / "a.h5").write_bytes(b"nothing")
    with pytest.raises(BadSlide, match=r"a\.h5: is no h5 file"):
        read_features(tmp_path / "a.h5")
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["features"] = np.zeros((3, 2))
    with pytest.raises(BadSlide, match="has no dataset 'coords', but 'features'"):
        read_features(tmp_path / "b.h5")
    write_features(tmp_path / "c.h5", np.full((2, 2), np.nan, np.float32), np.zeros((2, 2)))
    with pytest.raises(BadSlide, match="no finite numbers"):
        read_features(tmp_path / "c.h5")


def test_the_command_takes_its_width_from_the_features_and_its_sizes_from_options(
    tmp_path, features
):
    sizes = ["--depth", "1", "--heads", "2", "--decoder-width", "4", "--decoder-depth", "1"]
    more = ["--decoder-heads", "1", "--passes", "1", "--device", "cpu"]
    out = ["--features", str(features), "--out", str(tmp_path / "run")]
    found = CliRunner().invoke(main, ["train", "wsisum", *out, *sizes, *more])
    assert found.exit_code == 0, found.output
    shape = read_summary_model(tmp_path / "run" / "wsisum.safetensors").network.shape
    assert shape == SummaryShape(8, 1, 2, 4, 1, 1)


def test_slides_are_embedded_patch_by_patch_and_broken_ones_are_told(tmp_path):
    slides, told = tmp_path / "slides", []
    slides.mkdir()
    draw_slide(slides / "glands.tif", Drawing("glands", side_px=512, mpp=4.0))
    (slides / "broken.tif").write_bytes(b"nothing")
    write_backbone(tmp_path / "w.safetensors", ResNet(18), name="drawn")
    embedder = NetworkEmbedder("resnet18", tmp_path / "w.safetensors", device="cpu")
    files = features_of_slides(
        slides, tmp_path / "out", embedder, progress=lambda what, done, total: told.append(what)
    )
    assert [file.name for file in files] == ["glands.h5"]
    assert any(line.startswith("broken left out") for line in told)
    found = read_features(files[0])
    with open_slide(slides / "glands.tif") as reader:
        x, y = (int(v) for v in found.coords[-1])
        patch = reader.region(Box(x, y, x + 128, y + 128), side_px=256)
    np.testing.assert_allclose(embedder.embeddings_of(patch[None])[0], found.features[-1])


def test_the_command_wants_one_source(tmp_path, features):
    for given in ([], ["--features", str(features), "--slides", str(features)]):
        found = CliRunner().invoke(main, ["train", "wsisum", "--out", str(tmp_path / "r"), *given])
        assert found.exit_code == 2
        assert "give --features or --slides" in found.output
