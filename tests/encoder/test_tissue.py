"""Finding tissue: contours where colour is, holes where it is not, and none on glass."""

import cv2
import numpy as np
import pytest

from sish_cluster.core.errors import BadSlide
from sish_cluster.core.geometry import Size
from sish_cluster.encoder.slide import open_slide
from sish_cluster.encoder.tissue import BIOPSY, RESECTION, TissueSettings, tissue_in, tissue_of
from sish_cluster.testing.histology import Drawing
from sish_cluster.testing.slides import draw_slide, empty_slide

SIZE = Size(16_000, 16_000)
"""A slide of 8 mm at 0.5 um; its overview below has 8 um per px."""


def overview(*discs, hole=None):
    """Glass with stained discs (x, y, radius in overview px)."""
    picture = np.full((1000, 1000, 3), 245, np.uint8)
    for x, y, radius in discs:
        cv2.circle(picture, (x, y), radius, (200, 140, 190), -1)
    if hole:
        cv2.circle(picture, hole[:2], hole[2], (245, 245, 245), -1)
    return picture


def found(picture, settings=RESECTION):
    return tissue_in(picture, slide_size=SIZE, mpp=0.5, settings=settings)


def test_a_contour_is_in_level_0_pixels_and_has_the_area_of_its_tissue():
    tissue = found(overview((500, 400, 300)))
    assert len(tissue.contours) == 1
    left, top, width, height = cv2.boundingRect(tissue.contours[0])
    assert (left + width / 2, top + height / 2) == pytest.approx((8000, 6400), abs=64)
    assert tissue.area_um2 == pytest.approx(np.pi * (300 * 8) ** 2, rel=0.02)


def test_holes_are_kept_when_large_and_taken_off_the_area():
    tissue = found(overview((500, 500, 300), hole=(500, 500, 120)))
    assert [len(holes) for holes in tissue.holes] == [1]
    assert tissue.area_um2 == pytest.approx(np.pi * (300**2 - 120**2) * 64, rel=0.02)
    assert found(overview((500, 500, 300), hole=(500, 500, 40))).holes == ((),)


def test_at_most_eight_holes_are_kept_largest_first():
    picture = overview((500, 500, 480))
    for number in range(10):
        angle = number * 2 * np.pi / 10
        centre = (int(500 + 330 * np.cos(angle)), int(500 + 330 * np.sin(angle)))
        cv2.circle(picture, centre, 75 + number, (245, 245, 245), -1)
    (holes,) = found(picture).holes
    areas = [cv2.contourArea(hole) for hole in holes]
    assert len(areas) == 8
    assert areas == sorted(areas, reverse=True)
    assert min(areas) > np.pi * (76 * 16) ** 2


def test_the_area_bound_does_not_depend_on_the_magnification():
    picture = overview((500, 500, 190))
    at_20x = tissue_in(picture, slide_size=SIZE, mpp=0.5, settings=RESECTION)
    at_40x = tissue_in(picture, slide_size=Size(32_000, 32_000), mpp=0.25, settings=RESECTION)
    assert len(at_20x.contours) == len(at_40x.contours) == 1
    assert at_20x.area_um2 == pytest.approx(at_40x.area_um2)


def test_pieces_too_small_for_a_resection_are_tissue_of_a_biopsy():
    picture = overview((200, 200, 60), (800, 800, 40))
    assert found(picture).contours == ()
    biopsy = found(picture, BIOPSY)
    assert [int(c[:, 0].mean() / 1000) for c in biopsy.contours] == [3, 12]


def test_specks_are_no_tissue():
    assert found(overview((500, 500, 9)), BIOPSY).contours == ()


def test_otsu_finds_pale_tissue_on_tinted_glass():
    picture = np.full((1000, 1000, 3), (245, 240, 232), np.uint8)
    cv2.circle(picture, (500, 500), 300, (190, 120, 180), -1)
    plain = found(picture)
    otsu = found(picture, TissueSettings(uses_otsu=True))
    assert plain.area_um2 > 0.98 * (8000**2)
    assert otsu.area_um2 == pytest.approx(np.pi * (300 * 8) ** 2, rel=0.02)


def test_a_mask_is_the_tissue_without_its_holes():
    tissue = found(overview((500, 500, 300), hole=(500, 500, 120)))
    mask = tissue.mask_at(Size(100, 100), slide_size=SIZE)
    assert (mask[50, 50], mask[50, 30], mask[5, 5]) == (0, 255, 0)


def test_a_slide_with_a_small_piece_falls_back_to_the_biopsy_preset(tmp_path):
    path = draw_slide(tmp_path / "s.tif", Drawing("sheets", 1024, 2.0, tissue_share=0.5))
    with open_slide(path) as reader:
        tissue = tissue_of(reader)
    assert tissue.preset == "biopsy"
    assert tissue.area_um2 == pytest.approx(np.pi * 512**2, rel=0.2)


def test_glass_is_a_reported_failure_naming_what_was_found(tmp_path):
    path = empty_slide(tmp_path / "glass.tif", side_px=512, mpp=2.0)
    with (
        open_slide(path) as reader,
        pytest.raises(BadSlide, match=r"glass\.tif: no tissue was found"),
    ):
        tissue_of(reader)
