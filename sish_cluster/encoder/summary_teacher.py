"""The vector a summary is measured by: what is known of the slide as a whole.

Where slide vectors of other models are given, they are concatenated and brought to the length of a patch
embedding by their principal components; where none are, the teacher is the mean embedding of all patches.

Source
------
WSISum, "Knowledge distillation": slide vectors of several models, PCA to 768. Deviation 1: fewer slides than
components leave the last components 0. Deviation 2: the mean embedding where there are no vectors.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from sish_cluster.core.errors import BadRequest

Vectors = Mapping[str, npt.NDArray[np.float32]]
"""Slide vectors of one model, by slide name."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Projection:
    """Principal components of concatenated slide vectors of D numbers.

    Parameters
    ----------
    mean
        float32 (D,).
    axes
        float32 (width, D), orthonormal; rows beyond the slides' rank are 0.
    """

    mean: npt.NDArray[np.float32]
    axes: npt.NDArray[np.float32]

    def of(self, vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return the components (n, width) of vectors (n, D)."""
        if vectors.shape[-1] != len(self.mean):
            raise BadRequest(
                f"the model was trained against slide vectors of {len(self.mean)} numbers; got"
                f" {vectors.shape[-1]}: give the same --teacher files in the same order"
            )
        return np.asarray((vectors - self.mean) @ self.axes.T, np.float32)


def fitted_projection(vectors: npt.NDArray[np.float32], width: int) -> Projection:
    """Return the first ``width`` principal components of slide vectors (n, D), n >= 2."""
    if len(vectors) < 2:
        raise BadRequest(f"principal components need at least 2 slides; got {len(vectors)}")
    mean = vectors.mean(axis=0, dtype=np.float64)
    _, spread, axes = np.linalg.svd(vectors - mean, full_matrices=False)
    used = axes[: min(width, int((spread > 1e-6 * spread[0]).sum()))]
    # A component's sign is arbitrary: the largest weight of each is made positive.
    used = used * np.sign(used[np.arange(len(used)), np.abs(used).argmax(axis=1)])[:, None]
    padded = np.zeros((width, vectors.shape[1]), np.float32)
    padded[: len(used)] = used
    return Projection(mean.astype(np.float32), padded)


def joined(names: Sequence[str], models: Sequence[Vectors]) -> npt.NDArray[np.float32]:
    """Return the concatenated vectors (n, D) of slides, models in the order given.

    Raises
    ------
    BadRequest
        If a model lacks a slide.
    """
    for number, vectors in enumerate(models, 1):
        missing = [name for name in names if name not in vectors]
        if missing:
            raise BadRequest(
                f"teacher file {number} has no vector of slide {missing[0]!r} and"
                f" {len(missing) - 1} more; give one per slide, or leave --teacher out"
            )
    return np.stack([np.concatenate([vectors[name] for vectors in models]) for name in names])


def mean_teacher(features: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the mean embedding (d,) of a slide's patches (n, d)."""
    return np.asarray(features.mean(axis=0, dtype=np.float64), np.float32)
