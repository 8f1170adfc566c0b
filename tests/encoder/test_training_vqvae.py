"""The key network's training: the published loss, a codebook kept alive, weights that load."""

from __future__ import annotations

import dataclasses
import json

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner

from sish_cluster.cli import main
from sish_cluster.core.errors import BadLabels, BadRequest, CheckpointMismatch
from sish_cluster.encoder.checkpoint import read_weights
from sish_cluster.encoder.keying import KeyNetwork
from sish_cluster.encoder.networks.codeword_order import line_ranks, ranks_of
from sish_cluster.encoder.networks.vqvae import COMPACT, VqVae, VqVaeSize
from sish_cluster.encoder.training.crops import Crops, CropSettings, cut_crops
from sish_cluster.encoder.training.vqvae import (
    Squares,
    VqVaeTask,
    VqVaeTrainingSettings,
    batches_of,
)
from sish_cluster.encoder.training.vqvae_codebook import centres_of
from sish_cluster.encoder.training.vqvae_metrics import filled, reconstruction_metrics
from sish_cluster.encoder.training.vqvae_run import VqVaeRun, train_vqvae
from sish_cluster.testing.histology import Drawing, drawn


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Small tensors on a busy machine: more threads only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


TINY = VqVaeSize("tiny", channels=8, halvings=2)

QUICK = VqVaeTrainingSettings(
    n_steps=6, batch_crops=4, squares_per_crop=2, crop_px=32, warm_up_steps=2
)


@pytest.fixture(scope="module")
def crops():
    """Twenty-four crops of drawn tissue, four groups; the last group's are finer."""
    slides = [drawn(Drawing(p, side_px=1024, mpp=1.0)) for p in ("glands", "fibres", "sheets")]
    squares = [
        s[i : i + 256, j : j + 256] for s in slides for i in (256, 512) for j in (0, 256, 512, 768)
    ]
    groups = tuple(f"g{n // 6}" for n in range(24))
    mpps = np.where(np.arange(24) < 18, 1.0, 0.5)
    return Crops(np.stack(squares), groups, groups, mpps, "drawn")


@pytest.fixture(scope="module")
def tiles(crops, tmp_path_factory):
    """A tile folder with groups in a table."""
    folder = tmp_path_factory.mktemp("tiles")
    lines = ["file,group"]
    for n, square in enumerate(crops.pixels[::3]):
        cv2.imwrite(str(folder / f"{n}.png"), cv2.cvtColor(square, cv2.COLOR_RGB2BGR))
        lines.append(f"{n}.png,case {n // 2}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n", "utf-8")
    return folder


def images(n=2, side=16):
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(1)) * 2 - 1


def unplaced(pixels):
    return Squares(pixels, torch.full((len(pixels),), float("nan")))


def tiny_network():
    torch.manual_seed(3)
    network = VqVae(TINY)
    network.codebook.embedding.weight.data.normal_()
    return network


def test_the_loss_is_the_published_formula():
    network, x = tiny_network().eval(), images()
    with torch.no_grad():
        z = network.encoder(x).permute(0, 2, 3, 1).reshape(-1, 8).double().numpy()
    words = network.codebook.embedding.weight.detach().double().numpy()
    nearest = np.array([np.square(words - place).sum(1).argmin() for place in z])
    with torch.no_grad():
        decoded = network.decoded(torch.from_numpy(nearest).reshape(2, 4, 4)).double().numpy()
    codebook_term = np.square(z - words[nearest]).mean()
    expected = np.square(decoded - x.double().numpy()).mean() + 2 * codebook_term
    assert float(network(x)[1].detach()) == pytest.approx(expected, rel=1e-5)


def test_the_two_codebook_terms_move_one_side_each():
    network = tiny_network()
    terms = network.terms_of(images())
    terms.commitment.backward(retain_graph=True)
    assert network.codebook.embedding.weight.grad is None
    assert network.encoder[0].weight.grad.abs().sum() > 0
    network.zero_grad(set_to_none=True)
    terms.quantisation.backward()
    assert network.encoder[0].weight.grad is None
    assert network.codebook.embedding.weight.grad.abs().sum() > 0


def test_the_reconstruction_moves_the_encoder_straight_through_the_codewords():
    network = tiny_network().eval()
    x = images()
    terms = network.terms_of(x)
    terms.z.retain_grad()
    terms.mse.backward()
    e = network.codebook.looked_up(terms.codewords).detach().requires_grad_()
    torch.nn.functional.mse_loss(network.decoder(e), x).backward()
    assert torch.allclose(terms.z.grad, e.grad, atol=1e-8)
    assert network.codebook.embedding.weight.grad is None


def test_batches_are_a_function_of_step_and_seed_and_of_the_rows_allowed(crops):
    only = np.array([3])
    batch_at = batches_of(crops, only, QUICK, 1.0)
    first, again = (batch_at(7, torch.Generator().manual_seed(9)) for _ in range(2))
    assert torch.equal(first.pixels, again.pixels)
    assert first.pixels.shape == (8, 3, 32, 32)
    assert first.pixels.abs().max() <= 1.0
    shown = first.pixels.permute(0, 2, 3, 1).add(1).mul(127.5).round().byte()
    found = {bytes(p) for p in shown.reshape(-1, 3).numpy()}
    assert found <= {bytes(p) for p in crops.pixels[3].reshape(-1, 3)}


def test_squares_of_a_crop_follow_each_other_and_carry_its_position(crops):
    flat = np.repeat(np.arange(24, dtype=np.uint8) * 10, 256 * 256 * 3).reshape(24, 256, 256, 3)
    marked = dataclasses.replace(crops, pixels=flat)
    positions = np.linspace(-1, 1, 24, dtype=np.float32)
    batch_at = batches_of(marked, np.arange(24), QUICK, 1.0, positions)
    batch = batch_at(0, torch.Generator().manual_seed(0))
    rows = batch.pixels.mean((1, 2, 3)).add(1).mul(127.5 / 10).round().int().view(4, 2)
    assert torch.equal(rows[:, 0], rows[:, 1])
    assert len(set(rows[:, 0].tolist())) > 1
    assert torch.allclose(batch.positions, torch.from_numpy(positions)[rows[:, 0]])


def test_fine_crops_are_seen_at_three_scales_and_others_at_one():
    stripes = np.zeros((2, 256, 256, 3), np.uint8)
    stripes[:, :, ::16] = 240
    fine = Crops(stripes, ("a", "b"), ("a", "b"), np.array([0.5, 1.0]), "striped")
    settings = dataclasses.replace(QUICK, batch_crops=32, crop_px=128)
    for row, scales in ((0, {4, 8, 16}), (1, {8})):
        batch = batches_of(fine, np.array([row]), settings, 1.0)(
            0, torch.Generator().manual_seed(0)
        )
        # A square of 128 px shows 16, 8 or 4 stripes of the crop's 16, across or along.
        seen = {int(max(_stripes(square), _stripes(square.mT))) for square in batch.pixels}
        assert seen == scales


def _stripes(square):
    line = square[0].mean(0)
    bright = line > (line.max() + line.min()) / 2
    return int((bright[1:] & ~bright[:-1]).sum() + bright[0].int()) if line.std() > 0.05 else 0


def test_the_learning_rate_rises_then_falls_to_its_last_share():
    settings = VqVaeTrainingSettings(n_steps=1000, warm_up_steps=100)
    rates = [settings.learning_rate_at(step) for step in range(1000)]
    assert rates[0] == pytest.approx(1e-5)
    assert max(rates) == rates[99] == pytest.approx(1e-3)
    assert rates[99:] == sorted(rates[99:], reverse=True)
    assert rates[-1] == pytest.approx(3e-5, rel=0.02)


def test_the_codebook_begins_at_the_centres_of_what_the_encoder_says():
    places = torch.cat([torch.randn(200, 4) * 0.01 + 5 * n for n in range(3)])
    torch.manual_seed(0)
    centres = centres_of(places, n_centres=40)
    distances = torch.cdist(places, centres).min(1).values
    assert distances.max() < 0.1


def test_codewords_nobody_takes_are_moved_onto_places_and_the_others_stay():
    settings = dataclasses.replace(
        QUICK, n_steps=100, revive_every=10, refit_steps=(), line_weight=0.0
    )
    task = VqVaeTask(tiny_network(), settings)
    words = task.module.codebook.embedding.weight
    words.data[64:] = 1000.0
    for step in range(10):
        losses = task.losses_of(unplaced(images(4, 32)), step)
        task.optimizer.zero_grad()
        losses["loss"].backward()
        task.optimizer.step()
        if step == 9:
            task._shares[:64], task._shares[64:] = 1 / 64, 0.0
            before = words.detach().clone()
        task.after_step(step)
    assert torch.equal(words[:64], before[:64])
    nearest = torch.cdist(words[64:].detach(), task._places).min(1).values
    assert nearest.max() < 0.01
    assert task.optimizer.state[words]["exp_avg"][64:].abs().max() == 0


def test_a_short_training_learns(crops, tmp_path):
    settings = dataclasses.replace(QUICK, n_steps=50, learning_rate=5e-3, revive_every=10)
    run = VqVaeRun(tmp_path, training=settings)
    log = _trained_on(crops, run, tmp_path)
    losses = [value for _, value in log.curve("mse")]
    assert losses[-1] < 0.6 * losses[0]


def _trained_on(crops, run, folder):
    from sish_cluster.encoder.training.loop import LoopSettings, train

    torch.manual_seed(0)
    task = VqVaeTask(VqVae(TINY), run.training)
    positions = np.linspace(-1, 1, 24, dtype=np.float32)
    batches = batches_of(crops, np.arange(24), run.training, 1.0, positions)
    log = train(task, batches, LoopSettings(folder, run.training.n_steps, log_every=10))
    found = reconstruction_metrics(task.module, crops, [0, 20])
    assert found["held_out_psnr_db"] > 6
    assert 1 < found["held_out_perplexity"] <= 128
    assert task.module.training
    return log


class Stopped(Exception):
    pass


def stop_at_4(report):
    if report.step == 4:
        raise Stopped


@pytest.fixture(scope="module")
def finished(tiles, tmp_path_factory):
    """A run of six steps on the tile folder, stopped once and gone on with."""
    run = VqVaeRun(
        tmp_path_factory.mktemp("run"), tiles=tiles, hold_out=("case 1",), training=QUICK
    )
    with pytest.raises(Stopped):
        train_vqvae(run, reporter=stop_at_4)
    return run, train_vqvae(run)


def test_a_finished_run_leaves_weights_that_key_and_the_card_names_their_digest(finished):
    run, metrics = finished
    keying = KeyNetwork(COMPACT.name, run.out_dir / "vqvae.safetensors", device="cpu")
    assert sorted(keying.ranks) == list(range(128))
    assert str(metrics["digest"])[:12] in keying.description
    card = (run.out_dir / "model_card.md").read_text("utf-8")
    assert metrics["digest"] in card
    assert "case 1" in card
    assert json.loads((run.out_dir / "metrics.json").read_text("utf-8")) == metrics
    assert metrics["crops_held_out"] == 2


def test_a_run_stopped_and_gone_on_with_has_the_weights_of_one_that_was_not(
    finished, tiles, tmp_path
):
    metrics = train_vqvae(VqVaeRun(tmp_path, tiles=tiles, hold_out=("case 1",), training=QUICK))
    assert metrics["digest"] == finished[1]["digest"]


def test_a_run_with_other_options_in_the_same_folder_is_refused(finished):
    run, _ = finished
    faster = dataclasses.replace(QUICK, learning_rate=0.01)
    with pytest.raises(CheckpointMismatch, match="another --out"):
        train_vqvae(dataclasses.replace(run, training=faster))


def test_a_run_can_begin_with_the_weights_of_another(finished, tiles, tmp_path):
    run, metrics = finished
    further = train_vqvae(
        VqVaeRun(
            tmp_path,
            tiles=tiles,
            initial=run.out_dir / "vqvae.safetensors",
            training=dataclasses.replace(QUICK, n_steps=1, learning_rate=1e-9, warm_up_steps=1),
        )
    )
    assert further["digest"] != metrics["digest"]
    before = read_weights(run.out_dir / "vqvae.safetensors").state
    after = read_weights(tmp_path / "vqvae.safetensors").state
    assert torch.allclose(before["encoder.0.weight"], after["encoder.0.weight"], atol=1e-6)


def test_holding_out_everything_or_nothing_is_refused(tiles, tmp_path):
    for patterns in (("*",), ("nobody",)):
        with pytest.raises(BadRequest, match="held out"):
            train_vqvae(VqVaeRun(tmp_path, tiles=tiles, hold_out=patterns, training=QUICK))


def test_crops_are_cut_from_slides_once_and_told_apart_by_patient(drawn_folder, tmp_path):
    labels = tmp_path / "labels.csv"
    rows = [f"{p},patient {n // 2},gut,{p}" for n, p in enumerate(("fibres", "glands", "sheets"))]
    labels.write_text("slide,patient,site,diagnosis\n" + "\n".join(rows) + "\n", "utf-8")
    settings = CropSettings(most_per_slide=5)
    told = []
    asked = {"slides": drawn_folder, "tiles": None, "labels": labels, "settings": settings}
    crops = cut_crops(tmp_path / "c", **asked, progress=lambda *seen: told.append(seen))
    assert crops.pixels.shape == (15, 256, 256, 3)
    assert set(crops.groups) == {"patient 0", "patient 1"}
    assert crops.rows_held_out(["*1"]).sum() == 5
    assert len(told) == 3
    again = cut_crops(tmp_path / "c", **asked, progress=lambda *seen: told.append(seen))
    assert len(told) == 3
    assert np.array_equal(again.pixels, crops.pixels)


def test_a_large_tile_gives_squares_at_the_networks_scale(tmp_path, crops):
    tile = np.concatenate([np.concatenate(crops.pixels[:4], 1)] * 4, 0)
    cv2.imwrite(str(tmp_path / "a.png"), tile)
    (tmp_path / "b.png").write_bytes(b"no picture")
    told = []
    found = cut_crops(
        tmp_path / "c", slides=None, tiles=tmp_path, progress=lambda what, *_: told.append(what)
    )
    assert found.pixels.shape == (4, 256, 256, 3)
    assert found.mpps.tolist() == [1.0] * 4
    assert any("b.png" in line and "left out" in line for line in told)


def test_a_tile_table_without_groups_is_refused(tmp_path):
    (tmp_path / "labels.csv").write_text("picture\na.png\n", "utf-8")
    with pytest.raises(BadLabels, match="file and group"):
        cut_crops(tmp_path / "c", slides=None, tiles=tmp_path)


def test_a_small_picture_continued_by_reflection_keeps_its_colours():
    picture = np.arange(4 * 4 * 3, dtype=np.uint8).reshape(4, 4, 3)
    patch = filled(picture, 8)
    assert patch.shape == (8, 8, 3)
    assert np.array_equal(patch[4:, :4], picture[::-1])
    assert patch.mean() == picture.mean()


def test_the_command_trains_and_asks_for_something_to_train_on(tiles, tmp_path):
    runner = CliRunner()
    nothing = runner.invoke(main, ["train", "vqvae", "--out", str(tmp_path / "none")])
    assert nothing.exit_code == 2
    assert "--slides" in nothing.output
    arguments = ["--tiles", str(tiles), "--out", str(tmp_path / "run"), "--steps", "1"]
    done = runner.invoke(main, ["train", "vqvae", *arguments, "--batch", "2", "--device", "cpu"])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "run" / "vqvae.safetensors").stat().st_size < 20 << 20
    assert json.loads(done.stdout)["steps"] == 1


def test_the_group_lists_every_training_without_importing_any():
    shown = CliRunner().invoke(main, ["train", "--help"])
    assert shown.exit_code == 0
    assert all(name in shown.output for name in ("vqvae", "retccl", "sslp", "wsisum"))
    assert CliRunner().invoke(main, ["train", "nothing"]).exit_code == 2


def test_the_order_asked_for_decides_the_stored_ranks(tiles, tmp_path):
    folders = {}
    for order in ("similarity", "brightness"):
        folder = tmp_path / order
        arguments = ["--tiles", str(tiles), "--out", str(folder), "--steps", "1", "--batch", "2"]
        done = CliRunner().invoke(
            main, ["train", "vqvae", *arguments, "--device", "cpu", "--order", order]
        )
        assert done.exit_code == 0, done.output
        folders[order] = read_weights(folder / "vqvae.safetensors").state
    by_line, by_brightness = folders["similarity"], folders["brightness"]
    words = by_line["codebook.embedding.weight"]
    assert np.array_equal(by_line["codeword_ranks"].numpy(), line_ranks(words))
    network = VqVae(COMPACT).eval().requires_grad_(False)
    state = {k: v for k, v in by_brightness.items() if k != "codeword_ranks"}
    network.load_state_dict(state, strict=False)
    assert np.array_equal(by_brightness["codeword_ranks"].numpy(), ranks_of(network))
