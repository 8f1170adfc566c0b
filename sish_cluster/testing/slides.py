"""Slides drawn from a seed: small pyramids that OpenSlide opens, and the ways a file can be wrong.

`draw_slides` fills a folder with slides of several patterns, patients, sites and institutions and
writes their labels; the other functions draw one slide, or one kind of damage. The same seed draws the
same slides, pixel for pixel.

Examples
--------
>>> import tempfile
>>> with tempfile.TemporaryDirectory() as folder:
...     labels = draw_slides(folder, patients=1, side_px=512, mpp=4.0)
...     sorted(path.name for path in labels.parent.iterdir())[:2]
['fat-p1.tif', 'fibres-p2.tif']
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import cv2

from sish_cluster.testing.histology import PATTERNS, Drawing, drawn
from sish_cluster.testing.pyramid import write_pyramid

SITES = {"glands": "gut", "fibres": "gut", "sheets": "lung", "fat": "lung"}
"""Site of every pattern: two sites with two diagnoses each."""

INSTITUTIONS = {"north": (0, 0, 0), "south": (6, -4, 3)}
"""Institutions and the shift of their stain, RGB steps."""

COLUMNS = ("slide", "patient", "site", "diagnosis", "institution", "stain")
"""Columns of the labels table."""


def draw_slides(
    folder: str | os.PathLike[str],
    *,
    patients: int = 3,
    side_px: int = 4096,
    mpp: float = 0.5,
    rng_seed: int = 0,
) -> Path:
    """Draw slides of every pattern and write their labels.

    Parameters
    ----------
    folder
        Where they go; made if it is not there.
    patients
        Patients per pattern, one slide each; a patient has one pattern.
    side_px
        Side of a slide, px.
    mpp
        Micrometres per px.
    rng_seed
        Fixes every pixel.

    Returns
    -------
    The labels table, ``labels.csv`` in the folder.
    """
    top = Path(folder)
    top.mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(patients * len(PATTERNS)):
        pattern = sorted(PATTERNS)[number % len(PATTERNS)]
        institution = sorted(INSTITUTIONS)[number // len(PATTERNS) % len(INSTITUTIONS)]
        patient = f"p{number + 1}"
        drawing = Drawing(
            pattern,
            side_px,
            mpp,
            rng_seed=rng_seed * 10_000 + number,
            stain=INSTITUTIONS[institution],
        )
        draw_slide(top / f"{pattern}-{patient}.tif", drawing)
        rows.append((f"{pattern}-{patient}", patient, SITES[pattern], pattern, institution, "HE"))
    return write_labels(top / "labels.csv", rows)


def write_labels(
    path: Path, rows: Iterable[Sequence[str]], columns: Sequence[str] = COLUMNS
) -> Path:
    """Write a labels table and return its path."""
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([columns, *rows])
    return path


def draw_slide(path: Path, drawing: Drawing, *, states_mpp: bool = True) -> Path:
    """Draw one slide as a tiled TIFF pyramid.

    Parameters
    ----------
    path
        Where it goes.
    drawing
        What is drawn.
    states_mpp
        Whether the file states its mpp.
    """
    return write_pyramid(path, drawn(drawing), mpp=drawing.mpp if states_mpp else None)


def one_patch_slide(path: Path, *, mpp: float = 0.5, rng_seed: int = 0) -> Path:
    """Draw a slide whose tissue fits in one patch of 512 um."""
    side_px = round(1024 / mpp)
    return draw_slide(path, Drawing("glands", side_px, mpp, rng_seed, tissue_share=0.38))


def empty_slide(path: Path, *, side_px: int = 2048, mpp: float = 0.5) -> Path:
    """Draw glass without tissue."""
    return draw_slide(path, Drawing("sheets", side_px, mpp, tissue_share=0))


def slide_without_mpp(path: Path, *, side_px: int = 2048, rng_seed: int = 0) -> Path:
    """Draw a slide whose file does not state its mpp (it was drawn at 0.5)."""
    return draw_slide(path, Drawing("glands", side_px, 0.5, rng_seed), states_mpp=False)


def truncated_slide(path: Path, *, share: float = 0.4, rng_seed: int = 0) -> Path:
    """Draw a slide and keep only the first ``share`` of its bytes: a copy that stopped."""
    draw_slide(path, Drawing("sheets", 2048, 0.5, rng_seed))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


def picture_named_slide(path: Path, *, side_px: int = 512) -> Path:
    """Write a PNG under a slide's name, such as ``picture.svs``."""
    pixels = drawn(Drawing("glands", side_px, 4.0))
    path.write_bytes(cv2.imencode(".png", pixels[..., ::-1])[1].tobytes())
    return path
