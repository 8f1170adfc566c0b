"""Squares that are not worth encoding: empty glass, and debris.

Two tests, the cheap one first. A patch that is almost all white is glass. Of the rest, a small
classifier looks at the histogram of local binary patterns: tissue in focus has a texture that ink,
dust, defocus and noise lack. The classifier is a logistic regression kept as plain numbers in
``artifact_model.json`` (`sish_cluster.encoder.training.artifacts` made it and wrote there what from),
with a threshold set so that next to no tissue is dropped; it can be switched off.

Source
------
SISH, Methods, "Artifact removal": white test and LBP with a logistic regression. Deviation 1: the
model is ours (the published one is a pickle) and its threshold favours keeping tissue.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from sish_cluster.core.errors import BadWeights
from sish_cluster.core.seams import Pixels
from sish_cluster.core.slide import digest_of
from sish_cluster.encoder.image_file import Rgb

Flags = npt.NDArray[np.bool_]
"""One answer per patch, shape (n,)."""

WHITE_ABOVE = 235
"""Grey value, 0..255, above which a pixel is glass (published)."""

WHITE_SHARE = 0.9
"""Share of glass above which a patch is white (published)."""

LBP_BINS = 128
"""Bins of the texture histogram over the pattern values 0..255 (published)."""

MODEL_PATH = Path(__file__).with_name("artifact_model.json")
"""The model that is shipped."""

_DIAGONAL = 70711
"""cos 45 degrees in units of 1e-5: diagonal neighbours lie between pixels, at radius 1."""

_AXIAL = ((0, 1), (-1, 0), (0, -1), (1, 0))
_ROTATIONS = np.array([[(v >> r | v << (8 - r)) & 255 for r in range(8)] for v in range(256)])
_LEAST_ROTATION = _ROTATIONS.min(axis=1)
"""Each pattern's smallest rotation: the method called ``ror``."""


@dataclasses.dataclass(frozen=True, slots=True)
class ArtifactSettings:
    """What is dropped."""

    white_above: int = WHITE_ABOVE
    """Grey value, 0..255, above which a pixel is glass."""
    white_share: float = WHITE_SHARE
    """Share of glass above which a patch is dropped; 1 keeps all."""
    drops_debris: bool = True
    """Whether the debris classifier runs; off for stains it was not trained on."""


@dataclasses.dataclass(frozen=True, eq=False)
class DebrisModel:
    """A logistic regression over standardised texture histograms.

    Parameters
    ----------
    mean, scale
        float64 (128,): standardisation.
    weights
        float64 (128,); positive towards debris.
    bias
        Added to the weighted sum.
    threshold
        Probability, 0..1, above which a patch is debris.
    """

    mean: npt.NDArray[np.float64]
    scale: npt.NDArray[np.float64]
    weights: npt.NDArray[np.float64]
    bias: float
    threshold: float

    def probabilities(self, histograms: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return the probability (n,) of debris of histograms (n, 128)."""
        standard = (histograms - self.mean) / self.scale
        # einsum, not matmul: its order of additions does not depend on threads or rows
        odds = np.einsum("nb,b->n", standard, self.weights) + self.bias
        return np.asarray(1.0 / (1.0 + np.exp(-np.clip(odds, -50, 50))), np.float64)

    @property
    def digest(self) -> str:
        """Hex digest of the numbers: part of what fixes a mosaic."""
        arrays = (self.mean, self.scale, self.weights, np.array([self.bias, self.threshold]))
        return digest_of(*(array.astype("<f8").tobytes() for array in arrays))


def white_patches(thumbnails: Pixels, settings: ArtifactSettings = ArtifactSettings()) -> Flags:
    """Return which patches are glass.

    Parameters
    ----------
    thumbnails
        uint8 (n, side, side, 3): patches at 256 px.
    settings
        The bounds.
    """
    shares = [(_grey(patch) > settings.white_above).mean() for patch in thumbnails]
    return np.array(shares, np.float64) > settings.white_share


def debris_patches(thumbnails: Pixels, model: DebrisModel | None = None) -> Flags:
    """Return which patches (n, side, side, 3) are debris, by the shipped model or another."""
    model = model or shipped_model()
    if not len(thumbnails):
        return np.zeros(0, np.bool_)
    histograms = np.stack([texture_histogram(patch) for patch in thumbnails])
    return model.probabilities(histograms) > model.threshold


def texture_histogram(patch: Rgb) -> npt.NDArray[np.float64]:
    """Return the histogram of local binary patterns of a patch.

    Parameters
    ----------
    patch
        uint8 (h, w, 3), h and w at least 3.

    Returns
    -------
    float64 (128,): shares of the patterns, two values a bin, summing to 1.
    """
    counts = np.bincount(binary_patterns(_grey(patch)).ravel(), minlength=256)
    return np.asarray(counts.reshape(LBP_BINS, -1).sum(axis=1) / counts.sum(), np.float64)


def binary_patterns(grey: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return the rotation-invariant local binary pattern (P=8, R=1) of every inner pixel.

    Parameters
    ----------
    grey
        uint8 (h, w).

    Returns
    -------
    uint8 (h - 2, w - 2).

    Notes
    -----
    Bit p is set where the neighbour at angle 45 p degrees is at least as bright as the centre; a
    diagonal neighbour is interpolated from four pixels, in whole numbers, so that flat areas are
    ties on every machine.
    """
    values = grey.astype(np.int32)
    height, width = values.shape

    def shifted(dy: int, dx: int) -> npt.NDArray[np.int32]:
        return values[1 + dy : height - 1 + dy, 1 + dx : width - 1 + dx]

    centre = shifted(0, 0)
    pattern = np.zeros(centre.shape, np.uint8)
    for axis, (dy, dx) in enumerate(_AXIAL):
        ey, ex = _AXIAL[(axis + 1) % 4]
        pattern |= (shifted(dy, dx) >= centre).astype(np.uint8) << (2 * axis)
        sides = shifted(dy, dx) + shifted(ey, ex)
        diagonal = (100_000 - _DIAGONAL) * sides + _DIAGONAL * shifted(dy + ey, dx + ex)
        is_brighter = diagonal >= (200_000 - _DIAGONAL) * centre
        pattern |= is_brighter.astype(np.uint8) << (2 * axis + 1)
    return np.asarray(_LEAST_ROTATION[pattern], np.uint8)


@functools.lru_cache(maxsize=1)
def shipped_model() -> DebrisModel:
    """Return the model that is shipped."""
    return read_model(MODEL_PATH)


def read_model(path: Path) -> DebrisModel:
    """Return the model of a JSON file.

    Raises
    ------
    BadWeights
        If the file is missing, is not such a model, or its digest does not fit its numbers.
    """
    try:
        record = json.loads(path.read_text("utf-8"))
        mean, scale, weights = (
            np.array(record[name], np.float64) for name in ("mean", "scale", "weights")
        )
        model = DebrisModel(
            mean, scale, weights, bias=float(record["bias"]), threshold=float(record["threshold"])
        )
        stated = str(record["digest"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadWeights(f"{path}: is not a debris model ({error!r}); install it again") from error
    shapes = {mean.shape, scale.shape, weights.shape}
    if shapes != {(LBP_BINS,)} or model.digest != stated:
        raise BadWeights(
            f"{path}: its numbers have digest {model.digest}, but it states {stated}; install it again"
        )
    return model


def _grey(patch: Rgb) -> npt.NDArray[np.uint8]:
    return np.asarray(cv2.cvtColor(patch, cv2.COLOR_RGB2GRAY), np.uint8)
