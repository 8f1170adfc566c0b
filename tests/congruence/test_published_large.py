"""The published search equals its oracle on a large archive, with equal keys and exclusions.

Keys lie as real ones do: three stage sums that nearly determine one another, so that some keys are
shared by several postings and others are alone for many coarse units.
"""

import numpy as np
import pytest

from sish_cluster.core.clock import NEVER_CANCELLED
from sish_cluster.core.query import Mode, SearchSettings
from sish_cluster.shard.index import PostingIndex
from tests.oracles import search as oracle

N_POSTINGS, PATCHES, N_QUERIES = 100_000, 100, 1_000


def archive(rng):
    """Return keys, codes, ordinals, numbers: codes lie near sixty centres."""
    s3 = np.clip(rng.normal(4000, 900, N_POSTINGS), 0, 8128).astype(np.int64)
    s2, s1 = 4 * s3 + rng.integers(0, 3, N_POSTINGS), 16 * s3 + rng.integers(0, 5, N_POSTINGS)
    keys = (s1 + 10**6 * s2 + 10**11 * s3).astype(np.uint64)
    centres = rng.integers(0, 256, (60, 128), dtype=np.uint8)
    noise = np.packbits(rng.random((N_POSTINGS, 1024)) < 0.05, axis=1)
    codes = centres[rng.integers(0, 60, N_POSTINGS)] ^ noise
    rows = np.arange(N_POSTINGS)
    return keys, codes, (rows // PATCHES).astype(np.uint32), (rows % PATCHES).astype(np.uint32)


def slide_id(ordinal):
    return f"s{(ordinal * 7919) % 1000:04d}"


@pytest.mark.slow
def test_a_thousand_published_searches_of_1e5_postings_equal_the_oracle():
    rng = np.random.default_rng(20220917)
    keys, codes, ordinals, numbers = archive(rng)
    corners = np.zeros((N_POSTINGS, 2), np.int32)
    index = PostingIndex.bulk(
        128, keys=keys, codes=codes, ordinals=ordinals, numbers=numbers, corners=corners
    )
    columns = zip(keys.tolist(), codes, ordinals.tolist(), numbers.tolist(), strict=True)
    plain = oracle.Archive(
        [oracle.Posting(k, int.from_bytes(c, "big"), slide_id(o), n) for k, c, o, n in columns]
    )
    assert len(plain.table) < N_POSTINGS * 0.95, "too few equal keys to test them"
    n_found = 0
    for first in range(0, N_QUERIES, PATCHES):
        asked = slice(first, first + PATCHES)
        left_out = rng.choice(N_POSTINGS // PATCHES, 100, replace=False)
        eligible = np.ones(N_POSTINGS // PATCHES, bool)
        eligible[left_out] = False
        found = index.snapshot().search(
            keys[asked], codes[asked], SearchSettings(mode=Mode.SISH),
            eligible=eligible, slide_ids_of=lambda some: [slide_id(int(o)) for o in some],
            mergeable=False, cancellation=NEVER_CANCELLED, n_threads=2,
        )  # fmt: skip
        names = {slide_id(o) for o in np.flatnonzero(eligible).tolist()}
        for i, (key, code) in enumerate(zip(keys[asked].tolist(), codes[asked], strict=True)):
            expected, stepped = plain.published(
                names, key, int.from_bytes(code, "big"), oracle.Bounds()
            )
            rows = slice(found.offsets[i], found.offsets[i + 1])
            got = zip(
                found.distances[rows].tolist(), map(slide_id, found.ordinals[rows].tolist()),
                found.numbers[rows].tolist(), strict=True,
            )  # fmt: skip
            assert list(got) == [(d, p.slide, p.number) for d, p in expected]
            examined = sum(p.slide in names for k in stepped for p in plain.table[k])
            assert found.examined_counts[i] == examined
            n_found += len(expected)
    assert n_found > N_QUERIES, "the archive gives too few candidates to test the walk's stops"
