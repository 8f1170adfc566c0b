"""Every mosaic selector keeps the same promises, whatever the number of patches."""

import dataclasses

import numpy as np
import pytest
import torch

from sish_cluster.core.errors import BadRequest
from sish_cluster.encoder.cutting import MosaicSettings, StreamingSelector
from sish_cluster.encoder.mosaic import colour_histograms
from sish_cluster.encoder.networks.wsisum import SummaryNetwork, SummaryShape
from sish_cluster.encoder.selectors import SELECTORS, grey_histograms, selector_of
from sish_cluster.encoder.summary_model import write_summary_model

CORNERS = np.array([[x * 100, y * 100] for y in range(10) for x in range(10)])


class MeanColour:
    """An embedder of twelve numbers: enough to tell patches of different stain apart."""

    dimensions = 12

    def embeddings_of(self, patches):
        flat = patches.reshape(len(patches), 16 * 16, 3).astype(np.float32)
        return np.tile(np.concatenate([flat.mean(1), flat.std(1)], 1) / 255, 2)


def drawn(n, rng_seed=0):
    """Return n patches of three stains, each with noise of its own strength."""
    rng = np.random.default_rng(rng_seed)
    stains = np.array([[200, 90, 160], [90, 60, 150], [230, 170, 200]])[np.arange(n) % 3]
    noise = rng.normal(0, 1, (n, 16, 16, 3)) * rng.uniform(2, 30, (n, 1, 1, 1))
    return np.clip(stains[:, None, None] + noise, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def summary_model(tmp_path_factory):
    torch.manual_seed(0)
    shape = SummaryShape(
        width=12, depth=1, heads=2, decoder_width=8, decoder_depth=1, decoder_heads=2
    )
    path = tmp_path_factory.mktemp("model") / "summary.safetensors"
    write_summary_model(path, SummaryNetwork(shape).eval(), None)
    return path


@pytest.fixture(params=SELECTORS)
def settings(request, summary_model):
    return MosaicSettings(selector=request.param, summary_model=summary_model)


def chosen(settings, n, rng_seed=3):
    selector = selector_of(settings, MeanColour(), device="cpu")
    return selector.chosen(drawn(n), CORNERS[:n], rng_seed=rng_seed)


@pytest.mark.parametrize("n", [1, 2, 5, 100])
def test_it_chooses_ascending_distinct_rows_from_one_patch_upwards(settings, n):
    rows = chosen(settings, n)
    assert rows.dtype == np.int64
    assert 1 <= len(rows) <= n
    assert np.array_equal(rows, np.unique(rows))
    assert 0 <= rows[0] <= rows[-1] < n


def test_it_depends_on_patches_and_seed_alone(settings):
    assert np.array_equal(chosen(settings, 60), chosen(settings, 60))


def test_it_reads_patches_in_blocks_and_chooses_the_same(settings):
    selector = selector_of(settings, MeanColour(), device="cpu")
    assert isinstance(selector, StreamingSelector)
    blocks = [selector.summaries_of(drawn(60)[i : i + 16]) for i in range(0, 60, 16)]
    found = selector.chosen_from(np.concatenate(blocks), CORNERS[:60], rng_seed=3)
    assert np.array_equal(found, chosen(settings, 60))


@pytest.mark.parametrize("wanted", [1, 10, 40])
def test_it_chooses_as_many_as_are_asked_for(settings, wanted):
    asked = dataclasses.replace(settings, patches_per_slide=wanted)
    assert len(chosen(asked, 60)) == wanted
    assert len(chosen(asked, 5)) == min(5, wanted)


def test_it_refuses_no_patches_and_corners_that_do_not_fit(settings):
    selector = selector_of(settings, MeanColour(), device="cpu")
    for n, corners in ((0, 0), (5, 4)):
        with pytest.raises(BadRequest):
            selector.chosen(drawn(max(n, 1))[:n], CORNERS[:corners], rng_seed=0)


def test_retccl_takes_a_fifth_of_every_cluster_of_embeddings():
    rows = chosen(MosaicSettings(selector="retccl"), 90)
    assert 15 <= len(rows) <= 25


def test_entropy_prefers_varied_patches_and_location_spreads():
    pixels = drawn(60)
    asked = MosaicSettings(selector="entropy", patches_per_slide=10)
    rows = chosen(asked, 60)
    shares = np.clip(grey_histograms(pixels), 1e-12, None)
    entropies = -(shares * np.log2(shares)).sum(axis=1)
    assert set(rows) == set(np.argsort(-entropies)[:10])
    places = chosen(dataclasses.replace(asked, selector="location", patches_per_slide=4), 60)
    gaps = np.abs(CORNERS[places][:, None] - CORNERS[places][None]).max(axis=2)
    assert gaps[~np.eye(4, dtype=bool)].min() >= 200


def test_cluster_takes_a_patch_of_every_stain():
    rows = chosen(MosaicSettings(selector="cluster", patches_per_slide=12), 60)
    assert set(rows % 3) == {0, 1, 2}
    assert colour_histograms(drawn(2)).sum(axis=1) == pytest.approx(3.0)


def test_an_unknown_selector_and_a_summary_without_a_fitting_model_are_refused(summary_model):
    with pytest.raises(BadRequest, match="sish, retccl, random"):
        selector_of(MosaicSettings(selector="best"), MeanColour())
    with pytest.raises(BadRequest, match="--summary-model"):
        selector_of(MosaicSettings(selector="wsisum"), MeanColour())
    wide = MeanColour()
    wide.dimensions = 20
    with pytest.raises(BadRequest, match=r"embeddings of 12 numbers.*makes 20"):
        selector_of(
            MosaicSettings(selector="wsisum", summary_model=summary_model), wide, device="cpu"
        )
