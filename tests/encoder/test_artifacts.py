"""Dropping glass and debris, keeping tissue."""

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage.feature import local_binary_pattern

from sish_cluster.core.errors import BadWeights
from sish_cluster.encoder.artifacts import (
    MODEL_PATH,
    ArtifactSettings,
    binary_patterns,
    debris_patches,
    read_model,
    shipped_model,
    texture_histogram,
    white_patches,
)
from sish_cluster.testing.histology import PATTERNS, Drawing, drawn

SHARED = Path(os.environ.get("SISH_SHARED", Path(__file__).parents[2].parent / "shared"))


def patch_with_glass(share):
    patch = np.full((256, 256, 3), 180, np.uint8)
    patch[: round(256 * share)] = 250
    return patch[None]


@pytest.fixture(scope="module")
def tissue():
    """One patch of every drawn pattern, 256 px at 2 um."""
    return np.stack([drawn(Drawing(p, 256, 2.0, rng_seed=5, tissue_share=2)) for p in PATTERNS])


@pytest.mark.parametrize(
    ("share", "is_white"), [(0.0, False), (0.89, False), (0.92, True), (1.0, True)]
)
def test_a_patch_is_white_above_nine_tenths_of_glass(share, is_white):
    assert white_patches(patch_with_glass(share)).tolist() == [is_white]


def test_the_bounds_of_glass_are_settings():
    patches = patch_with_glass(0.5)
    assert white_patches(patches, ArtifactSettings(white_share=0.4)).tolist() == [True]
    assert white_patches(patches, ArtifactSettings(white_share=0.4, white_above=251)).tolist() == [
        False
    ]


def test_binary_patterns_equal_scikit_images_on_every_inner_pixel():
    grey = np.random.default_rng(1).integers(0, 256, (80, 90)).astype(np.uint8)
    truth = local_binary_pattern(grey, 8, 1, "ror")[1:-1, 1:-1]
    assert (binary_patterns(grey) == truth).mean() > 0.9999


def test_binary_patterns_do_not_change_when_the_picture_is_turned():
    grey = np.random.default_rng(2).integers(0, 256, (40, 40)).astype(np.uint8)
    turned = binary_patterns(np.ascontiguousarray(np.rot90(grey)))
    assert (turned == np.rot90(binary_patterns(grey))).all()


def test_a_flat_patch_is_all_ties_in_the_last_bin():
    histogram = texture_histogram(np.full((256, 256, 3), 200, np.uint8))
    assert histogram.shape == (128,)
    assert histogram[-1] == histogram.sum() == 1.0


def test_drawn_tissue_is_kept_and_looks_more_like_debris_out_of_focus(tissue):
    blurred = np.stack([cv2.GaussianBlur(patch, (0, 0), 8) for patch in tissue])
    sharp, soft = (
        shipped_model().probabilities(np.stack([texture_histogram(patch) for patch in patches]))
        for patches in (tissue, blurred)
    )
    assert not debris_patches(tissue).any()
    assert (soft > sharp).all()
    assert debris_patches(blurred).any()


def test_no_patches_are_no_debris():
    assert debris_patches(np.zeros((0, 256, 256, 3), np.uint8)).shape == (0,)


def test_a_patchs_answer_does_not_depend_on_the_others(tissue):
    histograms = np.stack([texture_histogram(patch) for patch in tissue])
    together = shipped_model().probabilities(histograms)
    alone = [shipped_model().probabilities(row[None])[0] for row in histograms]
    assert together.tolist() == alone


def test_the_shipped_record_says_what_it_was_trained_on_and_what_it_costs():
    record = json.loads(MODEL_PATH.read_text("utf-8"))
    assert record["digest"] == shipped_model().digest
    assert record["held_out"]["false_drop_rate"] < 0.005
    assert record["held_out"]["counts"]["tissue"] > 1000
    assert {"data", "data_digest", "made_by"} <= set(record)


@pytest.mark.parametrize(
    "damage",
    [
        lambda record: record.pop("mean"),
        lambda record: record.update(bias=record["bias"] + 1),
        lambda record: record.update(weights=record["weights"][:-1]),
        lambda record: record.update(scale="none"),
    ],
)
def test_a_changed_model_is_refused(tmp_path, damage):
    record = json.loads(MODEL_PATH.read_text("utf-8"))
    damage(record)
    (tmp_path / "model.json").write_text(json.dumps(record))
    with pytest.raises(BadWeights, match=r"model\.json.*install it again"):
        read_model(tmp_path / "model.json")


@pytest.mark.shared
@pytest.mark.skipif(not (SHARED / "data" / "tiles").is_dir(), reason="needs the shared tiles")
def test_next_to_no_real_tile_is_dropped():
    files = sorted((SHARED / "data" / "tiles" / "atlas").rglob("*.jpg"))[::20]
    patches = np.stack([cv2.cvtColor(cv2.imread(str(file)), cv2.COLOR_BGR2RGB) for file in files])
    assert len(patches) > 50
    assert debris_patches(patches).mean() < 0.02
