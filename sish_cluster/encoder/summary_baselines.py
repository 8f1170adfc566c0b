"""What a summary is compared with: chosen at random, by cluster, by entropy, by place.

All four take what describes the patches, either embeddings (n, d) or small pictures (n, side, side, 3), and return
ascending rows; all depend on their arguments alone.

Source
------
WSISum, "Comparison": the baselines are named there, their details are ours.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits

from sish_cluster.core.errors import BadRequest

Rows = npt.NDArray[np.int64]
"""Row numbers of patches, ascending."""

Described = npt.NDArray[np.generic]
"""Embeddings (n, d), or pictures uint8 (n, side, side, 3)."""

Coords = npt.NDArray[np.generic]
"""Where the patches lie, (n, 2)."""

GREY_BINS = 64
"""Bins of the histogram whose entropy is taken: 256 of a small picture would be mostly empty."""


def random_rows(described: Described, coords: Coords, n: int, rng_seed: int) -> Rows:
    """Return ``n`` rows drawn evenly, all where there are no more."""
    count = _checked(described, coords, n)
    drawn = np.random.Generator(np.random.Philox(rng_seed)).permutation(count)[:n]
    return np.sort(drawn)


def cluster_rows(described: Described, coords: Coords, n: int, rng_seed: int) -> Rows:
    """Return the patch nearest each of ``n`` k-means centres of embeddings, or of mean colours."""
    count = _checked(described, coords, n)
    points = described.astype(np.float64)
    if described.ndim == 4:
        points = np.concatenate([points.mean(axis=(1, 2)), points.std(axis=(1, 2))], axis=1)
    return _representatives(points, min(n, count), rng_seed)


def entropy_rows(described: Described, coords: Coords, n: int, rng_seed: int) -> Rows:
    """Return the ``n`` patches of highest entropy: of a picture's grey values, or of an embedding's.

    The entropy of an embedding is that of its absolute values as shares of their sum: patches that
    speak with many voices come first. Ties go to the lower row; the seed changes nothing.
    """
    count = _checked(described, coords, n)
    shares = _grey_shares(described) if described.ndim == 4 else _value_shares(described)
    logarithms = np.log2(shares, where=shares > 0, out=np.zeros_like(shares))
    entropies = -(shares * logarithms).sum(axis=1)
    return np.sort(np.argsort(-entropies, kind="stable")[: min(n, count)]).astype(np.int64)


def location_rows(described: Described, coords: Coords, n: int, rng_seed: int) -> Rows:
    """Return the patch nearest each of ``n`` k-means centres of the places: spread over the slide."""
    count = _checked(described, coords, n)
    return _representatives(coords.astype(np.float64), min(n, count), rng_seed)


def _checked(described: Described, coords: Coords, n: int) -> int:
    if n < 1 or len(described) < 1 or coords.shape != (len(described), 2):
        raise BadRequest(
            f"a summary takes n >= 1 of some patches with their places (patches, 2); got n = {n},"
            f" {described.shape} and {coords.shape}"
        )
    return len(described)


def _representatives(points: npt.NDArray[np.float64], n: int, rng_seed: int) -> Rows:
    """Return ``n`` rows: the nearest to each centre, then, where points coincide, the lowest unused."""
    clusters = min(n, len(np.unique(points, axis=0)))
    with threadpool_limits(limits=1):
        fit = KMeans(clusters, n_init=1, random_state=rng_seed).fit(points)
    chosen = set()
    for label, centre in enumerate(fit.cluster_centers_):
        members = np.flatnonzero(fit.labels_ == label)
        chosen.add(int(members[((points[members] - centre) ** 2).sum(axis=1).argmin()]))
    unused = (row for row in range(len(points)) if row not in chosen)
    return np.array(sorted([*chosen, *(next(unused) for _ in range(n - len(chosen)))]), np.int64)


def _grey_shares(pictures: Described) -> npt.NDArray[np.float64]:
    grey = pictures.astype(np.float64).mean(axis=3).reshape(len(pictures), -1)
    bins = (grey * GREY_BINS / 256).astype(np.int64)
    counts = [np.bincount(row, minlength=GREY_BINS) for row in bins]
    return np.asarray(np.array(counts) / bins.shape[1], np.float64)


def _value_shares(embeddings: Described) -> npt.NDArray[np.float64]:
    sizes = np.abs(embeddings.astype(np.float64))
    sums = np.maximum(sizes.sum(axis=1, keepdims=True), np.finfo(np.float64).tiny)
    return np.asarray(sizes / sums, np.float64)
