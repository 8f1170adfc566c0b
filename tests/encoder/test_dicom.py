"""DICOM slides: opened by mpp, all levels, encoded from a folder; and pictures of labels stay in their file."""

from pathlib import Path

import cv2
import numpy as np
import pytest

import sish_cluster
from sish_cluster.core.geometry import Box, Size
from sish_cluster.core.posting import EncodedSlide
from sish_cluster.encoder.catalogue import matched
from sish_cluster.encoder.damage import check_levels
from sish_cluster.encoder.image_file import opened
from sish_cluster.encoder.pool import encode_all
from sish_cluster.encoder.settings import ActorSettings
from sish_cluster.encoder.slide import open_slide
from sish_cluster.testing.dicom import write_dicom
from sish_cluster.testing.histology import Drawing, drawn

PIXELS = drawn(Drawing("glands", side_px=2048, mpp=1.0))

RED = np.full((400, 600, 3), (255, 0, 0), np.uint8)
"""A label nobody can overlook."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """SITE/DIAGNOSIS/20x, as SISH's folders of slides are, with one DICOM slide and its label."""
    top = tmp_path_factory.mktemp("dicom")
    write_dicom(top / "gut" / "glands" / "20x" / "case1", PIXELS, mpp=1.0, label=RED)
    return top


@pytest.fixture(scope="module")
def path(folder):
    return folder / "gut" / "glands" / "20x" / "case1"


def test_a_dicom_slide_is_opened_by_its_folder_with_its_own_mpp_and_levels(path):
    with open_slide(path) as reader:
        assert (reader.mpp, reader.mpp_source) == (pytest.approx(1.0), "file")
        assert (reader.size, reader.level_count) == (Size(2048, 2048), 3)
        assert reader.name == "case1"
        check_levels(reader)


def test_regions_of_a_dicom_slide_lie_where_their_boxes_say(path):
    box = Box(512, 256, 1536, 1280)
    with open_slide(path) as reader:
        found = reader.region(box, side_px=256).astype(float)
    truth = cv2.resize(PIXELS[256:1280, 512:1536], (256, 256), interpolation=cv2.INTER_AREA)
    assert np.abs(found - truth).mean() < 8
    assert np.abs(np.roll(found, 2, axis=0) - truth).mean() > 12


def test_a_dicom_slide_in_a_folder_of_slides_is_encoded(folder, encoder, monkeypatch):
    monkeypatch.setattr("sish_cluster.encoder.local_actor.Encoder", lambda settings, **_: encoder)
    entries = matched(folder, None).entries
    actors = ActorSettings(n_actors=1, poll_s=0.01)
    (slide,) = encode_all(entries, encoder.settings, ray=False, actors=actors)
    assert isinstance(slide, EncodedSlide)
    assert (slide.slide.slide_id, slide.slide.site) == ("case1", "gut")
    assert slide.slide.mpp == pytest.approx(1.0)


def test_the_label_is_in_the_file_and_in_nothing_that_is_read_from_it(path):
    image = opened(path / "level-0.dcm")
    assert "label" in image._slide.associated_images
    image.close()
    with open_slide(path) as reader:
        pictures = [reader.thumbnail(600), reader.at_mpp(8.0)]
        pictures += [reader.level_region(Box(0, 0, 2048, 2048), level) for level in range(3)]
        assert {reader.size} == {Size(2048, 2048)}
    for picture in pictures:
        red = (picture[..., 0] > 200) & (picture[..., 1:].max(axis=-1) < 60)
        assert not red.any()


def test_no_module_asks_openslide_for_label_or_macro_pictures():
    sources = sorted(Path(sish_cluster.__path__[0]).rglob("*.py"))
    asking = [s.name for s in sources if "associated_images" in s.read_text("utf-8")]
    assert len(sources) > 100
    assert asking == []
