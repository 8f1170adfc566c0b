"""Feature files of one's own slides: what `sish train wsisum` and `sish summarise` read.

Each slide's clean tissue patches are embedded as a mosaic selector sees them, 256 px thumbnails of 512 um, so that
a summary model trained on these files can choose mosaics. A file is written whole: an interrupted run
goes on where it stopped, and a slide that cannot be read is told and left out.

Frames: coords are upper left corners, level-0 pixels.

Source
------
WSISum, "Data" (one h5 per slide); the patches are those of `sish_cluster.encoder.cutting`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sish_cluster.core.errors import BadRequest, BadSlide
from sish_cluster.core.geometry import PATCH_FIELD_UM, Box, patch_side_px_of
from sish_cluster.core.seams import Embedder
from sish_cluster.encoder.artifacts import white_patches
from sish_cluster.encoder.catalogue import find_slides, read_labels, slide_name
from sish_cluster.encoder.cutting import THUMBNAIL_PX
from sish_cluster.encoder.patching import patch_corners
from sish_cluster.encoder.slide import SlideReader, open_slide
from sish_cluster.encoder.summary_files import write_features
from sish_cluster.encoder.tissue import tissue_of

BLOCK_PATCHES = 64
"""Patches held as pixels at a time (12 MiB)."""

Progress = Callable[[str, int, int], None]
"""Called with (slide, patches done, patches in all)."""

Found = tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]
"""Features (n, d) and corners (n, 2)."""


def features_of_slides(
    slides: Path,
    out: Path,
    embedder: Embedder,
    *,
    labels: Path | None = None,
    progress: Progress | None = None,
) -> list[Path]:
    """Write ``out/NAME.h5`` for each slide of a folder, and return the files there are.

    Parameters
    ----------
    slides
        Folder of slides.
    out
        Gets the feature files; those that are there are left alone.
    embedder
        Embeds 256 px thumbnails.
    labels
        Labels table, for mpps the files do not state.
    progress
        Told after every block of patches, and of slides left out.

    Raises
    ------
    BadRequest
        If not one slide gives a feature.
    """
    mpps = {n: row.mpp for n, row in read_labels(labels).rows.items()} if labels else {}
    tell = progress or (lambda what, done, total: None)
    written = []
    for path in find_slides(slides):
        name = slide_name(path)
        file = out / f"{name}.h5"
        try:
            if not file.exists():
                with open_slide(path, mpp=mpps.get(name)) as reader:
                    write_features(file, *_features(reader, embedder, tell))
        except BadSlide as error:
            tell(f"{name} left out: {error}", 0, 0)
            continue
        written.append(file)
    if not written:
        raise BadRequest(f"{slides}: no slide gave a feature; see what was told of each")
    return written


def _features(reader: SlideReader, embedder: Embedder, tell: Progress) -> Found:
    side = patch_side_px_of(reader.mpp, PATCH_FIELD_UM)
    corners = patch_corners(tissue_of(reader), slide_size=reader.size, side_px=side)
    rows, kept = [], []
    for start in range(0, len(corners), BLOCK_PATCHES):
        block = corners[start : start + BLOCK_PATCHES]
        boxes = [Box(int(x), int(y), int(x) + side, int(y) + side) for x, y in block]
        pixels = np.stack([reader.region(box, side_px=THUMBNAIL_PX) for box in boxes])
        stained = ~white_patches(pixels)
        rows.append(embedder.embeddings_of(pixels[stained]))
        kept.append(block[stained])
        tell(reader.name, start + len(block), len(corners))
    if not any(map(len, kept)):
        raise BadSlide(f"{reader.path}: all patches on tissue are white; leave the slide out")
    return np.concatenate(rows), np.concatenate(kept)
