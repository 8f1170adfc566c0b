"""The kit that draws slides: equal by seed, alike within a pattern, unlike across."""

import csv

import numpy as np
import openslide
import pytest

from sish_cluster.encoder.catalogue import matched, read_labels
from sish_cluster.encoder.mosaic import colour_histograms
from sish_cluster.encoder.slide import open_slide
from sish_cluster.testing.histology import PATTERNS, Drawing, drawn
from sish_cluster.testing.slides import draw_slide, draw_slides


def test_the_same_seed_draws_the_same_bytes_and_another_seed_others(tmp_path):
    files = [
        draw_slide(tmp_path / f"{number}.tif", Drawing("fat", 512, 2.0, rng_seed=seed)).read_bytes()
        for number, seed in enumerate((1, 1, 2))
    ]
    assert files[0] == files[1] != files[2]


def test_openslide_opens_a_drawn_slide_as_a_tiled_pyramid_with_its_mpp(tmp_path):
    path = draw_slide(tmp_path / "s.tif", Drawing("glands", 1100, 0.25))
    with openslide.OpenSlide(path) as slide:
        assert slide.level_dimensions == ((1100, 1100), (275, 275))
        assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(0.25)
        assert not slide.associated_images


def test_a_drawn_slide_stores_the_picture_that_was_drawn(tmp_path):
    drawing = Drawing("sheets", 512, 2.0)
    with open_slide(draw_slide(tmp_path / "s.tif", drawing)) as reader:
        stored = reader.at_mpp(2.0)
    assert np.abs(stored.astype(int) - drawn(drawing)).mean() < 6


def test_a_folder_of_slides_comes_with_labels_that_match(tmp_path):
    labels = draw_slides(tmp_path / "slides", patients=2, side_px=256, mpp=8.0)
    catalogue = matched(tmp_path / "slides", read_labels(labels))
    slides = [entry.slide for entry in catalogue.entries]
    assert catalogue.problems == []
    assert len(slides) == len({slide.patient for slide in slides}) == 8
    assert {slide.diagnosis for slide in slides} == set(PATTERNS)
    assert {slide.institution for slide in slides} == {"north", "south"}
    with labels.open(encoding="utf-8") as file:
        assert next(csv.reader(file))[:4] == ["slide", "patient", "site", "diagnosis"]


def test_slides_of_one_pattern_are_nearer_in_colour_than_slides_of_others():
    patterns = [pattern for pattern in sorted(PATTERNS) for _ in range(2)]
    pictures = [drawn(Drawing(p, 512, 2.0, n, tissue_share=2)) for n, p in enumerate(patterns)]
    sums = colour_histograms(np.stack(pictures)).reshape(8, 3, 32, 8).sum(axis=3).reshape(8, -1)
    apart = np.abs(sums[:, None] - sums[None]).sum(axis=2) + 9 * np.eye(8)
    assert [patterns[i] for i in apart.argmin(axis=1)] == patterns
