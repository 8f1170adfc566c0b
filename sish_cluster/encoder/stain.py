"""Stain normalisation: slides of different laboratories brought to one colour before anything looks at them.

A slide's stain is measured once, on a few of its patches together, and every patch of it is mapped with
the same numbers: measured patch by patch, a patch of muscle and one of nuclei would be given the same
colour. A patch that comes alone (a tile, a picture sent to the service) is measured on its own. Which method ran
is part of the encoder fingerprint.

Source
------
Macenko et al., "A method for normalizing histology slides for quantitative analysis" (2009): stain vectors are the
extreme directions in the plane of the two main axes of optical density. Reinhard et al., "Color transfer between
images" (2001): means and deviations in l-alpha-beta are those of a reference. Deviation 1: a pixel counts as
stained by the mean of its three optical densities; asked of each of them, pale eosin, which hardly takes any
red, would be left out, and with it one of the two directions.
"""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
import numpy.typing as npt

from sish_cluster.core.errors import BadRequest
from sish_cluster.core.seams import Pixels

METHODS = ("macenko", "reinhard")
"""Names of the methods."""

SAMPLE_PATCHES = 16
"""Patches of a slide its stain is measured on."""

SAMPLE_PX = 128
"""Side at which they are read, px: colour needs no detail."""

MIN_STAINED = 256
"""Stained pixels below which nothing is normalised: glass has no stain."""

LIGHT = 240.0
"""Intensity of glass, 0..255: optical density is measured against it."""

MIN_DENSITY = 0.15
"""Optical density below which a pixel counts as glass (published)."""

EXTREME = 1.0
"""Percentile taken for the extremes of angle and, from above, of concentration (published)."""

STAINS = np.array([[0.76, 0.554, 0.341], [0.124, 0.861, 0.493]])
"""Reference optical densities of haematoxylin and eosin in red, green and blue: those `stain_vectors` finds in
OpenSlide's sample CMU-1-Small-Region at 2 um per px."""

CONCENTRATIONS = np.array([2.29, 1.85])
"""Reference strong concentrations of both: the 99th percentiles of the same."""

LMS = np.array([[0.3811, 0.5783, 0.0402], [0.1967, 0.7244, 0.0782], [0.0241, 0.1288, 0.8444]])
"""RGB to cone responses (published)."""

LAB = np.diag([1 / math.sqrt(3), 1 / math.sqrt(6), 1 / math.sqrt(2)]) @ np.array(
    [[1, 1, 1], [1, 1, -2], [1, -1, 0]]
)
"""Logarithms of cone responses to l, alpha and beta (published)."""

TARGET_MEAN = np.array([-0.615, -0.06, 0.024])
"""Reference means of l, alpha and beta: those of OpenSlide's sample CMU-1-Small-Region, pixels in 0..1."""

TARGET_DEVIATION = np.array([0.316, 0.051, 0.014])
"""Reference deviations of the same."""

Values = npt.NDArray[np.float64]
"""Pixels as numbers, (n, 3)."""


class Stain(Protocol):
    """How the colours of one slide are mapped."""

    def applied(self, pixels: Pixels) -> Pixels:
        """Return patches uint8 (n, side, side, 3) in the reference's stain."""


class Unchanged:
    """Leaves colours as they were scanned."""

    def applied(self, pixels: Pixels) -> Pixels:
        """Return the patches as they are."""
        return pixels


class Macenko:
    """Maps concentrations of a slide's two stains onto the reference's stains.

    Parameters
    ----------
    stained
        Optical densities (n, 3) of stained pixels.
    """

    def __init__(self, stained: Values) -> None:
        self._stains = stain_vectors(stained)
        strong = np.percentile(_concentrations(stained, self._stains), 100 - EXTREME, axis=0)
        self._scale = CONCENTRATIONS / np.maximum(strong, 1e-6)

    def applied(self, pixels: Pixels) -> Pixels:
        """Return patches uint8 (n, side, side, 3) in the reference's stain."""
        densities = _densities(pixels.reshape(-1, 3))
        found = _concentrations(densities, self._stains) * self._scale
        return _as_pixels(LIGHT * np.exp(-found @ _unit(STAINS)), pixels.shape)


class Reinhard:
    """Gives l, alpha and beta of a slide the reference's means and deviations.

    Parameters
    ----------
    stained
        Stained pixels (n, 3), 0..255.
    """

    def __init__(self, stained: Values) -> None:
        values = _lab(stained)
        self._mean = values.mean(axis=0)
        self._scale = TARGET_DEVIATION / np.maximum(values.std(axis=0), 1e-6)

    def applied(self, pixels: Pixels) -> Pixels:
        """Return patches uint8 (n, side, side, 3) in the reference's stain."""
        values = (_lab(pixels.reshape(-1, 3)) - self._mean) * self._scale + TARGET_MEAN
        cones = 10.0 ** (values @ np.linalg.inv(LAB).T)
        return _as_pixels(255.0 * cones @ np.linalg.inv(LMS).T, pixels.shape)


def stain_of(method: str, sample: Pixels) -> Stain:
    """Return how the slide that patches were taken from is normalised.

    Parameters
    ----------
    method
        ``macenko``, ``reinhard``, or ``""`` for none.
    sample
        uint8 (n, side, side, 3): some of its patches.

    Raises
    ------
    BadRequest
        If there is no such method.
    """
    if not method:
        return Unchanged()
    if method not in METHODS:
        raise BadRequest(
            f"no stain normalisation is called {method!r}; there are {', '.join(METHODS)}",
            field="stain",
        )
    values = sample.reshape(-1, 3)
    densities = _densities(values)
    is_stained = densities.mean(axis=1) > MIN_DENSITY
    if int(is_stained.sum()) < MIN_STAINED:
        return Unchanged()
    if method == "macenko":
        return Macenko(densities[is_stained])
    return Reinhard(values[is_stained].astype(np.float64))


def stain_vectors(stained: Values) -> Values:
    """Return the unit optical densities (2, 3) of the two stains, haematoxylin (the redder) first.

    Parameters
    ----------
    stained
        Optical densities (n, 3) of stained pixels.
    """
    _, axes = np.linalg.eigh(np.cov(stained.T))
    plane = axes[:, [2, 1]]
    plane = plane * np.where(plane.sum(axis=0) < 0, -1.0, 1.0)
    along = stained @ plane
    angles = np.percentile(np.arctan2(along[:, 1], along[:, 0]), [EXTREME, 100 - EXTREME])
    directions = np.stack([np.cos(angles), np.sin(angles)], axis=1) @ plane.T
    ordered = directions[np.argsort(-directions[:, 0], kind="stable")]
    return _unit(np.maximum(ordered, 0.0))


def _unit(rows: Values) -> Values:
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9))


def _densities(values: npt.NDArray[np.uint8]) -> Values:
    return np.asarray(-np.log((values.astype(np.float64) + 1.0) / LIGHT))


def _concentrations(densities: Values, stains: Values) -> Values:
    return np.asarray(densities @ np.linalg.pinv(stains))


def _lab(values: npt.NDArray[np.generic]) -> Values:
    cones = np.maximum(values.astype(np.float64) / 255.0 @ LMS.T, 1.0 / 255.0)
    return np.asarray(np.log10(cones) @ LAB.T)


def _as_pixels(values: Values, shape: tuple[int, ...]) -> Pixels:
    return np.asarray(np.clip(np.rint(values), 0, 255), np.uint8).reshape(shape)
