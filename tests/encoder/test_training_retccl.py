"""RetCCL's training: each loss against a plain formula, queue, momentum, views, export."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from sish_cluster.cli.main import main
from sish_cluster.core.errors import BadRequest, CheckpointMismatch
from sish_cluster.encoder.embedders import NetworkEmbedder
from sish_cluster.encoder.networks.resnet import ResNet
from sish_cluster.encoder.networks.retccl import ContrastiveNetwork
from sish_cluster.encoder.training.clustering import Clusters, clusters_of
from sish_cluster.encoder.training.patch_run import PatchRun, train_retccl, write_backbone
from sish_cluster.encoder.training.places import PlacedPatches, PlaceSettings
from sish_cluster.encoder.training.queue import KeyQueue
from sish_cluster.encoder.training.retccl import RetCclSettings, RetCclTask
from sish_cluster.encoder.training.retccl_losses import (
    cluster_weights,
    cross_level_loss,
    weighted_infonce,
)
from sish_cluster.encoder.training.views import ViewSettings, plain_views, views_of

CPU = torch.device("cpu")
SMALL = RetCclSettings(
    depth=18,
    width=4,
    dimensions=8,
    queue=12,
    clusters=3,
    batch=4,
    passes=2,
    views=ViewSettings(side_px=32),
)


@pytest.fixture(autouse=True)
def one_thread():
    """Several threads add in an order of their own: results would repeat only nearly."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def unit(*shape, seed):
    rows = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(rows, dim=-1)


def drawn_patches(count, side=32):
    rng = np.random.default_rng(5)
    pixels = rng.integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    places = np.stack([np.arange(count) % 4, np.arange(count) // 4], axis=1).astype(np.float64)
    return PlacedPatches(pixels, np.zeros(count, np.int64), places, ("s",), "drawn")


def plain_infonce(anchors, keys, negatives, weights, temperature):
    """-log of the positive's share, anchor by anchor."""
    total = 0.0
    for i in range(len(anchors)):
        positive = math.exp(float(anchors[i] @ keys[i]) / temperature)
        others = sum(
            float(weights[i, j]) * math.exp(float(anchors[i] @ negatives[j]) / temperature)
            for j in range(len(negatives))
        )
        total += -math.log(positive / (positive + others))
    return total / len(anchors)


def test_the_weighted_infonce_is_the_plain_formula():
    anchors, keys, negatives = unit(5, 8, seed=0), unit(5, 8, seed=1), unit(7, 8, seed=2)
    weights = torch.rand(5, 7, generator=torch.Generator().manual_seed(3)) + 0.1
    found = weighted_infonce(anchors, keys, negatives, weights, temperature=0.2)
    assert float(found) == pytest.approx(plain_infonce(anchors, keys, negatives, weights, 0.2))


def test_the_weighted_infonce_equals_the_plain_one_when_no_two_share_a_cluster():
    anchors, keys, negatives = unit(4, 8, seed=0), unit(4, 8, seed=1), unit(6, 8, seed=2)
    weights = cluster_weights(torch.arange(4), torch.arange(4, 10), same_cluster_weight=0.3)
    plain = weighted_infonce(anchors, keys, negatives, torch.ones(4, 6), temperature=0.2)
    found = weighted_infonce(anchors, keys, negatives, weights, temperature=0.2)
    assert torch.equal(found, plain)


def test_a_negative_of_the_anchors_cluster_weighs_less_and_lowers_the_loss():
    weights = cluster_weights(
        torch.tensor([0, 1]), torch.tensor([1, 0, 2]), same_cluster_weight=0.3
    )
    assert torch.allclose(weights, torch.tensor([[1, 0.3, 1], [0.3, 1, 1]]))
    anchors, keys, negatives = unit(2, 8, seed=0), unit(2, 8, seed=1), unit(3, 8, seed=2)
    plain = weighted_infonce(anchors, keys, negatives, torch.ones(2, 3), temperature=0.2)
    assert weighted_infonce(anchors, keys, negatives, weights, temperature=0.2) < plain


def plain_cld(anchors, clusters, temperature):
    """Cross-entropy of one view's embeddings with the other view's centres, anchor by anchor."""
    total = 0.0
    for i in range(len(anchors)):
        exps = [math.exp(float(anchors[i] @ c) / temperature) for c in clusters.centres]
        total += -math.log(exps[int(clusters.labels[i])] / sum(exps))
    return total / len(anchors)


def test_the_cluster_term_is_the_plain_formula_both_ways_halved():
    a, b = unit(9, 8, seed=4), unit(9, 8, seed=5)
    draws = torch.Generator().manual_seed(0)
    of_a = clusters_of(a, count=3, iterations=5, generator=draws)
    of_b = clusters_of(b, count=3, iterations=5, generator=draws)
    plain = (plain_cld(a, of_b, 0.4) + plain_cld(b, of_a, 0.4)) / 2
    assert float(cross_level_loss(a, b, (of_a, of_b), temperature=0.4)) == pytest.approx(plain)


def test_the_cluster_term_moves_the_embeddings_and_not_the_centres():
    a, b = unit(6, 8, seed=4).requires_grad_(), unit(6, 8, seed=5).requires_grad_()
    labels = torch.tensor([0, 0, 0, 1, 1, 1])
    centres = unit(2, 8, seed=6).requires_grad_(False)
    clusters = Clusters(labels, centres)
    cross_level_loss(a, b, (clusters, clusters), temperature=0.4).backward()
    assert a.grad.abs().sum() > 0
    assert b.grad.abs().sum() > 0


def test_kmeans_finds_groups_that_are_far_apart_and_its_centres_are_their_means():
    centres = torch.eye(3, 8)
    noise = 0.05 * torch.randn(30, 8, generator=torch.Generator().manual_seed(1))
    truth = torch.arange(30) % 3
    rows = torch.nn.functional.normalize(centres[truth] + noise, dim=1)
    order = torch.randperm(30, generator=torch.Generator().manual_seed(8))
    rows, truth = rows[order], truth[order]
    found = clusters_of(rows, count=3, iterations=5, generator=torch.Generator().manual_seed(3))
    pairs = {(int(a), int(b)) for a, b in zip(truth, found.labels, strict=True)}
    assert len(pairs) == 3
    for label in range(3):
        mean = rows[found.labels == label].sum(0)
        assert torch.allclose(found.centres[label], mean / mean.norm(), atol=1e-6)


def test_kmeans_makes_no_more_clusters_than_rows_and_refuses_none():
    draws = torch.Generator().manual_seed(0)
    found = clusters_of(unit(2, 4, seed=0), count=5, iterations=2, generator=draws)
    assert found.centres.shape == (2, 4)
    assert sorted(found.labels.tolist()) == [0, 1]
    with pytest.raises(BadRequest, match="got 0, 5 and 2"):
        clusters_of(torch.zeros(0, 4), count=5, iterations=2, generator=draws)


def test_the_queue_drops_its_oldest_keys_first():
    queue = KeyQueue(5, 2)
    assert queue.held()[0].shape == (0, 2)
    for start in (0, 2, 4):
        keys = torch.arange(start, start + 2).float()[:, None].expand(2, 2)
        queue.add(keys, -keys, torch.arange(start, start + 2))
    instances, groups, rows = queue.held()
    assert sorted(instances[:, 0].tolist()) == [1, 2, 3, 4, 5]
    assert torch.equal(groups, -instances)
    assert torch.equal(rows.float(), instances[:, 0])
    with pytest.raises(BadRequest, match="queue of 5 keys cannot take 6"):
        queue.add(torch.zeros(6, 2), torch.zeros(6, 2), torch.zeros(6, dtype=torch.int64))


def test_both_heads_lie_on_the_unit_sphere_and_differ():
    network = ContrastiveNetwork(ResNet(18, width=4), dimensions=8).eval()
    heads = network(torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
    for embeddings in (heads.instances, heads.groups):
        assert torch.allclose(embeddings.norm(dim=1), torch.ones(3))
    assert not torch.allclose(heads.instances, heads.groups)


def stepped(task, step):
    batch = task.batch_at(step, torch.Generator().manual_seed(step))
    losses = task.losses_of(batch, step)
    task.optimizer.zero_grad()
    losses["loss"].backward()
    task.optimizer.step()
    return batch, {name: float(loss.detach()) for name, loss in losses.items()}


def test_the_loss_is_half_of_each_contrast_and_a_quarter_of_the_cluster_term():
    task = RetCclTask(drawn_patches(12), SMALL, device=CPU)
    for step in range(2):
        _, losses = stepped(task, step)
        task.after_step(step)
    assert losses["loss"] == pytest.approx(losses["contrast"] + 0.25 * losses["groups"], rel=1e-5)
    assert losses["contrast"] > 0
    assert losses["groups"] > 0


def test_the_momentum_encoder_keeps_its_share_and_the_batch_enters_the_queue():
    task = RetCclTask(drawn_patches(12), dataclasses.replace(SMALL, momentum=0.9), device=CPU)
    before = [p.clone() for p in task.key.parameters()]
    batch, _ = stepped(task, 0)
    fast = [p.detach().clone() for p in task.query.parameters()]
    task.after_step(0)
    for old, new, q in zip(before, task.key.parameters(), fast, strict=True):
        assert torch.allclose(new, 0.9 * old + 0.1 * q, atol=1e-6)
    assert torch.equal(task.queue.held()[2], batch.rows)
    assert not any(p.requires_grad for p in task.key.parameters())


def test_a_patchs_own_older_keys_are_no_negatives_of_it():
    # Four patches, four a batch: from the second step on, each patch's last key is in the queue.
    task = RetCclTask(drawn_patches(4), dataclasses.replace(SMALL, clusters=1), device=CPU)
    with torch.no_grad():
        batch = task.batch_at(0, torch.Generator().manual_seed(0))
        task.losses_of(batch, 0)
        task.after_step(0)
        keys = task._fresh[1]
        heads = task.query(batch.q1)
        clusters = task._clusters(heads, torch.Generator().manual_seed(0))
        found = task._contrast(heads, keys, clusters, batch.rows)
    weights = 0.5 * (1 - torch.eye(4))
    plain = plain_infonce(heads.instances, keys.instances, keys.instances, weights, 0.2)
    assert float(found) == pytest.approx(plain, rel=1e-4)


def test_keys_are_in_the_patches_order_although_they_are_computed_shuffled():
    task = RetCclTask(drawn_patches(12), SMALL, device=CPU)
    batch = task.batch_at(0, torch.Generator().manual_seed(0))
    task.key.eval()
    found = task._keys(batch.k, 0)
    assert torch.allclose(found.instances, task.key(batch.k).instances, atol=1e-6)


def test_views_repeat_with_the_generator_and_differ_without():
    patches = torch.from_numpy(drawn_patches(3, side=40).pixels)
    settings = ViewSettings(side_px=32)
    one, two, three = (
        views_of(patches, settings, torch.Generator().manual_seed(s)) for s in (1, 1, 2)
    )
    assert one.shape == (3, 3, 32, 32)
    assert torch.equal(one, two)
    assert not torch.allclose(one, three)


def test_a_view_that_may_change_nothing_is_the_patch_in_one_of_eight_positions():
    patches = torch.from_numpy(drawn_patches(16, side=32).pixels)
    still = ViewSettings(side_px=32, min_area=1.0, max_aspect=1.0, jittered=0, greyed=0, blurred=0)
    views = views_of(patches, still, torch.Generator().manual_seed(0))
    seen = set()
    for view, plain in zip(views, plain_views(patches, 32), strict=True):
        places = [torch.rot90(p, k, (1, 2)) for p in (plain, plain.flip(2)) for k in range(4)]
        match = [i for i, place in enumerate(places) if torch.allclose(view, place, atol=1e-4)]
        assert len(match) == 1
        seen.add(match[0])
    assert len(seen) > 4


def test_grey_views_have_one_value_in_all_channels():
    patches = torch.from_numpy(drawn_patches(2).pixels)
    grey = ViewSettings(side_px=32, jittered=0, greyed=1, blurred=0, min_area=1.0, max_aspect=1.0)
    views = views_of(patches, grey, torch.Generator().manual_seed(0))
    deviation = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
    mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    pixels = views * deviation + mean
    assert torch.allclose(pixels[:, 0], pixels[:, 1], atol=1e-5)
    assert torch.allclose(pixels[:, 1], pixels[:, 2], atol=1e-5)


def test_a_backbone_is_exported_under_names_the_retccl_embedder_loads(tmp_path):
    backbone = ResNet(50).eval()
    write_backbone(tmp_path / "retccl.safetensors", backbone, name="retccl")
    embedder = NetworkEmbedder("retccl", tmp_path / "retccl.safetensors", device="cpu")
    patch = drawn_patches(1, side=64).pixels
    with torch.inference_mode():
        direct = backbone(plain_views(torch.from_numpy(patch), 64))[0].numpy()
    assert embedder.dimensions == 2048
    # The embedder computes in fewer bits than the training, whose weights they are.
    error = np.linalg.norm(embedder.embeddings_of(patch)[0] - direct) / np.linalg.norm(direct)
    assert error < 0.02


@pytest.fixture(scope="module")
def tiles(tmp_path_factory):
    import cv2

    folder = tmp_path_factory.mktemp("tiles")
    for i, pixels in enumerate(drawn_patches(8).pixels):
        cv2.imwrite(str(folder / f"slide_x{32 * (i % 4)}_y{32 * (i // 4)}.png"), pixels)
    return folder


class Stopped(Exception):
    pass


def test_a_run_that_was_stopped_goes_on_to_the_same_weights(tmp_path, tiles):
    def run(name):
        places = PlaceSettings(side_px=32)
        out = tmp_path / name
        return PatchRun(out, tiles=tiles, places=places, device="cpu", checkpoint_every=1)

    def stop_at_three(report):
        if report.step == 3:
            raise Stopped

    whole = train_retccl(run("whole"), SMALL)
    with pytest.raises(Stopped):
        train_retccl(run("cut"), SMALL, reporter=stop_at_three)
    assert train_retccl(run("cut"), SMALL)["digest"] == whole["digest"]
    assert (tmp_path / "cut" / "loss.png").stat().st_size > 1000
    with pytest.raises(CheckpointMismatch):
        train_retccl(run("cut"), dataclasses.replace(SMALL, temperature=0.1))


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(BadRequest, match="same_cluster_weight"):
        RetCclSettings(same_cluster_weight=0.0)
    with pytest.raises(BadRequest, match="key chunks"):
        RetCclSettings(batch=3, key_chunks=2)
    with pytest.raises(BadRequest, match=r"a batch takes 1\.\.3 of the 3"):
        RetCclTask(drawn_patches(3), SMALL, device=CPU)


def test_the_command_trains_with_the_options_given(tmp_path, tiles):
    options = ["--depth", "18", "--width", "4", "--batch", "4", "--queue", "8", "--clusters", "2"]
    sizes = ["--passes", "1", "--patch-px", "32", "--view-px", "32", "--temperature", "0.1"]
    places = ["--tiles", str(tiles), "--out", str(tmp_path / "run"), "--device", "cpu"]
    found = CliRunner().invoke(main, ["train", "retccl", *places, *options, *sizes])
    assert found.exit_code == 0, found.output
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["n_patches"] == 8
    assert metrics["step"] == 2
    wanted = {"depth": 18, "width": 4, "queue": 8, "clusters": 2, "temperature": 0.1, "batch": 4}
    assert {name: metrics["settings"][name] for name in wanted} == wanted
    assert metrics["settings"]["views"]["side_px"] == 32
