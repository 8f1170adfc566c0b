"""Laying patches over tissue: on the grid, on the tissue, off the holes."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sish_cluster.core.geometry import Size
from sish_cluster.encoder.patching import patch_corners
from sish_cluster.encoder.tissue import Tissue

SLIDE = Size(20_000, 20_000)


def rectangle(left, top, right, bottom):
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)], np.int32)


def tissue(*contours, holes=()):
    inner = tuple(tuple(holes) if i == 0 else () for i in range(len(contours)))
    return Tissue(tuple(contours), inner, 0.0, "resection")


def corners_of(*contours, holes=(), side_px=1000, slide=SLIDE):
    return patch_corners(tissue(*contours, holes=holes), slide_size=slide, side_px=side_px).tolist()


def test_a_square_of_tissue_is_covered_from_its_own_corner():
    assert corners_of(rectangle(500, 700, 2499, 2699)) == [
        [500, 700],
        [1500, 700],
        [500, 1700],
        [1500, 1700],
    ]


def test_a_patch_needs_one_of_four_points_a_quarter_side_from_its_centre():
    touched = rectangle(0, 0, 1000 + 251, 999)
    missed = rectangle(0, 0, 1000 + 249, 999)
    assert corners_of(touched) == [[0, 0], [1000, 0]]
    assert corners_of(missed) == [[0, 0]]


def test_a_patch_whose_centre_is_in_a_hole_is_left_out():
    hole = rectangle(1300, 1300, 1700, 1700)
    kept = corners_of(rectangle(0, 0, 2999, 2999), holes=[hole])
    assert [1000, 1000] not in kept
    assert len(kept) == 8


def test_two_contours_on_one_grid_share_their_patches():
    one, two = rectangle(0, 0, 1999, 999), rectangle(1000, 0, 2999, 999)
    assert corners_of(one, two) == [[0, 0], [1000, 0], [2000, 0]]


def test_a_fragment_between_the_points_gets_one_patch_centred_on_it():
    assert corners_of(rectangle(5000, 5000, 5100, 5200)) == [[4550, 4600]]


def test_a_fragment_at_the_edge_keeps_its_patch_on_the_slide():
    assert corners_of(rectangle(0, 0, 99, 99)) == [[0, 0]]


def test_patches_may_reach_beyond_the_slide_but_always_touch_it():
    kept = corners_of(rectangle(0, 0, 2500, 2500), slide=Size(2501, 2501))
    assert [2000, 2000] in kept
    assert all(x < 2501 and y < 2501 for x, y in kept)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(*[st.integers(0, 15_000)] * 2, *[st.integers(50, 4000)] * 2),
        min_size=1,
        max_size=4,
    ),
    st.integers(200, 2100),
)
def test_corners_are_distinct_ordered_and_each_contour_has_one(boxes, side_px):
    shapes = [rectangle(x, y, x + w, y + h) for x, y, w, h in boxes]
    kept = corners_of(*shapes, side_px=side_px)
    assert kept == sorted(map(list, {tuple(c) for c in kept}), key=lambda c: (c[1], c[0]))
    for x, y, w, h in boxes:
        assert any(x - side_px < cx < x + w and y - side_px < cy < y + h for cx, cy in kept)
