"""One query patch at a time takes a way of its own through the index: it answers as all together."""

import dataclasses

import numpy as np
import pytest

from sish_cluster.core.clock import NEVER_CANCELLED
from sish_cluster.core.key import COARSE_UNIT
from sish_cluster.core.query import Mode, SearchSettings
from sish_cluster.shard import alone
from sish_cluster.shard.index import PostingIndex


def postings(rng, n, first_ordinal, code_bytes, n_keys):
    """Return postings with few distinct keys and codes near a handful of others, so that many tie."""
    families = np.random.default_rng(1).integers(0, 256, (4, code_bytes), dtype=np.uint8)
    flips = np.packbits(rng.random((n, 8 * code_bytes)) < 0.02, axis=1)
    numbers = np.arange(n, dtype=np.uint32)
    return {
        "keys": rng.integers(0, n_keys, n).astype(np.uint64) * np.uint64(COARSE_UNIT // 10),
        "codes": families[rng.integers(0, 4, n)] ^ flips,
        "ordinals": (first_ordinal + numbers // 20).astype(np.uint32),
        "numbers": numbers + 70_000 * (first_ordinal % 2),
        "corners": rng.integers(-(2**31), 2**31 - 1, (n, 2)).astype(np.int32),
    }


def searched(snapshot, columns, part, bounds, eligible):
    return snapshot.search(
        columns["keys"][part],
        columns["codes"][part],
        bounds,
        eligible=eligible,
        slide_ids_of=lambda ordinals: [f"s{(int(o) * 37) % 101:03d}" for o in ordinals],
        mergeable=False,
        cancellation=NEVER_CANCELLED,
    )


def assert_one_by_one_is_as_together(index, asked, bounds, eligible):
    snapshot = index.snapshot()
    together = searched(snapshot, asked, slice(None), bounds, eligible)
    names = ("keys", "distances", "ordinals", "numbers", "corners")
    for i in range(len(asked["keys"])):
        one = searched(snapshot, asked, slice(i, i + 1), bounds, eligible)
        part = slice(together.offsets[i], together.offsets[i + 1])
        for name in names:
            mine, theirs = getattr(one, name), getattr(together, name)[part]
            assert mine.dtype == theirs.dtype
            assert np.array_equal(mine, theirs)
        assert one.offsets.tolist() == [0, part.stop - part.start]
        assert one.examined_counts.tolist() == [together.examined_counts[i]]
        assert one.eligible == together.eligible


@pytest.mark.parametrize("mode", [Mode.SISH, Mode.GUIDED])
@pytest.mark.parametrize("code_bytes", [8, 56, 128])
@pytest.mark.parametrize("n_keys", [30, 100_000])
def test_patches_one_by_one_answer_as_together(mode, code_bytes, n_keys):
    rng = np.random.default_rng(code_bytes)
    index = PostingIndex(code_bytes)
    for part in range(3):
        index.insert(**postings(rng, 3000 if part == 0 else 400, 200 * part, code_bytes, n_keys))
    bounds = SearchSettings(
        mode=mode, max_distance=code_bytes, seed_spacing=1, seeds_per_side=3, max_steps=40
    )
    asked = postings(rng, 20, 0, code_bytes, n_keys)
    for eligible in (np.ones(500, bool), np.arange(500) % 3 > 0):
        eligible.flags.writeable = False
        for most in (0, 3):
            limited = dataclasses.replace(bounds, max_candidates=most)
            assert_one_by_one_is_as_together(index, asked, limited, eligible)


@pytest.mark.parametrize("mode", [Mode.SISH, Mode.GUIDED])
def test_a_patch_that_finds_more_than_a_desk_holds_answers_as_together(mode, monkeypatch):
    monkeypatch.setattr(alone, "FIRST_HITS", 5)
    monkeypatch.setattr(alone, "_DESKS", alone._Desks())
    rng = np.random.default_rng(0)
    index = PostingIndex(128)
    index.insert(**postings(rng, 3000, 0, 128, 10**5))
    bounds = SearchSettings(mode=mode, max_distance=1024, seeds_per_side=2, max_steps=100)
    asked = postings(rng, 3, 0, 128, 10**5)
    assert_one_by_one_is_as_together(index, asked, bounds, np.ones(150, bool))
    monkeypatch.setattr(alone, "MOST_HITS", 5)
    assert_one_by_one_is_as_together(index, asked, bounds, np.ones(150, bool))
