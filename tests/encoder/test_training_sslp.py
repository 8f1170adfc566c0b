"""SSLP's training: each loss against a plain formula, neighbours, kin, negatives, bank, places."""

import dataclasses
import itertools
import math

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner

from sish_cluster.cli.main import main
from sish_cluster.core.errors import BadLabels, BadRequest
from sish_cluster.encoder.embedders import NetworkEmbedder
from sish_cluster.encoder.training.memory_bank import MemoryBank
from sish_cluster.encoder.training.passes import Passes, cosine_rate, generator_at
from sish_cluster.encoder.training.patch_run import PatchRun, train_sslp
from sish_cluster.encoder.training.places import PlacedPatches, PlaceSettings, cut_placed
from sish_cluster.encoder.training.sslp import SslpSettings, SslpTask
from sish_cluster.encoder.training.sslp_losses import self_loss, share_loss, spatial_weight
from sish_cluster.encoder.training.sslp_positives import Neighbours, drawn_negatives, kin_of
from sish_cluster.encoder.training.views import ViewSettings
from sish_cluster.testing.histology import Drawing
from sish_cluster.testing.slides import draw_slide

CPU = torch.device("cpu")
SMALL = SslpSettings(
    width=4, dimensions=8, batch=6, passes=2, clusters=2, views=ViewSettings(side_px=32)
)


@pytest.fixture(autouse=True)
def one_thread():
    """Several threads add in an order of their own: results would repeat only nearly."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def drawn_patches(count, *, apart=1.0, slides=1):
    rng = np.random.default_rng(5)
    pixels = rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    places = apart * np.stack([np.arange(count) % 4, np.arange(count) // 4], axis=1).astype(float)
    names = tuple(f"s{i}" for i in range(slides))
    return PlacedPatches(pixels, np.arange(count) % slides, places, names, "drawn")


def plain_share(positives, counts, negatives):
    """-log(sum_P s / (sum_P s + sum_Neg s)) of each anchor, 0 without positives; the mean."""
    total = 0.0
    for row in range(len(positives)):
        on = sum(math.exp(v) for v, c in zip(positives[row], counts[row], strict=True) if c)
        off = sum(math.exp(v) for v in negatives[row])
        total += -math.log(on / (on + off)) if any(counts[row]) else 0.0
    return total / len(positives)


def test_a_term_is_the_plain_formula():
    draws = torch.Generator().manual_seed(0)
    positives = torch.randn(5, 4, generator=draws, dtype=torch.float64)
    negatives = torch.randn(5, 7, generator=draws, dtype=torch.float64)
    counts = torch.rand(5, 4, generator=draws) < 0.5
    plain = plain_share(positives.tolist(), counts.tolist(), negatives.tolist())
    assert 0 < int(counts.any(dim=1).sum()) <= 5
    assert float(share_loss(positives, counts, negatives)) == pytest.approx(plain)


def test_the_self_term_is_the_plain_formula():
    own, negatives = torch.tensor([1.0, -2.0]), torch.tensor([[0.5, 0.1], [0.0, 1.0]])
    plain = plain_share([[1.0], [-2.0]], [[True], [True]], negatives.tolist())
    assert float(self_loss(own, negatives)) == pytest.approx(plain)


def test_a_patch_without_neighbours_adds_nothing_to_the_intra_term_nor_to_its_gradient():
    positives = torch.tensor([[0.3, 0.9], [1.4, -2.0]], requires_grad=True)
    negatives = torch.tensor([[0.1, 0.2], [5.0, -1.0]], requires_grad=True)
    counts = torch.tensor([[True, True], [False, False]])
    both = share_loss(positives, counts, negatives)
    alone = share_loss(positives[:1], counts[:1], negatives[:1])
    assert float(both.detach()) == pytest.approx(float(alone.detach()) / 2)
    both.backward()
    assert torch.equal(positives.grad[1], torch.zeros(2))
    assert torch.equal(negatives.grad[1], torch.zeros(2))
    assert positives.grad[0].abs().sum() > 0


def test_a_batch_without_any_neighbour_has_an_intra_term_of_zero():
    loss = share_loss(torch.zeros(3, 0), torch.zeros(3, 0, dtype=torch.bool), torch.ones(3, 2))
    assert float(loss) == 0.0


def test_large_similarities_do_not_overflow():
    loss = share_loss(torch.tensor([[800.0]]), torch.tensor([[True]]), torch.tensor([[799.0]]))
    assert float(loss) == pytest.approx(math.log(1 + math.exp(-1)), abs=1e-3)


def test_the_schedule_is_the_published_one():
    for t in (0, 3, 9, 10, 40):
        assert spatial_weight(t) == pytest.approx(math.exp(-5 * (1 - min(t, 10) / 10) ** 2))
    with pytest.raises(BadRequest, match="counted from 0"):
        spatial_weight(-1)


def test_neighbours_are_those_of_the_slide_nearer_than_three_steps():
    rng = np.random.default_rng(2)
    slides = rng.integers(0, 2, 60)
    places = rng.integers(0, 12, (60, 2)).astype(float)
    found = Neighbours(slides, places, reach=3.0).of(np.arange(60))
    for i in range(60):
        distances = np.hypot(*(places - places[i]).T)
        plain = np.flatnonzero((slides == slides[i]) & (distances > 0) & (distances < 3))
        assert found[i][found[i] >= 0].tolist() == plain.tolist()


def test_a_full_grid_gives_twenty_four_neighbours_and_unknown_places_none():
    places = np.stack(np.meshgrid(np.arange(7.0), np.arange(7.0)), axis=-1).reshape(-1, 2)
    places = np.concatenate([places, [[np.nan, np.nan]]])
    neighbours = Neighbours(np.zeros(50, np.int64), places, reach=3.0)
    assert (neighbours.of(np.array([24])) >= 0).sum() == 24
    assert (neighbours.of(np.array([49])) >= 0).sum() == 0
    assert neighbours.share == pytest.approx(49 / 50)


def filled_bank(count=20, *, seed=1):
    bank = MemoryBank(count, 4, runs=3, rng_seed=seed)
    bank.labels[:] = torch.randint(2, (3, count), generator=torch.Generator().manual_seed(seed))
    return bank


def plain_kin(bank, row, near, nearest):
    """Kin of one anchor, written out."""
    vectors, labels = bank.embeddings.numpy(), bank.labels.numpy()
    starts = [row]
    if near:
        starts.append(max(near, key=lambda j: vectors[row] @ vectors[j]))
    kin = set()
    for start in starts:
        order = np.argsort(-(vectors @ vectors[start]))[:nearest]
        kin |= {int(j) for j in order if (labels[:, j] == labels[:, start]).all()}
    return kin - {row}


def test_kin_share_all_clusters_among_the_nearest_of_the_anchor_and_its_likest_neighbour():
    bank = filled_bank()
    near = torch.tensor([[3, 7, -1], [-1, -1, -1], [0, 5, 19]])
    found = kin_of(bank, torch.tensor([2, 9, 11]), near, nearest=8)
    for row, anchor, beside in zip(found, (2, 9, 11), near, strict=True):
        plain = plain_kin(bank, anchor, [int(j) for j in beside if j >= 0], 8)
        assert set(row.nonzero()[:, 0].tolist()) == plain
    assert found.any()


def test_negatives_are_drawn_from_the_most_similar_share_outside_the_excluded():
    similarities = torch.randn(3, 100, generator=torch.Generator().manual_seed(1))
    excluded = torch.rand(3, 100, generator=torch.Generator().manual_seed(2)) < 0.2
    found = drawn_negatives(
        similarities,
        excluded,
        share=0.2,
        count=400,
        generator=torch.Generator().manual_seed(3),
    )
    for row in range(3):
        allowed = [j for j in similarities[row].argsort(descending=True) if not excluded[row, j]]
        assert set(found[row].tolist()) <= {int(j) for j in allowed[:20]}
        assert not excluded[row][found[row]].any()


def test_the_ranks_of_negatives_follow_the_beta_distribution():
    similarities = torch.arange(5000.0).flip(0)[None]
    found = drawn_negatives(
        similarities,
        torch.zeros(1, 5000, dtype=torch.bool),
        share=0.2,
        count=20_000,
        generator=torch.Generator().manual_seed(0),
    )
    ranks = found.double() / 1000
    assert float(ranks.mean()) == pytest.approx(5 / 20, abs=0.005)
    assert float(ranks.var()) == pytest.approx(5 * 15 / (20**2 * 21), abs=0.0008)


def test_an_anchor_without_negatives_is_refused():
    with pytest.raises(BadRequest, match="no negatives"):
        drawn_negatives(
            torch.zeros(1, 3),
            torch.ones(1, 3, dtype=torch.bool),
            share=0.2,
            count=2,
            generator=torch.Generator(),
        )


def test_the_bank_moves_half_way_and_back_onto_the_sphere():
    bank = filled_bank()
    before = bank.embeddings.clone()
    new = torch.nn.functional.normalize(torch.ones(2, 4), dim=1)
    bank.remember(torch.tensor([4, 6]), new, keep=0.5)
    plain = 0.5 * before[[4, 6]] + 0.5 * new
    assert torch.allclose(bank.embeddings[[4, 6]], plain / plain.norm(dim=1, keepdim=True))
    others = [i for i in range(20) if i not in (4, 6)]
    assert torch.equal(bank.embeddings[others], before[others])


def test_a_refit_makes_three_different_clusterings():
    bank = MemoryBank(60, 8, runs=3, rng_seed=0)
    bank.refit(count=6, generator=torch.Generator().manual_seed(0))
    assert bank.labels.max() == 5
    assert not torch.equal(bank.labels[0], bank.labels[1])


def stepped(task, step):
    batch = task.batch_at(step, torch.Generator().manual_seed(step))
    losses = task.losses_of(batch, step)
    task.optimizer.zero_grad()
    losses["loss"].backward()
    task.optimizer.step()
    task.after_step(step)
    return {name: float(loss.detach()) for name, loss in losses.items()}


def test_the_loss_is_self_plus_the_weighted_spatial_terms():
    task = SslpTask(drawn_patches(24, slides=2), SMALL, device=CPU)
    for step in range(task.passes.steps + 1):
        losses = stepped(task, step)
    weight = math.exp(-5 * 0.9**2)
    assert losses["intra"] > 0
    assert losses["loss"] == pytest.approx(
        losses["self"] + weight * (losses["intra"] + losses["inter"]), rel=1e-5
    )


def test_slides_of_one_patch_have_no_intra_term():
    patches = drawn_patches(24, slides=24)
    losses = stepped(SslpTask(patches, SMALL, device=CPU), 0)
    assert losses["intra"] == 0.0
    assert losses["self"] > 0


def test_a_pass_shows_every_patch_once_and_the_next_in_another_order():
    passes = Passes(10, 5, rng_seed=3)
    first = np.concatenate([passes.rows_at(0), passes.rows_at(1)])
    second = np.concatenate([passes.rows_at(2), passes.rows_at(3)])
    assert sorted(first) == sorted(second) == list(range(10))
    assert list(first) != list(second)
    assert list(passes.rows_at(2)) == list(Passes(10, 5, rng_seed=3).rows_at(2))
    assert [passes.number_at(s) for s in range(4)] == [0, 0, 1, 1]


def test_the_rate_rises_straight_and_falls_on_a_cosine():
    rates = [cosine_rate(s, 12, base=2.0, warmup=2) for s in range(12)]
    assert rates[:3] == [1.0, 2.0, 2.0]
    assert rates[7] == pytest.approx(1.0)
    assert all(a > b for a, b in itertools.pairwise(rates[2:]))


def test_generators_of_different_purposes_differ_and_repeat():
    draw = [torch.rand(3, generator=generator_at(1, p, n)).tolist() for p, n in
            (("clusters", 0), ("clusters", 1), ("negative", 0), ("clusters", 0))]  # fmt: skip
    assert draw[0] == draw[3]
    assert len({tuple(d) for d in draw}) == 3


@pytest.fixture
def tile_folder(tmp_path):
    folder = tmp_path / "tiles"
    folder.mkdir()
    for i, pixels in enumerate(drawn_patches(12).pixels):
        cv2.imwrite(str(folder / f"a_x{32 * (i % 4)}_y{32 * (i // 4)}.png"), pixels)
    return folder


def test_tiles_lie_where_their_names_say_in_tile_widths(tmp_path, tile_folder):
    cut = cut_placed(tmp_path / "cut", tiles=tile_folder, settings=PlaceSettings(side_px=32))
    assert cut.names == ("tiles",)
    assert sorted(map(tuple, cut.places.tolist())) == [(x, y) for x in range(4) for y in range(3)]
    assert sorted(p.tobytes() for p in cut.pixels) == sorted(
        cv2.cvtColor(cv2.imread(str(f)), cv2.COLOR_BGR2RGB).tobytes() for f in tile_folder.iterdir()
    )


def test_a_table_names_slides_and_places_and_a_second_call_reads_what_was_cut(
    tmp_path, tile_folder
):
    files = sorted(tile_folder.iterdir())
    lines = ["file,slide,column,row"]
    lines += [f"{f.name},s{i % 2},{i},7" for i, f in enumerate(files)]
    (tile_folder / "labels.csv").write_text("\n".join(lines))
    settings = PlaceSettings(side_px=16)
    cut = cut_placed(tmp_path / "cut", tiles=tile_folder, settings=settings)
    assert cut.names == ("s0", "s1")
    assert cut.places.tolist() == [[i, 7] for i in range(12)]
    assert cut.slides.tolist() == [i % 2 for i in range(12)]
    stamp = (tmp_path / "cut" / "patches.bin").stat().st_mtime_ns
    again = cut_placed(tmp_path / "cut", tiles=tile_folder, settings=settings)
    assert again.identity == cut.identity
    assert (tmp_path / "cut" / "patches.bin").stat().st_mtime_ns == stamp


def test_a_place_that_is_no_number_is_refused_by_file(tmp_path, tile_folder):
    name = sorted(tile_folder.iterdir())[0].name
    (tile_folder / "labels.csv").write_text(f"file,slide,x,y\n{name},s,left,3\n")
    with pytest.raises(BadLabels, match=f"{name}.*two numbers"):
        cut_placed(tmp_path / "cut", tiles=tile_folder)


def test_slides_give_patches_whose_neighbours_are_one_side_apart(tmp_path):
    slides = tmp_path / "slides"
    slides.mkdir()
    draw_slide(slides / "glands.tif", Drawing("glands", side_px=1024, mpp=2.0))
    (slides / "broken.tif").write_bytes(b"nothing")
    told = []
    cut = cut_placed(
        tmp_path / "cut",
        slides=slides,
        settings=PlaceSettings(side_px=32),
        progress=lambda what, done, total: told.append(what),
    )
    assert cut.names == ("glands",)
    assert any("broken.tif left out" in line for line in told)
    nearest = [np.sort(np.hypot(*(cut.places - place).T))[1] for place in cut.places]
    assert np.median(nearest) == pytest.approx(1.0, abs=1e-6)


def test_nothing_to_train_on_is_refused(tmp_path):
    (tmp_path / "tiles").mkdir()
    with pytest.raises(BadRequest, match="no patch to train on came of 0 files"):
        cut_placed(tmp_path / "cut", tiles=tmp_path / "tiles")


class Stopped(Exception):
    pass


def test_a_run_that_was_stopped_in_mid_pass_goes_on_to_the_same_weights(tmp_path, tile_folder):
    def run(name):
        places = PlaceSettings(side_px=32)
        out = tmp_path / name
        return PatchRun(out, tiles=tile_folder, places=places, device="cpu", checkpoint_every=1)

    def stop_at_three(report):
        if report.step == 3:
            raise Stopped

    settings = dataclasses.replace(SMALL, batch=4)
    whole = train_sslp(run("whole"), settings)
    with pytest.raises(Stopped):
        train_sslp(run("cut"), settings, reporter=stop_at_three)
    found = train_sslp(run("cut"), settings)
    assert found["digest"] == whole["digest"]
    assert found["share_with_neighbours"] == 1.0


def test_the_command_trains_and_writes_weights_the_embedder_loads(tmp_path, tile_folder):
    options = ["--batch", "4", "--passes", "1", "--patch-px", "32", "--view-px", "32"]
    places = ["--tiles", str(tile_folder), "--out", str(tmp_path / "run"), "--device", "cpu"]
    found = CliRunner().invoke(main, ["train", "sslp", *places, *options])
    assert found.exit_code == 0, found.output
    assert {f.name for f in (tmp_path / "run").iterdir()} == {
        "patches", "checkpoint.pt", "log.jsonl", "loss.png", "sslp.safetensors", "metrics.json",
    }  # fmt: skip
    embedder = NetworkEmbedder("resnet18", tmp_path / "run" / "sslp.safetensors", device="cpu")
    assert embedder.embeddings_of(drawn_patches(1).pixels).shape == (1, 512)


def test_the_command_says_what_it_lacks(tmp_path):
    found = CliRunner().invoke(main, ["train", "sslp", "--out", str(tmp_path)])
    assert found.exit_code == 2
    assert "give --slides, --tiles, or both" in found.output
