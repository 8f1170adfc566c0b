"""Folders of tiles: every image is a slide of one patch or a failure with its name."""

import numpy as np
import pytest
from PIL import Image

from sish_cluster.core.code import codes_of
from sish_cluster.core.errors import BadLabels, BadSlide
from sish_cluster.core.posting import EncodedSlide
from sish_cluster.encoder.outcome import EncodeFailure
from sish_cluster.encoder.tile_folder import (
    TileSettings,
    encoded_tiles,
    tile_fingerprint,
    tiles_of,
)


def picture(path, width=64, height=64, rng_seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(rng_seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    return path


@pytest.fixture
def folder(tmp_path):
    picture(tmp_path / "tiles" / "a" / "one.png", rng_seed=1)
    picture(tmp_path / "tiles" / "b" / "two.png", width=96, rng_seed=2)
    return tmp_path / "tiles"


def table(folder, text, name="labels.csv"):
    path = folder.parent / name
    path.write_text(text)
    return path


def test_tiles_take_label_group_and_other_columns_from_the_table(folder):
    rows = "file,set,label,group,slide\ntiles/a/one.png,s1,lung,g1,w1\ntiles/b/two.png,s1,colon,g2,w2\n"
    one, two = tiles_of(folder, table(folder, rows))
    assert (one.slide.slide_id, one.slide.diagnosis, one.slide.patient) == ("a/one", "lung", "g1")
    assert one.slide.labels == {"set": "s1", "source_slide": "w1"}
    assert (two.slide.slide_id, two.problem) == ("b/two", "")


@pytest.mark.parametrize(
    "names", [("a/one.png", "b/two.png"), ("one", "two"), ("a/one", "two.png")]
)
def test_a_name_may_lack_folder_and_suffix(folder, names):
    rows = "".join(f"{name};x;p\n" for name in names)
    tiles = tiles_of(folder, table(folder, "patch;label;patient\n" + rows))
    assert [(tile.slide.slide_id, tile.problem) for tile in tiles] == [("a/one", ""), ("b/two", "")]


def test_without_a_table_the_folder_is_the_label(folder):
    assert [tile.slide.diagnosis for tile in tiles_of(folder, None)] == ["a", "b"]


def test_rows_of_files_elsewhere_are_left_out_and_lost_ones_are_named(folder):
    picture(folder.parent / "other" / "far.png")
    rows = "name,label\ntiles/a/one.png,x\nother/far.png,x\ntiles/gone.png,x\n"
    tiles = tiles_of(folder, table(folder, rows))
    problems = {tile.slide.slide_id: tile.problem for tile in tiles}
    assert problems["a/one"] == ""
    assert "line 4: no such tile" in problems["tiles/gone.png"]
    assert "has no row" in problems["b/two"]
    assert len(problems) == 3


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("image,label\none,x\n", "lacks a column patch or name or file"),
        ("name,site\none,x\n", "lacks a column label or diagnosis"),
        ("name,label\none,x\na/one.png,y\n", "is named on lines 2 and 3"),
    ],
)
def test_a_table_that_cannot_serve_is_refused(folder, text, words):
    with pytest.raises(BadLabels, match=words):
        tiles_of(folder, table(folder, text))


def test_a_missing_or_empty_folder_is_refused(tmp_path):
    with pytest.raises(BadSlide, match="no such folder"):
        tiles_of(tmp_path / "none", None)
    with pytest.raises(BadSlide, match="holds no tiles"):
        tiles_of(tmp_path, None)


def test_each_tile_is_one_patch_and_a_bad_one_stops_no_other(folder, encoder):
    (folder / "c").mkdir()
    (folder / "c" / "broken.png").write_bytes(b"no picture")
    picture(folder / "c" / "tiny.png", width=16)
    steps = []
    outcomes = list(encoded_tiles(folder, None, encoder, progress=lambda *step: steps.append(step)))
    good = [o for o in outcomes if isinstance(o, EncodedSlide)]
    bad = {o.slide_id: o.error.message for o in outcomes if isinstance(o, EncodeFailure)}
    assert [o.slide.slide_id for o in good] == ["a/one", "b/two"]
    assert [len(o.patches) for o in good] == [1, 1]
    assert (good[1].slide.width_px, good[1].slide.patch_side_px) == (64, 64)
    assert good[0].fingerprint == tile_fingerprint(encoder) != encoder.fingerprint
    assert "cannot be decoded" in bad["c/broken"]
    assert "0x" not in bad["c/broken"]
    assert "16 x 64 px" in bad["c/tiny"]
    assert steps[-1] == (4, 4)


def test_the_code_is_that_of_the_tile_as_the_settings_fit_it(folder, encoder):
    pixels = np.asarray(Image.open(folder / "a" / "one.png"))
    own = TileSettings(texture_side_px=0, readers=1)
    first = next(iter(encoded_tiles(folder, None, encoder, settings=own)))
    assert np.array_equal(
        first.patches.codes, codes_of(encoder.embedder.embeddings_of(pixels[None]))
    )
    assert tile_fingerprint(encoder, own) != tile_fingerprint(encoder)
