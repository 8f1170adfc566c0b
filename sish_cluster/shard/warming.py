"""Warming: every kernel runs once before a server says it is ready.

Kernels are compiled at their first call and loaded from a disk cache later; on a new machine that takes
longer than a search's deadline, so it happens before the first caller comes.
"""

from __future__ import annotations

import itertools

import numpy as np

from sish_cluster.core.clock import NEVER_CANCELLED
from sish_cluster.core.query import Mode, SearchSettings
from sish_cluster.shard.compiled import compiled_once, is_compiled
from sish_cluster.shard.copying import rows_of
from sish_cluster.shard.index import PostingIndex
from sish_cluster.shard.trimming import not_loading, release_startup_memory
from sish_cluster.shard.veb import VebTree
from sish_cluster.shard.vectors import SlideVectors, Vectors
from sish_cluster.shard.vectors_search import direct

_CODE_BYTES = 128
_MODES = (Mode.EXACT, Mode.GUIDED, Mode.SISH)


def load_compiler() -> None:
    """Have numba set itself up without linear algebra, which takes 19 MB that no kernel uses.

    For a process that only serves, before it runs any kernel: numba's own `dot` is not to be had in it
    afterwards.
    """
    with not_loading("scipy.linalg"):
        VebTree([0])


def compile_kernels() -> None:
    """Compile every kernel where no process of this machine has yet, some twenty seconds; else do nothing.

    For a process that goes on to other things: a first search would hit its deadline.
    """
    if not is_compiled():
        with compiled_once():
            _run_kernels()


def warm_kernels() -> None:
    """Insert, forget, compact and search a handful of postings in every mode, then drop them.

    What only compiling needed goes with them.
    """
    with compiled_once():
        load_compiler()
        _run_kernels()
    release_startup_memory()


def _run_kernels() -> None:
    index = PostingIndex(_CODE_BYTES)
    keys = np.arange(4, dtype=np.uint64)
    codes = np.zeros((4, _CODE_BYTES), np.uint8)
    for ordinal in range(2):
        index.insert(
            keys=keys + np.uint64(ordinal),
            codes=codes,
            ordinals=np.full(4, ordinal, np.uint32),
            numbers=np.arange(4, dtype=np.uint32),
            corners=np.zeros((4, 2), np.int32),
        )
    eligible = np.ones(2, bool)
    snapshot = index.snapshot()
    for mode, mergeable, n in itertools.product(_MODES, (False, True), (1, 4)):
        snapshot.search(
            keys[:n],
            codes[:n],
            SearchSettings(mode=mode, max_steps=1),
            eligible=eligible,
            slide_ids_of=lambda ordinals: [str(ordinal) for ordinal in ordinals.tolist()],
            mergeable=mergeable,
            cancellation=NEVER_CANCELLED,
        )
    embeddings = np.ones((4, 1), np.float16)
    vectors = Vectors(dimensions=1)
    for ordinal in range(2):
        vectors.put(ordinal, SlideVectors.of(embeddings))
    direct(
        snapshot,
        vectors.view(2),
        embeddings,
        SearchSettings(mode=Mode.DIRECT),
        eligible=eligible,
        slide_ids_of=lambda ordinals: [str(ordinal) for ordinal in ordinals.tolist()],
        cancellation=NEVER_CANCELLED,
    )
    snapshot.range_rows(0, 8, eligible=eligible, limit=8, after=None)
    snapshot.neighbours(2, n_below=1, n_above=1, eligible=eligible)
    rows_of(np.zeros(1, np.uint32), eligible)
    index.forget(np.zeros(1, np.uint32))
    index.compact()
