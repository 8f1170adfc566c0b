"""Synthetic postings with the keys that the key formula implies.

``key = s1 + 10**6 s2 + 10**11 s3``: s3 is the sum of 64 cells of 0..127, and because every pooling stage
divides by four with a floor, s2 is four times s3 plus what 64 floors cut off, s1 four times s2 plus what 256
floors cut off. So s3 is free and nearly determines the rest.
"""

import dataclasses

import numpy as np

CODE_BITS = 1024
PATCHES_PER_SLIDE = 100


@dataclasses.dataclass(frozen=True)
class Postings:
    """Columns as the posting index takes them."""

    keys: np.ndarray
    codes: np.ndarray
    ordinals: np.ndarray
    numbers: np.ndarray
    corners: np.ndarray

    def columns(self):
        """Return the columns by name."""
        return dataclasses.asdict(self)


def keys_drawn(rng, n, distribution):
    """Return n keys: "published" as the formula implies, "uniform" over the universe."""
    if distribution == "uniform":
        return rng.integers(0, 1 << 50, n, dtype=np.uint64)
    brightness = rng.normal(63, 14, n).clip(2, 125)
    s3 = (64 * brightness + rng.normal(0, 20, n)).astype(np.int64).clip(0, 8128)
    s2 = 4 * s3 + rng.normal(96, 9, n).astype(np.int64).clip(0, 192)
    s1 = 4 * s2 + rng.normal(384, 18, n).astype(np.int64).clip(0, 768)
    return (s1 + 10**6 * s2 + 10**11 * s3).astype(np.uint64)


def codes_drawn(rng, n, bits=CODE_BITS, n_families=200, noise=0.08):
    """Return n packed codes: half are random, half are noisy copies of some families' codes."""
    codes = rng.integers(0, 256, (n, bits // 8), dtype=np.uint8)
    families = rng.integers(0, 256, (n_families, bits // 8), dtype=np.uint8)
    n_near = n // 2
    for start in range(0, n_near, 1 << 16):
        rows = slice(start, min(start + (1 << 16), n_near))
        count = rows.stop - rows.start
        flips = np.packbits(rng.random((count, bits), dtype=np.float32) < noise, axis=1)
        codes[rows] = families[rng.integers(0, n_families, count)] ^ flips
    return codes


def postings_drawn(n, *, rng_seed, distribution):
    """Return n postings of slides of 100 patches."""
    rng = np.random.default_rng(rng_seed)
    codes = codes_drawn(rng, n)
    return Postings(
        keys=rng.permutation(keys_drawn(rng, n, distribution)),
        codes=codes,
        ordinals=(np.arange(n) // PATCHES_PER_SLIDE).astype(np.uint32),
        numbers=(np.arange(n) % PATCHES_PER_SLIDE).astype(np.uint32),
        corners=rng.integers(0, 10**5, (n, 2)).astype(np.int32),
    )


def queries_drawn(postings, n, *, rng_seed):
    """Return keys and codes of n query patches: noisy copies of postings, their keys slightly moved."""
    rng = np.random.default_rng(rng_seed + 1)
    rows = rng.integers(0, len(postings.keys), n)
    flips = np.packbits(rng.random((n, CODE_BITS)) < 0.02, axis=1)
    keys = postings.keys[rows].astype(np.int64) + rng.integers(-(10**6), 10**6, n)
    return keys.clip(0, (1 << 50) - 1).astype(np.uint64), postings.codes[rows] ^ flips
