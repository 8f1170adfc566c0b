"""Reading slides: scales, levels, edges, and files that are not what they say."""

import hashlib
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from sish_cluster.core.errors import BadSlide
from sish_cluster.core.geometry import Box, Size, patch_side_px_of
from sish_cluster.encoder import image_file
from sish_cluster.encoder.slide import open_slide
from sish_cluster.testing.histology import Drawing, drawn
from sish_cluster.testing.pyramid import write_pyramid
from sish_cluster.testing.slides import (
    draw_slide,
    picture_named_slide,
    slide_without_mpp,
    truncated_slide,
)

DRAWING = Drawing("glands", side_px=2048, mpp=0.5, rng_seed=3)


@pytest.fixture(scope="module")
def slide_path(tmp_path_factory):
    return draw_slide(tmp_path_factory.mktemp("slides") / "glands.tif", DRAWING)


def stepped(side_px=1024):
    """A picture whose colours tell where a pixel comes from."""
    ramp = (np.arange(side_px) // 8 % 256).astype(np.uint8)
    red, green = (
        np.broadcast_to(ramp, (side_px, side_px)),
        np.broadcast_to(ramp[:, None], (side_px,) * 2),
    )
    return np.stack([red, green, np.full((side_px, side_px), 90, np.uint8)], axis=-1)


def test_a_slide_knows_its_scale_its_size_and_its_levels(slide_path):
    with open_slide(slide_path) as reader:
        assert reader.mpp == pytest.approx(0.5)
        assert reader.mpp_source == "file"
        assert reader.size == Size(2048, 2048)
        assert reader.level_count == 3
        assert reader.name == "glands"


def test_a_region_shrunk_equals_the_area_average_of_level_0(slide_path):
    with open_slide(slide_path) as reader:
        box = Box(256, 512, 1280, 1536)
        small = reader.region(box, side_px=256).astype(float)
    truth = cv2.resize(drawn(DRAWING)[512:1536, 256:1280], (256, 256), interpolation=cv2.INTER_AREA)
    assert np.abs(small - truth).mean() < 5
    assert np.abs(np.roll(small, 1, axis=1) - truth).mean() > 10


def test_a_region_lies_where_its_box_says_at_every_level(tmp_path):
    path = write_pyramid(tmp_path / "ramp.tif", stepped(), mpp=0.5)
    with open_slide(path) as reader:
        for side_px in (512, 128, 64):
            found = reader.region(Box(128, 384, 640, 896), side_px=side_px)
            centre = found[side_px // 2, side_px // 2].astype(int)
            assert np.abs(centre - [384 // 8, 640 // 8, 90]).max() <= 4


def test_a_region_is_read_from_the_coarsest_level_that_holds_its_pixels(slide_path, monkeypatch):
    with open_slide(slide_path) as reader:
        levels, read = [], reader._image.read
        monkeypatch.setattr(
            reader._image, "read", lambda c, level, s: levels.append(level) or read(c, level, s)
        )
        for side_px in (1024, 512, 256, 250, 64):
            reader.region(Box(0, 0, 1024, 1024), side_px=side_px)
    assert levels == [0, 0, 1, 1, 2]


def test_pixels_outside_the_slide_are_white(slide_path):
    with open_slide(slide_path) as reader:
        corner = reader.region(Box(1920, 1920, 2176, 2176), side_px=256)
        before = reader.region(Box(-256, -256, 0, 0), side_px=64)
    assert (corner[130:, 130:] == 255).all()
    assert (corner[:120, :120] < 255).any()
    assert (before == 255).all()


def test_transparent_pixels_of_a_picture_are_composited_on_white(tmp_path):
    rgba = np.zeros((64, 64, 4), np.uint8)
    rgba[:, :32] = (200, 10, 20, 255)
    Image.fromarray(rgba).save(tmp_path / "half.png")
    with open_slide(tmp_path / "half.png", mpp=0.5) as reader:
        pixels = reader.region(Box(0, 0, 64, 64), side_px=64)
    assert (pixels[:, 32:] == 255).all()
    assert (pixels[:, :32] == (200, 10, 20)).all()


def test_large_boxes_are_read_in_pieces_and_give_the_same_picture(slide_path, monkeypatch):
    with open_slide(slide_path) as reader:
        whole = reader.at_mpp(4.0)
        monkeypatch.setattr("sish_cluster.encoder.slide.READ_PX", 64 * 64)
        pieces = reader.at_mpp(4.0)
    assert whole.shape == pieces.shape == (256, 256, 3)
    assert np.abs(whole.astype(int) - pieces).mean() < 0.5


@pytest.mark.parametrize(("max_side_px", "shape"), [(300, (300, 300, 3)), (9000, (2048, 2048, 3))])
def test_thumbnails_shrink_and_never_enlarge(slide_path, max_side_px, shape):
    with open_slide(slide_path) as reader:
        assert reader.thumbnail(max_side_px).shape == shape


def test_one_level_pictures_of_every_plain_format_read_alike(tmp_path):
    pixels = cv2.resize(drawn(DRAWING), (300, 200), interpolation=cv2.INTER_AREA)
    for name in ("a.png", "a.tif", "a.jpg"):
        Image.fromarray(pixels).save(tmp_path / name)
        with open_slide(tmp_path / name, mpp=1.0) as reader:
            assert (reader.level_count, reader.mpp_source) == (1, "given")
            assert np.abs(reader.at_mpp(1.0).astype(int) - pixels).mean() < 6


def test_the_resolution_of_a_plain_tiff_is_its_mpp_and_a_printers_is_not(tmp_path):
    picture = Image.fromarray(stepped(64))
    picture.save(tmp_path / "scan.tif", resolution=20000, resolution_unit="cm")
    picture.save(tmp_path / "print.tif", dpi=(72, 72))
    with open_slide(tmp_path / "scan.tif") as reader:
        assert reader.mpp == pytest.approx(0.5)
    with pytest.raises(BadSlide, match="states neither mpp nor objective power; give --mpp"):
        open_slide(tmp_path / "print.tif")


def test_a_slide_without_mpp_asks_for_one_and_takes_it(tmp_path):
    path = slide_without_mpp(tmp_path / "s.tif", side_px=512)
    with pytest.raises(BadSlide, match=r"s\.tif.*give --mpp, or an mpp column"):
        open_slide(path)
    with open_slide(path, mpp=0.25) as reader:
        assert (reader.mpp, reader.mpp_source) == (0.25, "given")


def test_an_objective_power_gives_the_nominal_mpp(tmp_path, monkeypatch):
    path = slide_without_mpp(tmp_path / "s.tif", side_px=512)
    image = image_file.opened(path)
    image.properties = {"openslide.objective-power": "40"}
    monkeypatch.setattr("sish_cluster.encoder.slide.opened", lambda _: image)
    with open_slide(path) as reader:
        assert (reader.mpp, reader.mpp_source) == (0.25, "objective power")


def test_the_files_own_mpp_goes_before_a_given_one_that_agrees(slide_path):
    with open_slide(slide_path, mpp=0.46) as reader:
        assert reader.mpp == pytest.approx(0.5)


def test_a_given_mpp_that_contradicts_the_file_is_refused(slide_path):
    with pytest.raises(BadSlide, match=r"mpp 0\.25 was given, but the file says 0\.5"):
        open_slide(slide_path, mpp=0.25)


@pytest.mark.parametrize("mpp", [0.0, -0.5, float("nan"), float("inf"), 400.0])
def test_a_given_mpp_that_is_no_scale_is_refused(slide_path, mpp):
    with pytest.raises(BadSlide, match="an mpp is"):
        open_slide(slide_path, mpp=mpp)


def test_the_digest_is_of_the_content_not_of_the_name(slide_path, tmp_path):
    copy = tmp_path / "other.tif"
    copy.write_bytes(slide_path.read_bytes())
    with open_slide(slide_path) as one, open_slide(copy) as two:
        assert one.digest == two.digest
        size = len(copy.read_bytes()).to_bytes(8, "little")
        assert one.digest == hashlib.blake2b(size + copy.read_bytes(), digest_size=16).hexdigest()


def test_a_picture_named_svs_is_refused_by_what_it_is(tmp_path):
    with pytest.raises(BadSlide, match=r"is named \.svs, but its content is PNG"):
        open_slide(picture_named_slide(tmp_path / "picture.svs"))


@pytest.mark.parametrize("share", [0.002, 0.1, 0.5, 0.9, 0.99])
def test_a_slide_cut_short_is_refused_wherever_it_was_cut(tmp_path, share):
    path = truncated_slide(tmp_path / "cut.tif", share=share)
    with pytest.raises(BadSlide, match=r"cut\.tif.*copy it again"):
        open_slide(path)


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("a.svs", b"", "is empty"),
        ("a.svs", b"patient,site\nP1,lung\n", "content is text"),
        ("a.tif", b"\x89PNG\r\n\x1a\n" + bytes(99), "content is PNG"),
        ("a.png", b"\x89PNG\r\n\x1a\n" + bytes(99), "cannot be decoded"),
        ("a.tif", b"II*\0" + bytes(200), "cannot be decoded"),
        ("a.tif", b"II*\0" + b"\xff" * 200, "cannot be decoded"),
        ("a.mrxs", b"\xff\xd8\xff" + bytes(99), "cannot be decoded"),
        ("a.ndpi", b"PK\x03\x04" + bytes(99), "content is a ZIP archive"),
        ("a.xyz", bytes(range(256)), "not an image format known here"),
    ],
)
def test_files_that_are_no_slides_are_named_by_what_was_found(tmp_path, name, content, found):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(BadSlide, match=found) as caught:
        open_slide(path, mpp=0.5)
    assert str(path) in str(caught.value)


def test_missing_files_and_plain_folders_are_refused(tmp_path):
    with pytest.raises(BadSlide, match="there is no such file"):
        open_slide(tmp_path / "none.svs")
    with pytest.raises(BadSlide, match="is a folder without DICOM files"):
        open_slide(tmp_path)


def test_a_tile_that_fails_to_decode_is_a_named_error_when_it_is_read(tmp_path):
    path = draw_slide(tmp_path / "damaged.tif", Drawing("sheets", 1024, 0.5))
    data = bytearray(path.read_bytes())
    data[8:3000] = bytes(2992)
    path.write_bytes(data)
    with open_slide(path) as reader, pytest.raises(BadSlide, match="cannot be decoded"):
        reader.region(Box(0, 0, 512, 512), side_px=512)


def test_pictures_too_large_or_too_deep_are_refused_before_they_are_decoded(tmp_path, monkeypatch):
    Image.new("L", (3000, 2000)).save(tmp_path / "large.png")
    Image.fromarray(np.zeros((9, 9), np.uint16)).save(tmp_path / "deep.png")
    monkeypatch.setattr(image_file, "MAX_PLAIN_PX", 1_000_000)
    with pytest.raises(BadSlide, match="3000 x 2000 px is decoded whole, at most 1,000,000"):
        open_slide(tmp_path / "large.png", mpp=0.5)
    with pytest.raises(BadSlide, match="convert it to 8-bit RGB"):
        open_slide(tmp_path / "deep.png", mpp=0.5)


def test_a_decompression_bomb_is_refused_unread(tmp_path):
    def chunk(name, data):
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(bytes(1000)))
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + body)
    with pytest.raises(BadSlide, match="decoded whole, at most"):
        open_slide(tmp_path / "bomb.png", mpp=0.5)


def test_overviews_too_fine_for_memory_are_refused(slide_path, monkeypatch):
    monkeypatch.setattr("sish_cluster.encoder.slide.MAX_OVERVIEW_PX", 1000)
    with open_slide(slide_path) as reader, pytest.raises(BadSlide, match="ask for a coarser one"):
        reader.at_mpp(0.5)


@pytest.mark.parametrize(("power", "mpp"), [(20, 0.5), (40, 0.25), (80, 0.125)])
def test_one_tissue_scanned_at_any_magnification_gives_the_networks_the_same_pixels(
    tmp_path, power, mpp
):
    tissue = cv2.GaussianBlur(drawn(Drawing("glands", side_px=1024, mpp=0.5)), (0, 0), 2)
    scale = power // 20
    scanned = cv2.resize(tissue, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    path = write_pyramid(tmp_path / "s.tif", scanned, mpp=mpp)
    with open_slide(path) as reader:
        side_px = patch_side_px_of(reader.mpp, 256.0)
        patch = reader.region(Box(side_px, side_px, 2 * side_px, 2 * side_px), side_px=256)
    assert side_px == 512 * scale
    truth = cv2.resize(tissue[512:, 512:], (256, 256), interpolation=cv2.INTER_AREA)
    assert np.abs(patch.astype(float) - truth).mean() < 4
