"""Small drawn slides, and one encoder for all tests that only read it."""

import os
from pathlib import Path

import numpy as np
import pytest

from sish_cluster.core.slide import Slide
from sish_cluster.encoder.catalogue import CatalogueEntry
from sish_cluster.encoder.cutting import MosaicSettings
from sish_cluster.encoder.mosaic import TwoStageSettings
from sish_cluster.encoder.pipeline import Encoder
from sish_cluster.encoder.settings import EncoderSettings
from sish_cluster.testing.histology import Drawing
from sish_cluster.testing.slides import draw_slide

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def shared_data():
    """Real slides and tiles, where the shared folder lies beside the repository."""
    folder = Path(os.environ.get("SISH_SHARED", REPOSITORY.parent / "shared")) / "data"
    if not folder.is_dir():
        pytest.skip(f"no shared data at {folder}: set SISH_SHARED to its parent")
    return folder


FEW_PATCHES = EncoderSettings(
    mosaic=MosaicSettings(selection=TwoStageSettings(colour_clusters=3, min_members=1))
)
"""Mosaics of about three patches: a patch costs half a second of CPU."""


@pytest.fixture(scope="session")
def encoder():
    """The compact encoder with its default weights, and small mosaics."""
    return Encoder(FEW_PATCHES)


@pytest.fixture(scope="session")
def drawn_folder(tmp_path_factory):
    """Three small slides, 1024 px at 2 um per px, of three patterns."""
    folder = tmp_path_factory.mktemp("drawn")
    for pattern in ("glands", "fibres", "sheets"):
        draw_slide(folder / f"{pattern}.tif", Drawing(pattern, side_px=1024, mpp=2.0))
    return folder


@pytest.fixture(scope="session")
def glands(drawn_folder):
    """One drawn slide with its labels."""
    slide = Slide("glands", patient="p1", site="gut", diagnosis="glands", labels={"stain": "HE"})
    return CatalogueEntry(drawn_folder / "glands.tif", slide, None)


@pytest.fixture(scope="session")
def patches():
    """Three patches (3, 512, 512, 3): noise of three colours over blocks."""
    rng = np.random.default_rng(3)
    blocks = rng.integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    return blocks.repeat(16, axis=1).repeat(16, axis=2)
