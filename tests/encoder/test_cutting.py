"""Cutting mosaics from slides, drawn and real."""

import csv
import os
from pathlib import Path

import numpy as np
import pytest

from sish_cluster.core.errors import BadSlide
from sish_cluster.core.geometry import Box
from sish_cluster.encoder.artifacts import ArtifactSettings
from sish_cluster.encoder.cutting import (
    BLOCK_PATCHES,
    MosaicSettings,
    StreamingSelector,
    cut_mosaic,
)
from sish_cluster.encoder.mosaic import TwoStageSelector
from sish_cluster.encoder.slide import open_slide
from sish_cluster.testing.histology import Drawing
from sish_cluster.testing.slides import draw_slide, empty_slide, one_patch_slide, truncated_slide

SHARED = Path(os.environ.get("SISH_SHARED", Path(__file__).parents[2].parent / "shared"))
SLIDES = SHARED / "data" / "slides.csv"


@pytest.fixture(scope="module")
def slide_path(tmp_path_factory):
    drawing = Drawing("glands", side_px=1536, mpp=4.0, rng_seed=11)
    return draw_slide(tmp_path_factory.mktemp("slides") / "glands.tif", drawing)


DEFAULT = MosaicSettings()


def cut(path, settings=DEFAULT, **options):
    with open_slide(path) as reader:
        return cut_mosaic(reader, settings, **options)


class LastRows:
    """A selector that sees pixels and takes the last two patches."""

    def chosen(self, thumbnails, corners, *, rng_seed):
        assert thumbnails.shape == (len(corners), 256, 256, 3)
        return np.arange(len(corners))[-2:]


def test_a_mosaic_holds_real_patches_on_tissue_and_says_what_became_of_the_rest(slide_path):
    mosaic = cut(slide_path)
    assert mosaic.side_px == 128
    assert mosaic.corners.dtype == np.int32
    assert mosaic.counts.chosen == len(mosaic) == len(np.unique(mosaic.corners, axis=0))
    assert mosaic.counts.clean >= mosaic.counts.chosen > 9
    x, y = mosaic.corners[0]
    assert mosaic.box(0) == Box(x, y, x + 128, y + 128)
    assert (np.lexsort(mosaic.corners.T) == np.arange(len(mosaic))).all()


def test_the_same_slide_gives_the_same_bytes_with_any_number_of_readers(slide_path):
    mosaics = [cut(slide_path, MosaicSettings(readers=readers)) for readers in (1, 4)]
    assert mosaics[0].corners.tobytes() == mosaics[1].corners.tobytes()
    assert mosaics[0].counts == mosaics[1].counts


def test_progress_rises_block_by_block_to_the_number_of_candidates(slide_path):
    steps = []
    mosaic = cut(slide_path, progress=lambda done, whole: steps.append((done, whole)))
    grid = mosaic.counts.grid
    assert steps == [
        (min(end, grid), grid) for end in range(BLOCK_PATCHES, grid + BLOCK_PATCHES, BLOCK_PATCHES)
    ]


def test_any_selector_may_choose_from_the_pixels(slide_path):
    mosaic = cut(slide_path, selector=LastRows())
    assert mosaic.counts.chosen == 2
    assert not isinstance(LastRows(), StreamingSelector)
    assert isinstance(TwoStageSelector(), StreamingSelector)


def test_a_field_of_view_half_as_wide_makes_patches_half_as_wide(slide_path):
    assert cut(slide_path, MosaicSettings(field_um=256.0)).side_px == 64


@pytest.mark.parametrize("mpp", [0.5, 1.0])
def test_a_slide_of_one_patch_is_its_own_mosaic(tmp_path, mpp):
    mosaic = cut(one_patch_slide(tmp_path / "one.tif", mpp=mpp))
    assert (mosaic.counts.grid, len(mosaic), mosaic.tissue.preset) == (1, 1, "biopsy")


def test_a_slide_whose_patches_are_all_dropped_is_a_failure_with_counts(slide_path):
    settings = MosaicSettings(artifacts=ArtifactSettings(white_share=-1.0))
    with pytest.raises(BadSlide, match=r"glands\.tif: all \d+ patches on tissue were dropped as"):
        cut(slide_path, settings)


def test_the_debris_test_never_empties_a_slide(slide_path, monkeypatch):
    def all_debris(patches):
        return np.ones(len(patches), bool)

    kept = cut(slide_path).counts
    monkeypatch.setattr("sish_cluster.encoder.cutting.debris_patches", all_debris)
    doubted = cut(slide_path).counts
    assert (doubted.doubted, doubted.artifacts) == (kept.grid - kept.white, 0)
    assert doubted.chosen >= 1


def test_debris_is_left_out_of_the_mosaic_and_counted(slide_path, monkeypatch):
    def every_other(patches):
        return np.arange(len(patches)) % 2 == 0

    monkeypatch.setattr("sish_cluster.encoder.cutting.debris_patches", every_other)
    counts = cut(slide_path).counts
    assert counts.artifacts == pytest.approx((counts.grid - counts.white) / 2, abs=1)
    assert counts.clean == counts.grid - counts.white - counts.artifacts
    assert counts.doubted == 0


def test_debris_can_be_kept(tmp_path):
    path = draw_slide(tmp_path / "s.tif", Drawing("sheets", 512, 4.0))
    kept = cut(path, MosaicSettings(artifacts=ArtifactSettings(drops_debris=False)))
    assert kept.counts.artifacts == 0


def test_glass_is_a_failure_and_so_is_a_slide_that_breaks_while_it_is_read(tmp_path):
    with pytest.raises(BadSlide, match="no tissue was found"):
        cut(empty_slide(tmp_path / "glass.tif", side_px=512, mpp=4.0))
    path = draw_slide(tmp_path / "damaged.tif", Drawing("sheets", 2048, 0.5))
    data = bytearray(path.read_bytes())
    data[200_000:400_000] = bytes(200_000)
    path.write_bytes(data)
    with pytest.raises(BadSlide, match=r"damaged\.tif.*cannot be decoded"):
        cut(path, MosaicSettings(field_um=100.0))


def test_a_slide_cut_short_never_gives_half_a_mosaic(tmp_path):
    with pytest.raises(BadSlide, match="copy it again"):
        cut(truncated_slide(tmp_path / "cut.tif", share=0.7))


@pytest.mark.shared
@pytest.mark.skipif(not SLIDES.is_file(), reason="needs the shared slides")
def test_every_real_slide_gives_a_mosaic():
    with SLIDES.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        with open_slide(SLIDES.parent / row["file"], mpp=float(row["mpp"] or 0.5)) as reader:
            mosaic = cut_mosaic(reader)
        counts = mosaic.counts
        assert min(5, counts.grid) <= len(mosaic) <= max(27, counts.grid // 20 + 9)
        assert counts.artifacts <= 0.1 * counts.grid
