"""The integer key of a patch: three floor-pooled sums of its codeword ranks.

Source
------
SISH (Chen et al., Nature Biomedical Engineering 2022), "Index generation"; the floor at every
pooling stage is what the published databases contain.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

from sish_cluster.core.errors import BadKey

KEY_BITS = 50
"""Bits of the key universe: the largest key, 812,832,512,130,048, is below 2**50."""

UNIVERSE = 1 << KEY_BITS
"""Number of keys: every key k satisfies ``0 <= k < UNIVERSE``."""

COARSE_UNIT = 10**11
"""One coarse unit: the weight of the third stage's sum in a key."""

LATENT_SIDE = 64
"""Rows and columns of a latent."""

CODEBOOK_SIZE = 128
"""Codewords of the codebook; ranks are 0..127."""

STAGE_WEIGHTS = (1, 10**6, COARSE_UNIT)
"""Weights of the stage sums s1, s2, s3 in the key."""

Keys = npt.NDArray[np.uint64]
"""Keys, shape (n,), dtype uint64, each ``0 <= key < UNIVERSE``."""


def key_of(ranks: npt.NDArray[np.integer]) -> int:
    """Return the key m of one latent given as codeword ranks.

    Parameters
    ----------
    ranks
        Shape (64, 64), integers 0..127: the semantic rank of each codeword.

    Returns
    -------
    int
        ``s1 + 10**6 * s2 + 10**11 * s3``, s_i being the sum of the grid after i poolings.

    Raises
    ------
    BadKey
        If the shape or a rank is out of bounds.

    Examples
    --------
    >>> key_of(np.full((64, 64), 127)) == 127 * 6_400_256_001_024 < UNIVERSE
    True
    """
    return int(keys_of(np.asarray(ranks)[None])[0])


def keys_of(ranks: npt.NDArray[np.integer]) -> Keys:
    """Return the keys of many latents; see `key_of`.

    Parameters
    ----------
    ranks
        Shape (n, 64, 64), integers 0..127.

    Returns
    -------
    Keys
        Shape (n,).
    """
    grid = _checked_ranks(ranks)
    keys = np.zeros(len(grid), dtype=np.int64)
    for weight in STAGE_WEIGHTS:
        grid = _pooled(grid)
        keys += weight * grid.sum(axis=(1, 2))
    return keys.astype(np.uint64)


def _checked_ranks(ranks: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
    shape = (LATENT_SIDE, LATENT_SIDE)
    if ranks.ndim != 3 or ranks.shape[1:] != shape or not np.issubdtype(ranks.dtype, np.integer):
        raise BadKey(
            f"a latent is an integer grid of {shape}; found {ranks.dtype} of shape {ranks.shape[1:]}"
        )
    if ranks.size and (ranks.min() < 0 or ranks.max() >= CODEBOOK_SIZE):
        raise BadKey(
            f"codeword ranks are 0..{CODEBOOK_SIZE - 1}; found {ranks.min()}..{ranks.max()}"
        )
    return ranks.astype(np.int64)


def _pooled(grid: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the 2x2 pooling by sum // 4 of grids (n, 2h, 2w) -> (n, h, w)."""
    n, height, width = grid.shape
    blocks = grid.reshape(n, height // 2, 2, width // 2, 2)
    return np.asarray(blocks.sum(axis=(2, 4)) // 4)


def checked_keys(keys: npt.NDArray[np.generic], *, field: str = "keys") -> Keys:
    """Return ``keys`` as uint64 (n,), or raise `BadKey` naming the first key out of range."""
    array = np.ascontiguousarray(keys)
    if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
        raise BadKey(f"{field} must be a flat integer array; found {array.dtype} {array.shape}")
    outside = np.flatnonzero((array < 0) | (array.astype(np.uint64) >= np.uint64(UNIVERSE)))
    if outside.size:
        where = int(outside[0])
        raise BadKey(
            f"{field}[{where}] is {int(array[where])}; a key satisfies 0 <= key < 2**{KEY_BITS}"
            f" ({UNIVERSE}); encode the slide again with a matching encoder",
            field=field,
        )
    return array.astype(np.uint64)


def spread_keys(slide_id: str, numbers: npt.ArrayLike) -> Keys:
    """Return keys that only spread patches evenly over shards: nothing about a patch is in them.

    For collections whose patches have no key encoder (imported features, texture codes alone); they say
    so with `Collection.has_keys` False.

    Parameters
    ----------
    slide_id
        The slide.
    numbers
        Integers (n,), 0 <= number < 2**64: patch numbers within the slide.

    Returns
    -------
    Keys
        Shape (n,): the low 50 bits of the BLAKE2b-64 digest of the slide id (UTF-8) and the number (8
        bytes, little-endian), read little-endian. The same slide gives the same keys everywhere.

    Examples
    --------
    >>> spread_keys("a", [0, 1]).tolist() == spread_keys("a", [1, 0])[::-1].tolist()
    True
    """
    start = hashlib.blake2b(slide_id.encode(), digest_size=8)
    keys = np.zeros(np.shape(numbers), dtype=np.uint64)
    for row, number in enumerate(np.asarray(numbers).tolist()):
        digest = start.copy()
        digest.update(number.to_bytes(8, "little"))
        keys[row] = int.from_bytes(digest.digest(), "little") % UNIVERSE
    return keys


def seeds_of(key: int, *, seed_spacing: int, seeds_per_side: int) -> list[int]:
    """Return the seeds of a query key in published order: ``q - mC`` then ``q + mC``, m from 0.

    Parameters
    ----------
    key
        The query patch's key q.
    seed_spacing
        C, in coarse units of 10**11.
    seeds_per_side
        T; m runs over ``0..T-1`` on each side, so q itself appears twice (published quirk).

    Returns
    -------
    list[int]
        2T seeds; they may be negative or beyond the universe.

    Examples
    --------
    >>> seeds_of(5, seed_spacing=1, seeds_per_side=2)
    [5, -99999999995, 5, 100000000005]
    """
    stride = seed_spacing * COARSE_UNIT
    below = [key - m * stride for m in range(seeds_per_side)]
    above = [key + m * stride for m in range(seeds_per_side)]
    return below + above
