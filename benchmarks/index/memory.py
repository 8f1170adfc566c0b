"""Memory of a whole process that holds an index, and what the machine can stream and count.

Run as a program it builds an index in its own process and prints the resident bytes.
"""

import json
import subprocess
import sys

import numpy as np
import psutil

from benchmarks.index.data import CODE_BITS, PATCHES_PER_SLIDE, keys_drawn
from benchmarks.index.measure import Row
from sish_cluster.core.clock import NEVER_CANCELLED
from sish_cluster.core.query import Mode, SearchSettings
from sish_cluster.shard.index import PostingIndex
from sish_cluster.shard.layout import HEAD
from sish_cluster.shard.trimming import release_startup_memory
from sish_cluster.shard.veb import VebTree
from sish_cluster.shard.warming import load_compiler

GOAL_BYTES = CODE_BITS // 8 + 40


def _resident():
    return psutil.Process().memory_info().rss


def _built(n, rng_seed, distribution):
    rng = np.random.default_rng(rng_seed)
    return PostingIndex.bulk(
        CODE_BITS // 8,
        keys=keys_drawn(rng, n, distribution),
        codes=rng.integers(0, 256, (n, CODE_BITS // 8), dtype=np.uint8),
        ordinals=(np.arange(n) // PATCHES_PER_SLIDE).astype(np.uint32),
        numbers=(np.arange(n) % PATCHES_PER_SLIDE).astype(np.uint32),
        corners=rng.integers(0, 10**5, (n, 2), dtype=np.int32),
    )


def main(n, rng_seed, distribution):
    """Build an index, search it once, give back what a server would, print what is resident."""
    load_compiler()
    index = _built(n, rng_seed, distribution)
    index.snapshot().search(
        np.array([5], np.uint64),
        np.zeros((1, CODE_BITS // 8), np.uint8),
        SearchSettings(mode=Mode.GUIDED),
        eligible=np.ones(-(-n // PATCHES_PER_SLIDE), bool),
        slide_ids_of=lambda ordinals: [str(o) for o in ordinals],
        mergeable=False,
        cancellation=NEVER_CANCELLED,
    )
    release_startup_memory()
    print(json.dumps({"resident": _resident(), "index": index.memory_bytes}))


def memory_rows(n, *, rng_seed, distribution):
    """Yield resident bytes per posting of a fresh process, and the bytes of empty and one-key trees."""
    call = [sys.executable, "-m", "benchmarks.index.memory", str(n), str(rng_seed), distribution]
    printed = subprocess.run(call, capture_output=True, text=True, check=True).stdout
    found = json.loads(printed.splitlines()[-1])
    each, own = found["resident"] / n, found["index"] / n
    yield Row(
        "resident memory",
        n,
        "whole process",
        0,
        0,
        "posting",
        quality=f"{each:.1f} B, index alone {own:.1f} B",
        ratio=each / GOAL_BYTES,
        goal=f"<={GOAL_BYTES} B (1 x)",
    )
    for name, tree in (("empty", VebTree()), ("one key", VebTree([7]))):
        n_bytes = tree.memory_bytes
        yield Row(
            "tree memory",
            len(tree),
            name,
            0,
            0,
            "tree",
            quality=f"{n_bytes} B",
            ratio=n_bytes / 2**20,
            goal="<1 MB (1 x)",
        )


def bandwidth(watch):
    """Return the bytes per second one thread reads from memory in order."""
    array = np.ones(1 << 27, np.int64)
    return array.nbytes / np.min(watch.times(lambda: np.bitwise_xor.reduce(array), repeats=5)) * 1e9


def head_words_per_s(watch):
    """Return the head words per second the exact scan compares when everything is in cache."""
    rng = np.random.default_rng(0)
    index = _built(4096, 0, "uniform")
    keys = rng.integers(0, 1 << 50, 128, dtype=np.uint64)
    codes = rng.integers(0, 256, (128, CODE_BITS // 8), dtype=np.uint8)

    def scan():
        return index.snapshot().search(
            keys,
            codes,
            SearchSettings(mode=Mode.EXACT, max_distance=0),
            eligible=np.ones(41, bool),
            slide_ids_of=lambda ordinals: [str(o) for o in ordinals],
            mergeable=False,
            cancellation=NEVER_CANCELLED,
        )

    return 4096 * 128 * HEAD / np.min(watch.times(scan, repeats=20)) * 1e9


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
