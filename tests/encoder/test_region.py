"""Regions: what is read from GeoJSON, which patches they have, and what is refused."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sish_cluster.core.errors import BadRequest
from sish_cluster.core.geometry import Size
from sish_cluster.core.slide import Slide
from sish_cluster.encoder import cutting
from sish_cluster.encoder.cutting import cut_region
from sish_cluster.encoder.region import parsed_region, read_region, rectangle_region
from sish_cluster.encoder.slide import open_slide

SLIDE = Size(1000, 800)
SQUARE = [[100, 100], [500, 100], [500, 500], [100, 500], [100, 100]]
HOLE = [[200, 200], [400, 200], [400, 400], [200, 400], [200, 200]]
FAR = [[600, 600], [700, 600], [700, 700], [600, 600]]


def polygon(*rings):
    return {"type": "Polygon", "coordinates": list(rings)}


def feature(geometry):
    return {"type": "Feature", "geometry": geometry, "properties": {"objectType": "annotation"}}


def region(found):
    return parsed_region(json.dumps(found), source="a.geojson")


@pytest.mark.parametrize(
    "found",
    [
        polygon(SQUARE),
        feature(polygon(SQUARE)),
        {"type": "FeatureCollection", "features": [feature(polygon(SQUARE))]},
        [feature(polygon(SQUARE))],
        {"type": "MultiPolygon", "coordinates": [[SQUARE]]},
        polygon(SQUARE[:-1]),
    ],
    ids=["polygon", "feature", "collection", "list", "multi", "unclosed"],
)
def test_every_wrapping_of_a_polygon_is_the_same_region(found):
    corners = region(found).corners(slide_size=SLIDE, side_px=100)
    assert corners.dtype == np.int32
    assert corners.tolist() == [[x, y] for y in range(100, 500, 100) for x in range(100, 500, 100)]


def test_holes_are_left_out_and_polygons_add_up():
    holed = region(polygon(SQUARE, HOLE)).corners(slide_size=SLIDE, side_px=100)
    assert len(holed) == 12
    both = region({"type": "MultiPolygon", "coordinates": [[SQUARE, HOLE], [FAR]]})
    assert both.bounds == (100, 100, 700, 700)
    assert both.contains(np.array([[150.0, 150.0], [300, 300], [680, 620], [620, 680]])).tolist() == [
        True, False, True, False,
    ]  # fmt: skip


def test_a_region_smaller_than_a_patch_is_one_patch_centred_on_it():
    corners = rectangle_region("300,300,20,10").corners(slide_size=SLIDE, side_px=100)
    assert corners.tolist() == [[260, 255]]


def test_a_thin_strip_has_the_patches_along_it():
    corners = rectangle_region("100,400,500,20").corners(slide_size=SLIDE, side_px=100)
    assert corners.tolist() == [[x, 360] for x in range(100, 600, 100)]


def test_only_the_part_on_the_slide_counts_and_none_of_it_is_refused():
    corners = rectangle_region("900,700,400,400").corners(slide_size=SLIDE, side_px=100)
    assert corners.tolist() == [[900, 700]]
    with pytest.raises(BadRequest, match=r"x 1200..1300.*1000 x 800"):
        rectangle_region("1200,0,100,100").corners(slide_size=SLIDE, side_px=100)


@given(
    st.lists(
        st.tuples(st.integers(0, 40), st.integers(0, 40)), min_size=3, max_size=3, unique=True
    ),
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), min_size=1, max_size=20),
)
def test_a_point_is_in_a_triangle_when_it_is_on_the_same_side_of_its_edges(corners, points):
    (ax, ay), (bx, by), (cx, cy) = corners
    if (bx - ax) * (cy - ay) == (by - ay) * (cx - ax):
        return
    found = region(polygon([list(corner) for corner in corners])).contains(np.array(points, float))
    for (x, y), inside in zip(points, found, strict=True):
        sides = [
            (qx - px) * (y - py) - (qy - py) * (x - px)
            for (px, py), (qx, qy) in zip(corners, [*corners[1:], corners[0]], strict=True)
        ]
        if all(side != 0 for side in sides):
            assert inside == (all(side > 0 for side in sides) or all(side < 0 for side in sides))


POINT = {"type": "Point", "coordinates": [1, 2]}

BOW_TIE = [[0, 0], [100, 100], [100, 0], [0, 100], [0, 0]]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "is no JSON"),
        ("3", "a int without a type"),
        ('{"type": "Point", "coordinates": [1, 2]}', "'Point'"),
        ('{"type": "FeatureCollection"}', "without a list of features"),
        ('{"type": "FeatureCollection", "features": []}', "holds no polygon"),
        (json.dumps(feature(None)), "a NoneType without a type"),
        (json.dumps(polygon()), "without coordinates"),
        (json.dumps(polygon([[0, 0], [1, 1], [0, 0]])), "2 different corners"),
        (json.dumps(polygon([[0, 0], [5, 5], [9, 9], [0, 0]])), "has no area"),
        (json.dumps(polygon([[0, "a"], [1, 1], [2, 0]])), "pairs of numbers"),
        (json.dumps(polygon([[0, 0], [1e12, 0], [0, 5]])), "no finite number"),
        (json.dumps([feature(polygon(SQUARE)), feature(polygon(BOW_TIE))]), "feature 2: crosses itself"),
        (json.dumps(polygon(SQUARE, BOW_TIE)), "hole 1: crosses itself"),
        ("[" * 100_000, "is no JSON"),
        (json.dumps([feature(POINT)]), "holds no polygon, only feature 1 (Point)"),
    ],
)  # fmt: skip
def test_what_is_no_region_is_refused_saying_what_was_found(text, words):
    with pytest.raises(BadRequest, match=r"region a\.geojson: ") as refused:
        parsed_region(text, source="a.geojson")
    assert words in refused.value.message
    assert refused.value.field == "region"


def test_markers_beside_polygons_are_left_out_and_named():
    line = {"type": "LineString", "coordinates": [[0, 0], [5, 5]]}
    drawing = [feature(POINT), feature(polygon(SQUARE)), feature(line)]
    region = parsed_region(json.dumps(drawing), source="a.geojson")
    assert len(region.polygons) == 1
    assert region.left_out == ("feature 1 (Point)", "feature 3 (LineString)")
    assert parsed_region(json.dumps(polygon(SQUARE)), source="a").left_out == ()


@pytest.mark.parametrize("text", ["1,2,3", "a,b,c,d", "0,0,0,5", "0,0,5,-1", "nan,0,1,1", ""])
def test_what_is_no_rectangle_is_refused(text):
    with pytest.raises(BadRequest, match="x,y,width,height"):
        rectangle_region(text)


def test_a_file_that_cannot_be_read_or_is_too_long_is_refused(tmp_path, monkeypatch):
    with pytest.raises(BadRequest, match="cannot be read"):
        read_region(tmp_path / "none.geojson")
    path = tmp_path / "a.geojson"
    path.write_text(json.dumps(polygon(SQUARE)))
    assert read_region(path).bounds == (100, 100, 500, 500)
    monkeypatch.setattr("sish_cluster.encoder.region.MAX_TEXT_BYTES", 10)
    with pytest.raises(BadRequest, match="at most 10"):
        read_region(path)


def test_a_region_is_encoded_patch_by_patch_without_choosing(encoder, glands):
    asked = rectangle_region("256,256,512,256")
    encoded = encoder.encode_slide(glands.path, Slide("glands"), region=asked)
    assert encoded.patches.corners.tolist() == [[256, 256], [512, 256]]
    assert encoded.slide.patch_side_px == 256


def test_a_region_of_many_patches_is_chosen_from(glands, monkeypatch):
    monkeypatch.setattr(cutting, "MAX_REGION_PATCHES", 3)
    with open_slide(glands.path) as reader:
        mosaic = cut_region(reader, rectangle_region("0,0,1024,1024"))
    assert mosaic.counts.grid == 16
    assert len(mosaic) == 3
