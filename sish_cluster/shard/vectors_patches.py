"""Query patches as the direct scan reads them, and how far its products may be from the cosines they choose."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sish_cluster.core.embedding import COSINE_UNITS, MAX_DISTANCE_UNITS, Embeddings
from sish_cluster.shard import vectors_kernels as kernels
from sish_cluster.shard.vectors import SlideVectors
from sish_cluster.shard.vectors_lanes import LANES, TILE_VECTORS
from sish_cluster.shard.words import aligned_empty

MOST_LONE = 6
"""Patches beyond the last full panel that are multiplied one by one; more fill a panel well enough."""

HALF_ULP = 2.0**-24
"""Largest relative error of one rounding to single precision."""

Table = npt.NDArray[np.int64]


def margin_of(width: int) -> float:
    """Return how far a product of single precision can be from the cosine it stands for.

    The sum of n products of singles, added in any order, fused or not, is off by at most
    ``g(n) sum |a_i b_i|`` with ``g(n) = n u / (1 - n u)``, u = 2^-24, and by the inequality of Cauchy and
    Schwarz that sum is at most the product of the lengths. Rounding the query's numbers, the factor of the
    row, and its product with the sum adds three roundings; the exact cosine's own error, some 2^-50, fits
    five more with room to spare. Nothing underflows: numbers are multiples of 2^-47, lengths at most 2^23.

    Examples
    --------
    >>> 6e-5 < margin_of(1024) < 7e-5
    True
    """
    n = width + 8
    return n * HALF_ULP / (1.0 - n * HALF_ULP)


class Patches:
    """Query patches as kernels read them, and their bounds.

    Parameters
    ----------
    embeddings
        float16 (n, dimensions), n at most `PATCHES_PER_PASS`.
    min_cosine
        Least cosine of a candidate.
    """

    def __init__(self, embeddings: Embeddings, min_cosine: float) -> None:
        block = SlideVectors.of(embeddings)
        n, self.width = block.rows.shape
        self._least = np.array([min_cosine], np.float64)
        self.farthest: Table = np.full(n, MAX_DISTANCE_UNITS, np.int64)
        self._rows = block.rows.astype(np.float64)
        self._squares = np.empty(n, np.float64)
        kernels.squared(block.rows.ctypes.data, n, self.width, self._squares.ctypes.data)
        wide = LANES * TILE_VECTORS
        left = n % wide
        self._n_lone = left if left <= MOST_LONE else 0
        self._has_narrow = MOST_LONE < left <= LANES
        self._n_wide = n // wide + int(left > LANES)
        units = self._rows / np.sqrt(self._squares)[:, None]
        self._lone = aligned_empty((self._n_lone, self.width), np.float32)
        self._lone[:] = units[n - self._n_lone :]
        self._panels = self._packed(units[: n - self._n_lone])

    def __len__(self) -> int:
        return len(self.farthest)

    def fields(self) -> dict[int, int]:
        """Return the patches' words of a job; they live as long as this object."""
        return {
            kernels.WIDTH: self.width,
            kernels.N_PATCHES: len(self),
            kernels.N_WIDE: self._n_wide,
            kernels.N_LONE: self._n_lone,
            kernels.LONE: self._lone.ctypes.data,
            kernels.HAS_NARROW: int(self._has_narrow),
            kernels.PANELS: self._panels.ctypes.data,
            kernels.QUERIES: self._rows.ctypes.data,
            kernels.SQUARES: self._squares.ctypes.data,
            kernels.LEAST: self._least.ctypes.data,
            kernels.FARTHEST: self.farthest.ctypes.data,
        }

    def bounds(self) -> npt.NDArray[np.float32]:
        """Return the products from which a pair is looked at, by place in the panels; none beyond."""
        nearest = 1.0 - (self.farthest + 0.5) / COSINE_UNITS
        nearest[self.farthest >= MAX_DISTANCE_UNITS] = -1.0
        safe = np.maximum(nearest, self._least) - margin_of(self.width)
        bounds = aligned_empty((self._n_places + LANES,), np.float32)
        bounds[:] = np.inf
        bounds[: len(self)] = np.nextafter(safe.astype(np.float32), np.float32(-np.inf))
        return bounds

    @property
    def _n_places(self) -> int:
        n_vectors: int = TILE_VECTORS * self._n_wide + int(self._has_narrow)
        return LANES * n_vectors

    def _packed(self, units: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
        """Return panels: for each group of patches, number by number, the numbers of all of them."""
        padded = np.zeros((self._n_places, self.width), np.float32)
        padded[: len(units)] = units
        packed = aligned_empty((padded.size,), np.float32)
        wide, done = LANES * TILE_VECTORS, 0
        for first in range(0, self._n_places, wide):
            panel = padded[first : first + wide].T
            packed[done : done + panel.size] = panel.reshape(-1)
            done += panel.size
        return packed
