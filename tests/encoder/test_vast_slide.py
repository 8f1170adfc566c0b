"""A slide of 100,000 px a side: tissue and mosaic in bounded memory, read from the levels that suffice."""

import json
import subprocess
import sys

import pytest

from sish_cluster.core.geometry import Box
from sish_cluster.encoder.slide import open_slide
from sish_cluster.testing.vast import vast_slide

CUT = """
import json, resource, sys, time
import sish_cluster.encoder.reading
from sish_cluster.encoder.cutting import cut_mosaic
from sish_cluster.encoder.damage import check_levels
from sish_cluster.encoder.slide import open_slide
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
before = peak()
with open_slide(sys.argv[1]) as reader:
    check_levels(reader)
    mosaic = cut_mosaic(reader)
    shown = [reader.region(mosaic.box(row), side_px=512).mean() for row in range(len(mosaic))]
print(json.dumps({"grid": mosaic.counts.grid, "chosen": len(mosaic), "area": mosaic.tissue.area_um2,
    "least": min(shown), "most": max(shown), "more MiB": peak() - before,
    "CPU s": time.process_time(), "torch": "torch" in sys.modules}))
"""
"""What a reader does with a slide, in a process whose memory is its own."""


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return vast_slide(tmp_path_factory.mktemp("vast") / "v.tif", share=0.2)


@pytest.fixture(scope="module")
def cut(path):
    done = subprocess.run(
        [sys.executable, "-c", CUT, str(path)], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def test_the_slide_is_vast_and_its_file_is_small(path):
    with open_slide(path) as reader:
        assert (reader.size.width, reader.size.height) == (100_000, 100_000)
        assert reader.downsamples == [1.0, 4.0, 16.0]
        tissue = reader.region(Box(50_000, 50_000, 52_048, 52_048), side_px=512)
        glass = reader.region(Box(0, 0, 2048, 2048), side_px=512)
    assert path.stat().st_size < 4 << 20
    assert (glass.min() > 230, tissue.min() < 180) == (True, True)


def test_tissue_and_mosaic_take_the_memory_of_a_block_and_not_of_the_slide(cut):
    assert 25e3**2 * 0.2 * 0.8 < cut["area"] < 25e3**2 * 0.2 * 1.3
    assert cut["grid"] > 300
    assert 9 <= cut["chosen"] <= cut["grid"] / 5
    assert cut["more MiB"] < 400
    assert cut["CPU s"] < 120


def test_the_patches_of_its_mosaic_show_tissue(cut):
    assert 60 < cut["least"] < cut["most"] < 240


def test_a_reader_of_slides_needs_no_torch(cut):
    assert cut["torch"] is False
