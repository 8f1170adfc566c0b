"""Which patches stand for a slide: a few from every colour, spread over the slide.

First stage: k-means on the colour histograms of all patches, so that every kind of tissue gets its
share. Second stage: inside each colour cluster k-means on the places, and the real patch nearest to each
centre is a member of the mosaic.

Source
------
SISH, Methods, "Mosaic generation" (after Yottixel). Deviation 1: members are real patches, not centroids cast to
integers. Deviation 2: small clusters give `TwoStageSettings.min_members` members instead of all of them
or one, so that the mosaic of a small slide stays small and no kind of tissue hangs on one patch.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits

from sish_cluster.core.errors import BadRequest
from sish_cluster.core.seams import Pixels

COLOUR_BINS = 768
"""256 bins for each of red, green and blue (published)."""

Histograms = npt.NDArray[np.float32]
"""Colour histograms, shape (n, 768); another first stage has summaries of other lengths."""

Rows = npt.NDArray[np.int64]
"""Row numbers of patches, ascending."""


@dataclasses.dataclass(frozen=True, slots=True)
class TwoStageSettings:
    """How many patches a mosaic has."""

    colour_clusters: int = 9
    """Kinds of tissue (published); fewer where there are fewer distinct patches."""
    share: float = 0.05
    """Members of a colour cluster per patch of it (published)."""
    min_members: int = 3
    """Members of a colour cluster at least, all of it where it is smaller."""
    published: bool = False
    """Whether a cluster of n gives int(share n) members, n where that is 0, as published."""

    def __post_init__(self) -> None:
        if self.colour_clusters < 1 or not 0 < self.share <= 1 or self.min_members < 1:
            raise BadRequest(
                "a mosaic needs colour_clusters >= 1, 0 < share <= 1 and min_members >= 1; got"
                f" {self.colour_clusters}, {self.share} and {self.min_members}"
            )

    def members_of(self, size: int) -> int:
        """Return how many members a colour cluster of ``size`` >= 1 patches gives.

        Examples
        --------
        >>> [TwoStageSettings().members_of(n) for n in (1, 3, 40, 100)]
        [1, 3, 3, 5]
        >>> [TwoStageSettings(published=True).members_of(n) for n in (19, 20, 100)]
        [19, 1, 5]
        """
        if self.published:
            return int(self.share * size) or size
        return min(size, max(self.min_members, math.floor(self.share * size + 0.5)))


class TwoStageSelector:
    """The mosaic of the paper: k-means on colour, then on place.

    The answer depends on the patches and the seed alone: the arithmetic runs on one thread, so that
    its sums have one order.

    Parameters
    ----------
    settings
        How many patches are chosen of each cluster.
    patches
        Most patches of a mosaic, shared among the clusters by their size; None goes by ``settings``.
    summarise
        What the first stage clusters: patches (n, side, side, 3) -> (n, d); colour histograms by default.
    """

    def __init__(
        self,
        settings: TwoStageSettings = TwoStageSettings(),
        *,
        patches: int | None = None,
        summarise: Callable[[Pixels], Histograms] | None = None,
    ) -> None:
        self.settings = settings
        self._patches = patches
        self._summarise = summarise or colour_histograms

    def summaries_of(self, thumbnails: Pixels) -> Histograms:
        """Return what `chosen_from` needs of patches (n, side, side, 3): colour histograms (n, 768)."""
        return self._summarise(thumbnails)

    def chosen(
        self, thumbnails: Pixels, corners: npt.NDArray[np.integer], *, rng_seed: int
    ) -> Rows:
        """Return the rows of the mosaic, ascending.

        Parameters
        ----------
        thumbnails
            uint8 (n, side, side, 3), n >= 1.
        corners
            (n, 2), level-0 pixels.
        rng_seed
            Seed of both k-means stages.
        """
        return self.chosen_from(self._summarise(thumbnails), corners, rng_seed=rng_seed)

    def chosen_from(
        self, histograms: Histograms, corners: npt.NDArray[np.integer], *, rng_seed: int
    ) -> Rows:
        """Return the rows of the mosaic from summaries (n, d), ascending."""
        if not 1 <= len(histograms) == len(corners):
            raise BadRequest(
                f"a mosaic is chosen from n >= 1 patches with n corners; got {len(histograms)}"
                f" patches and {len(corners)} corners"
            )
        places = np.asarray(corners, np.float64)
        chosen: list[int] = []
        with threadpool_limits(limits=1):
            colours, _ = _clusters(histograms, self.settings.colour_clusters, rng_seed)
            _, sizes = np.unique(colours, return_counts=True)
            counts = self._counts_of(sizes)
            for colour, count in zip(np.unique(colours), counts, strict=True):
                rows = np.flatnonzero(colours == colour)
                if count:
                    chosen += _spread(rows, places[rows], count, rng_seed)
        return np.array(sorted(chosen), np.int64)

    def _counts_of(self, sizes: npt.NDArray[np.int64]) -> list[int]:
        """Return the members of each cluster of some sizes."""
        counts = [self.settings.members_of(int(size)) for size in sizes]
        if self._patches is None or sum(counts) == self._patches:
            return counts
        return shares_of(sizes, min(self._patches, int(sizes.sum())))


def shares_of(sizes: npt.NDArray[np.int64], total: int) -> list[int]:
    """Return ``total`` shared among clusters by their size, the largest remainders rounded up.

    Examples
    --------
    >>> shares_of(np.array([60, 30, 10]), 7)
    [4, 2, 1]
    """
    quotas = sizes * total / sizes.sum()
    shares = np.floor(quotas).astype(np.int64)
    order = np.argsort(shares - quotas, kind="stable")
    shares[order[: total - int(shares.sum())]] += 1
    return [int(share) for share in shares]


def colour_histograms(thumbnails: Pixels) -> Histograms:
    """Return the colour histograms of patches.

    Parameters
    ----------
    thumbnails
        uint8 (n, side, side, 3).

    Returns
    -------
    float32 (n, 768): red, green, blue; each 256 bins of shares that sum to 1.
    """
    histograms = np.zeros((len(thumbnails), COLOUR_BINS), np.float32)
    for row, patch in zip(histograms, thumbnails, strict=True):
        counts = [np.bincount(patch[..., c].ravel(), minlength=256) for c in range(3)]
        row[:] = np.concatenate(counts) / (patch.shape[0] * patch.shape[1])
    return histograms


def _clusters(
    points: npt.NDArray[np.floating], count: int, rng_seed: int
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.floating]]:
    """Return k-means labels (n,) and centres, with no more clusters than distinct points."""
    count = min(count, len(np.unique(points, axis=0)))
    fit = KMeans(count, n_init=1, random_state=rng_seed).fit(points)
    return fit.labels_, fit.cluster_centers_


def _spread(rows: Rows, places: npt.NDArray[np.float64], count: int, rng_seed: int) -> list[int]:
    """Return ``count`` of ``rows``: the real patch nearest each centre of k-means on the places."""
    if count >= len(rows):
        return [int(row) for row in rows]
    labels, centres = _clusters(places, count, rng_seed)
    nearest = []
    for label, centre in enumerate(centres):
        members = np.flatnonzero(labels == label)
        distances = ((places[members] - centre) ** 2).sum(axis=1)
        nearest.append(int(rows[members[distances.argmin()]]))
    return nearest
