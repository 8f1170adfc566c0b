"""Train the debris classifier: real tissue against squares nobody wants encoded.

Tissue is what the slides and tiles hold: patches of every slide on four shifted grids, and the tiles.
Debris is made from the same slides, so that the scanner, the compression and the glass are the same
on both sides: glass as it is, glass with dust, ink over glass and over tissue, tissue far out of focus,
noise. Groups (cases, sources) are never split between training and test; the threshold is the one that
drops at most one tissue patch in 500 of the groups held out.

Run ``python -m sish_cluster.encoder.training.artifacts --data DIR``; DIR holds ``slides.csv``, ``slides/``
and ``tiles/`` with ``tiles/labels.csv`` (columns file, set, label, group, slide).
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold

from sish_cluster.core.errors import BadSlide
from sish_cluster.core.geometry import Box, Size, patch_side_px_of
from sish_cluster.core.slide import digest_of
from sish_cluster.encoder.artifacts import (
    LBP_BINS,
    MODEL_PATH,
    DebrisModel,
    texture_histogram,
    white_patches,
)
from sish_cluster.encoder.catalogue import CatalogueEntry, matched, read_labels
from sish_cluster.encoder.image_file import Rgb
from sish_cluster.encoder.patching import patch_corners
from sish_cluster.encoder.slide import SlideReader, open_slide
from sish_cluster.encoder.tissue import Tissue, tissue_of

THUMBNAIL_PX = 256
"""Side of a patch as the classifier sees it, px."""

MAX_FALSE_DROPS = 0.002
"""Share of held-out tissue the threshold may drop."""

TISSUE_SHARE = 0.4
"""Share of a patch inside the tissue's contours from which it counts as tissue; below, it is an edge
patch, mostly glass, and neither side of the training claims it."""

FOLDS = 5
"""Parts of the cross-validation, whole groups each."""

ASSUMED_MPP = 0.5
"""Micrometres per px of a slide that does not say: texture examples tolerate a wrong scale."""

INKS = ((25, 40, 130), (15, 90, 50), (20, 20, 25), (150, 25, 40))
"""Pens found on slides: blue, green, black, red (RGB)."""


@dataclasses.dataclass(frozen=True, slots=True)
class Example:
    """One square with its truth."""

    histogram: npt.NDArray[np.float64]
    is_debris: bool
    kind: str
    group: str


def slide_examples(entry: CatalogueEntry, rng: np.random.Generator) -> Iterator[Example]:
    """Yield tissue and debris of one slide."""
    group = entry.slide.patient
    with open_slide(entry.path, mpp=entry.mpp) as reader:
        tissue = tissue_of(reader)
        patches = list(_tissue_patches(reader, tissue))
        glass = list(_glass_patches(reader, tissue, rng))
    for patch in patches:
        yield Example(texture_histogram(patch), False, "tissue", group)
        yield Example(texture_histogram(_compressed(patch, rng)), False, "tissue", group)
    for patch in _sample(patches, 60, rng):
        yield Example(texture_histogram(_defocused(patch, rng)), True, "defocus", group)
        yield Example(texture_histogram(_inked(patch, rng)), True, "ink on tissue", group)
    for patch in _sample(glass, 60, rng):
        yield Example(texture_histogram(patch), True, "glass", group)
        yield Example(texture_histogram(_inked(patch, rng)), True, "ink on glass", group)
        yield Example(texture_histogram(_dusty(patch, rng)), True, "dust", group)
    for _ in range(20):
        yield Example(texture_histogram(_noise(rng)), True, "noise", group)


def _with_mpp(entry: CatalogueEntry) -> CatalogueEntry:
    """Return an entry whose mpp is `ASSUMED_MPP` where neither file nor labels state one."""
    try:
        open_slide(entry.path, mpp=entry.mpp).close()
    except BadSlide:
        return dataclasses.replace(entry, mpp=ASSUMED_MPP)
    return entry


def tile_examples(data: Path) -> Iterator[Example]:
    """Yield the tissue of the tiles."""
    with (data / "tiles" / "labels.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            picture = cv2.imread(str(data / "tiles" / row["file"]))
            if picture is not None:
                patch = np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), np.uint8)
                if not white_patches(patch[None])[0]:
                    yield Example(
                        texture_histogram(patch), False, f"{row['set']} tile", row["group"]
                    )


def _tissue_patches(reader: SlideReader, tissue: Tissue) -> Iterator[Rgb]:
    side = patch_side_px_of(reader.mpp)
    corners = patch_corners(tissue, slide_size=reader.size, side_px=side)
    mask = _coarse_mask(reader, tissue)
    for shift in ((0, 0), (side // 2, 0), (0, side // 2), (side // 2, side // 2)):
        for x, y in corners + shift:
            on_tissue = mask[y // 16 : (y + side) // 16, x // 16 : (x + side) // 16].sum() / 255
            patch = reader.region(Box(x, y, x + side, y + side), side_px=THUMBNAIL_PX)
            if on_tissue >= TISSUE_SHARE * (side / 16) ** 2 and not white_patches(patch[None])[0]:
                yield patch


def _coarse_mask(reader: SlideReader, tissue: Tissue) -> npt.NDArray[np.uint8]:
    coarse = Size(reader.size.width // 16, reader.size.height // 16)
    return tissue.mask_at(coarse, slide_size=reader.size)


def _glass_patches(reader: SlideReader, tissue: Tissue, rng: np.random.Generator) -> list[Rgb]:
    side = patch_side_px_of(reader.mpp)
    mask = _coarse_mask(reader, tissue)
    patches = []
    for _ in range(300):
        x = int(rng.integers(0, max(1, reader.size.width - side)))
        y = int(rng.integers(0, max(1, reader.size.height - side)))
        if not mask[y // 16 : (y + side) // 16, x // 16 : (x + side) // 16].any():
            patches.append(reader.region(Box(x, y, x + side, y + side), side_px=THUMBNAIL_PX))
    return patches[:60]


def _sample(patches: list[Rgb], count: int, rng: np.random.Generator) -> list[Rgb]:
    chosen = rng.permutation(len(patches))[:count]
    return [patches[i] for i in chosen]


def _compressed(patch: Rgb, rng: np.random.Generator) -> Rgb:
    quality = int(rng.integers(30, 95))
    _, data = cv2.imencode(".jpg", patch, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)


def _defocused(patch: Rgb, rng: np.random.Generator) -> Rgb:
    blurred = cv2.GaussianBlur(patch, (0, 0), float(rng.uniform(3, 9))).astype(np.float64)
    noisy = blurred + rng.normal(0, rng.uniform(0, 1.5), patch.shape)
    return _compressed(np.clip(noisy, 0, 255).astype(np.uint8), rng)


def _inked(patch: Rgb, rng: np.random.Generator) -> Rgb:
    """Return the patch under strokes of one pen until half of it is covered."""
    side = patch.shape[0]
    cover = np.zeros(patch.shape[:2], np.uint8)
    while (cover > 0).mean() < rng.uniform(0.6, 0.95):
        points = rng.integers(-side // 4, side + side // 4, (3, 2)).astype(np.int32)
        cv2.polylines(cover, [points], False, (255,), int(rng.integers(25, 90)), cv2.LINE_AA)
    weight = cv2.GaussianBlur(cover, (0, 0), 2.0)[..., None] / 255 * rng.uniform(0.85, 1.0)
    ink = np.array(INKS[rng.integers(len(INKS))]) + rng.normal(0, 2.0, patch.shape)
    return _compressed(np.clip(patch * (1 - weight) + ink * weight, 0, 255).astype(np.uint8), rng)


def _dusty(patch: Rgb, rng: np.random.Generator) -> Rgb:
    """Return glass with dark specks and fibres a little out of focus."""
    dust = patch.copy()
    for _ in range(int(rng.integers(5, 40))):
        centre = tuple(int(v) for v in rng.integers(0, patch.shape[0], 2))
        shade = int(rng.integers(20, 140))
        cv2.circle(dust, centre, int(rng.integers(1, 14)), (shade, shade, shade), -1, cv2.LINE_AA)
    fibre = rng.integers(0, patch.shape[0], (4, 2)).astype(np.int32)
    cv2.polylines(dust, [fibre], False, (60, 60, 70), int(rng.integers(2, 8)), cv2.LINE_AA)
    return _compressed(np.asarray(cv2.GaussianBlur(dust, (0, 0), 1.2), np.uint8), rng)


def _noise(rng: np.random.Generator) -> Rgb:
    """Return a flat shade under sensor noise: the stage, a cover slip's edge, a dead tile."""
    shape = (THUMBNAIL_PX, THUMBNAIL_PX, 3)
    flat = rng.uniform(0, 235) + rng.normal(0, rng.uniform(0.5, 12), shape)
    return _compressed(np.clip(flat, 0, 255).astype(np.uint8), rng)


def fitted(features: npt.NDArray[np.float64], truth: npt.NDArray[np.bool_]) -> DebrisModel:
    """Return a model of histograms (n, 128) and truth (n,), threshold 0.5."""
    mean, scale = features.mean(axis=0), features.std(axis=0)
    scale[scale < 1e-9] = 1.0
    regression = LogisticRegression(C=0.05, max_iter=5000, class_weight="balanced")
    regression.fit((features - mean) / scale, truth)
    return DebrisModel(mean, scale, regression.coef_[0], float(regression.intercept_[0]), 0.5)


def held_out(examples: list[Example]) -> npt.NDArray[np.float64]:
    """Return the probability (n,) of debris of each example by a model that never saw its group."""
    features, truth = _arrays(examples)
    groups = [example.group for example in examples]
    found = np.zeros(len(examples))
    for train, test in GroupKFold(FOLDS).split(features, truth, groups):
        found[test] = fitted(features[train], truth[train]).probabilities(features[test])
    return found


def _arrays(examples: list[Example]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    features = np.stack([example.histogram for example in examples])
    return features, np.array([example.is_debris for example in examples])


def report(
    examples: list[Example], found: npt.NDArray[np.float64], threshold: float
) -> dict[str, object]:
    """Return counts and held-out shares dropped, by kind and by group of slides."""
    kinds = np.array([example.kind for example in examples])
    groups = np.array([example.group for example in examples])
    _, truth = _arrays(examples)
    is_right = (found > threshold) == truth
    slide_groups = sorted({e.group for e in examples if not e.kind.endswith("tile")})
    return {
        "counts": {str(k): int((kinds == k).sum()) for k in np.unique(kinds)},
        "share_dropped_by_kind": {
            str(k): round(float((found > threshold)[kinds == k].mean()), 4)
            for k in np.unique(kinds)
        },
        "accuracy_by_case": {
            g: round(float(is_right[groups == g].mean()), 4) for g in slide_groups
        },
        "accuracy": round(float(is_right.mean()), 4),
        "false_drop_rate": round(float((found > threshold)[~truth].mean()), 5),
        "groups": len(np.unique(groups)),
    }


def main() -> None:
    """Train, test on held-out groups, and write the model with its record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=MODEL_PATH)
    parser.add_argument("--rng-seed", type=int, default=7)
    options = parser.parse_args()
    rng = np.random.default_rng(options.rng_seed)
    catalogue = matched(options.data / "slides", read_labels(options.data / "slides.csv"))
    entries = [_with_mpp(entry) for entry in catalogue.entries]
    examples = [e for entry in entries for e in slide_examples(entry, rng)]
    examples += tile_examples(options.data)
    found = held_out(examples)
    features, truth = _arrays(examples)
    threshold = max(0.5, float(np.quantile(found[~truth], 1 - MAX_FALSE_DROPS)))
    model = dataclasses.replace(fitted(features, truth), threshold=round(threshold, 6))
    record = {
        "what": f"debris against tissue, {LBP_BINS}-bin LBP(P=8, R=1, ror) histograms of 256 px patches",
        "made_by": f"python -m sish_cluster.encoder.training.artifacts --rng-seed {options.rng_seed}",
        "data": "patches of 10 H&E slides (Patoloji Atlasi CC BY 4.0, OpenSlide CMU-1, one TCGA),"
        " atlas and LC25000 tiles; debris made from the same slides",
        "data_digest": digest_of(features.tobytes(), truth.tobytes()),
        "held_out": report(examples, found, threshold),
        "digest": model.digest,
        "threshold": model.threshold,
        "bias": model.bias,
        "mean": model.mean.tolist(),
        "scale": model.scale.tolist(),
        "weights": model.weights.tolist(),
    }
    options.out.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    print(json.dumps(record["held_out"], indent=1))


if __name__ == "__main__":
    main()
