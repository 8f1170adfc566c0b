"""Readers beside a writer and a compaction: one consistent moment each, and never a wait."""

import threading

import numpy as np
import pytest

from sish_cluster.core.clock import NEVER_CANCELLED, Cancellation
from sish_cluster.core.errors import BadMessage, Cancelled, Internal
from sish_cluster.core.query import Mode, SearchSettings
from sish_cluster.shard.index import PostingIndex

CODE_BYTES = 128


def slide(ordinal, n=100):
    rng = np.random.default_rng(ordinal)
    return {
        "keys": rng.integers(0, 1 << 50, n, dtype=np.uint64),
        "codes": rng.integers(0, 256, (n, CODE_BYTES), dtype=np.uint8),
        "ordinals": np.full(n, ordinal, np.uint32),
        "numbers": np.arange(n, dtype=np.uint32),
        "corners": np.zeros((n, 2), np.int32),
    }


def search(snapshot, columns, mode, n_ordinals, **more):
    return snapshot.search(
        columns["keys"],
        columns["codes"],
        SearchSettings(mode=mode, max_distance=0),
        eligible=np.ones(n_ordinals, bool),
        slide_ids_of=lambda ordinals: [f"s{o:05d}" for o in ordinals],
        mergeable=False,
        **({"cancellation": NEVER_CANCELLED} | more),
    )


def write_all(index, n_slides, done):
    for ordinal in range(n_slides):
        index.insert(**slide(ordinal))
        if ordinal % 3 == 2:
            index.forget(np.array([ordinal - 1], np.uint32))
    done.set()


def compact_until(index, done):
    while not done.is_set():
        index.compact()


@pytest.mark.parametrize("mode", [Mode.GUIDED, Mode.EXACT])
def test_searches_beside_inserts_forgets_and_compaction_see_whole_slides(monkeypatch, mode):
    monkeypatch.setattr("sish_cluster.shard.index.INLINE_ROWS", 500)
    index, done = PostingIndex(CODE_BYTES), threading.Event()
    threads = [
        threading.Thread(target=write_all, args=(index, 120, done)),
        threading.Thread(target=compact_until, args=(index, done)),
    ]
    for thread in threads:
        thread.start()
    while not done.is_set():
        snapshot = index.snapshot()
        found = search(snapshot, slide(0), mode, 120)
        assert snapshot.n_postings % 100 == 0
        assert len(found.keys) == (100 if snapshot.n_postings else 0)
    for thread in threads:
        thread.join()
    index.compact()
    index.check()
    assert index.n_postings == 120 * 100 - 40 * 100


def test_compaction_keeps_what_came_while_it_ran(monkeypatch):
    index = PostingIndex(CODE_BYTES)
    for ordinal in range(10):
        index.insert(**slide(ordinal))
    index.forget(np.arange(5, dtype=np.uint32))
    merge = PostingIndex._merge

    def merge_late(self, chosen):
        whole = merge(self, chosen)
        self.insert(**slide(10))
        self.forget(np.array([7], np.uint32))
        return whole

    monkeypatch.setattr(PostingIndex, "_merge", merge_late)
    assert index.needs_compaction()
    with monkeypatch.context() as once:
        once.setattr(PostingIndex, "_next_merge", lambda _self, now: now.segments[:1])
        chosen = index._claim()
        index._replace(chosen, index._merge(chosen))
        index._busy = frozenset()
    monkeypatch.undo()
    index.compact()
    index.check()
    eligible = np.ones(11, bool)
    rows = index.snapshot().range_rows(0, 1 << 50, eligible=eligible, limit=10**6, after=None)
    assert sorted(set(rows.ordinals.tolist())) == [5, 6, 8, 9, 10]
    assert len(rows) == index.n_postings == 500


@pytest.mark.parametrize("mode", [Mode.SISH, Mode.GUIDED, Mode.EXACT])
def test_a_cancelled_search_stops_and_the_index_answers_on(mode):
    index = PostingIndex(CODE_BYTES)
    index.insert(**slide(0, 3000))
    calls = iter([False, True])
    gone = Cancellation(is_cancelled=lambda: next(calls, True))
    with pytest.raises(Cancelled):
        search(index.snapshot(), slide(0, 3000), mode, 1, cancellation=gone)
    assert len(search(index.snapshot(), slide(0, 3000), Mode.EXACT, 1).keys) == 3000


@pytest.mark.parametrize("mode", [Mode.SISH, Mode.GUIDED, Mode.EXACT])
def test_two_threads_answer_as_one(mode):
    index = PostingIndex(CODE_BYTES)
    for ordinal in range(30):
        index.insert(**slide(ordinal))
    one, two = (
        search(index.snapshot(), slide(3), mode, 30, n_threads=n_threads) for n_threads in (1, 2)
    )
    assert np.array_equal(one.offsets, two.offsets)
    assert np.array_equal(one.numbers, two.numbers)
    assert np.array_equal(one.examined_counts, two.examined_counts)


def test_columns_that_disagree_are_refused_and_nothing_is_added():
    index = PostingIndex(CODE_BYTES)
    with pytest.raises(BadMessage, match="need codes"):
        index.insert(**(slide(0) | {"numbers": np.arange(5, dtype=np.uint32)}))
    with pytest.raises(BadMessage, match="query codes"):
        search(index.snapshot(), slide(0) | {"codes": np.zeros((100, 8), np.uint8)}, Mode.EXACT, 1)
    assert index.n_postings == 0


def test_a_forgotten_ordinal_is_never_used_again():
    index = PostingIndex(CODE_BYTES)
    index.insert(**slide(0))
    index.forget(np.array([0, 99], np.uint32))
    with pytest.raises(Internal, match="new ordinal"):
        index.insert(**slide(0))
    assert index.n_postings == 0


def test_an_empty_index_is_small_and_answers_nothing():
    index = PostingIndex(CODE_BYTES)
    found = search(index.snapshot(), slide(0), Mode.GUIDED, 1)
    assert index.memory_bytes < 1 << 20
    assert (len(found.keys), found.eligible, found.offsets.tolist()) == (0, 0, [0] * 101)


def test_forgotten_rows_leave_memory_at_the_next_compaction():
    index = PostingIndex(CODE_BYTES)
    for ordinal in range(20):
        index.insert(**slide(ordinal))
    before = index.memory_bytes
    index.forget(np.arange(15, dtype=np.uint32))
    index.compact()
    assert index.memory_bytes < before / 3
    index.check()
