"""Slides that are damaged, one by one and in a run: each is named with its cause, the others are encoded."""

import re

import pytest
from PIL import Image

from sish_cluster.core.errors import BadSlide
from sish_cluster.core.geometry import Box
from sish_cluster.core.posting import EncodedSlide
from sish_cluster.core.slide import Slide
from sish_cluster.encoder.catalogue import CatalogueEntry
from sish_cluster.encoder.damage import check_levels, check_patch
from sish_cluster.encoder.pool import encode_all
from sish_cluster.encoder.settings import ActorSettings
from sish_cluster.encoder.slide import open_slide
from sish_cluster.testing.damaged import KINDS, damage_level
from sish_cluster.testing.histology import PATTERNS, Drawing, drawn
from sish_cluster.testing.pyramid import write_pyramid
from sish_cluster.testing.slides import draw_slide, picture_named_slide, truncated_slide


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A slide of three levels, 1, 4 and 16 times 1 um per px."""
    return draw_slide(tmp_path_factory.mktemp("sound") / "s.tif", Drawing("glands", 2048, 1.0))


def damaged(sound, path, level, kind):
    path.write_bytes(sound.read_bytes())
    return damage_level(path, level, kind)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("level", [0, 1, 2])
def test_a_damaged_level_is_named_whether_or_not_anything_reads_it(sound, tmp_path, level, kind):
    path = damaged(sound, tmp_path / "hurt.tif", level, kind)
    with open_slide(path) as reader, pytest.raises(BadSlide, match=rf"levels? .*\b{level}\b") as at:
        check_levels(reader)
    assert str(path) in str(at.value)
    assert "copy" in str(at.value)


@pytest.mark.parametrize("pattern", sorted(PATTERNS))
def test_levels_of_sound_slides_show_the_same_pictures(tmp_path, pattern):
    path = draw_slide(tmp_path / "s.tif", Drawing(pattern, 2048, 0.5))
    with open_slide(path) as reader:
        check_levels(reader)
        for left in range(-512, 2048, 512):
            box = Box(left, 512, left + 1024, 1536)
            check_patch(reader, box, reader.region(box, side_px=512))


@pytest.mark.shared
def test_levels_of_real_slides_show_the_same_pictures(shared_data):
    paths = [p for p in sorted((shared_data / "slides").rglob("*")) if p.suffix in (".tif", ".svs")]
    for path in paths:
        with open_slide(path, mpp=0.5 if path.name.startswith("tcga") else None) as reader:
            check_levels(reader)
    assert len(paths) >= 10


def test_levels_out_of_line_by_a_few_pixels_are_no_damage(sound, tmp_path):
    pixels = drawn(Drawing("sheets", 2048, 1.0))
    with open_slide(write_pyramid(tmp_path / "s.tif", pixels, mpp=1.0)) as reader:
        box = Box(512, 512, 1024, 1024)
        check_patch(reader, box, reader.region(Box(544, 480, 1056, 992), side_px=512))
        with pytest.raises(BadSlide, match="levels 0 and 2 show different pictures"):
            check_patch(reader, box, 255 - reader.region(box, side_px=512))


def test_damage_of_a_single_patch_is_found_when_it_is_read(sound):
    with open_slide(sound) as reader:
        box = Box(768, 768, 1280, 1280)
        pixels = reader.region(box, side_px=512).copy()
        pixels[:128, :128] = 0
        with pytest.raises(BadSlide, match=r"square at \(768, 768\) of 512 px"):
            check_patch(reader, box, pixels)


def test_one_level_alone_is_compared_with_nothing_and_still_decoded(tmp_path):
    flat = draw_slide(tmp_path / "flat.tif", Drawing("glands", 500, 2.0))
    with open_slide(flat) as reader:
        assert reader.level_count == 1
        check_levels(reader)
    with (
        open_slide(damage_level(flat, 0, "zeros")) as reader,
        pytest.raises(BadSlide, match="of level 0"),
    ):
        check_levels(reader)


@pytest.fixture
def wreckage(sound, tmp_path):
    """Files that are wrong in many ways, and the cause that each is to be told by."""
    (tmp_path / "empty.svs").write_bytes(b"")
    (tmp_path / "text.svs").write_text("patient,site\nP1,lung\n")
    picture_named_slide(tmp_path / "renamed.svs")
    truncated_slide(tmp_path / "cut.tif")
    for name in ("short.png", "short.jpg"):
        Image.fromarray(drawn(Drawing("glands", 512, 4.0))).save(tmp_path / name)
        data = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(data[: len(data) // 2])
    damaged(sound, tmp_path / "garbage.tif", 0, "zeros")
    damaged(sound, tmp_path / "noise.tif", 0, "noise")
    damaged(sound, tmp_path / "nothing.tif", 0, "absent")
    damaged(sound, tmp_path / "overview.tif", 1, "short")
    damaged(sound, tmp_path / "unread.tif", 2, "noise")
    return {
        "empty": r"empty\.svs: is empty \(0 bytes\)",
        "text": r"text\.svs: is named \.svs, but its content is text",
        "renamed": r"renamed\.svs: is named \.svs, but its content is PNG",
        "cut": r"cut\.tif: .*damaged or cut short",
        "short": r"short\.(png|jpg): .*cannot be decoded: .*truncated",
        "garbage": r"garbage\.tif: .* of level 0 at .* cannot be decoded: Not a JPEG",
        "noise": r"noise\.tif: levels 0 and 1 show different pictures",
        "nothing": r"nothing\.tif: levels 0 and 1 .*\(255, 255, 255\)",
        "overview": r"overview\.tif: .* of level 1 at .* cannot be decoded: Premature end",
        "unread": r"unread\.tif: .*level 2 at .* cannot be decoded: Corrupt JPEG",
    }


def test_a_run_names_every_damaged_slide_with_its_cause_and_encodes_the_others(
    encoder, sound, drawn_folder, wreckage, tmp_path, monkeypatch
):
    monkeypatch.setattr("sish_cluster.encoder.local_actor.Encoder", lambda settings, **_: encoder)
    files = sorted(file for file in tmp_path.iterdir() if file.is_file())
    files[3:3] = [drawn_folder / "glands.tif"]
    files.append(drawn_folder / "fibres.tif")
    entries = [CatalogueEntry(file, Slide(file.stem), 0.5 if file.suffix in (".png", ".jpg") else None)
               for file in files]  # fmt: skip
    actors = ActorSettings(n_actors=1, n_readers=2, poll_s=0.01)
    outcomes = list(encode_all(entries, encoder.settings, ray=False, actors=actors))
    encoded = [o.slide.slide_id for o in outcomes if isinstance(o, EncodedSlide)]
    failed = [o for o in outcomes if not isinstance(o, EncodedSlide)]
    assert sorted(encoded) == ["fibres", "glands"]
    assert len(failed) == len(files) - 2
    for failure in failed:
        assert isinstance(failure.error, BadSlide)
        assert re.search(wreckage[failure.slide_id], str(failure.error)), failure.error
