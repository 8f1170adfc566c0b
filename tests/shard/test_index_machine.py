"""The posting index against a plain list of postings: every mode, many segments, forgets, compaction.

The model below is written from the published description with lists and sets; it shares nothing with
the index but the settings.
"""

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sish_cluster.core.clock import NEVER_CANCELLED
from sish_cluster.core.key import COARSE_UNIT, UNIVERSE, seeds_of
from sish_cluster.core.query import Mode, SearchSettings
from sish_cluster.shard import index as index_module
from sish_cluster.shard.index import PostingIndex
from sish_cluster.shard.segment import segment_of

BITS = 64
KEY_POOL = [0, 1, 2, 63, 64, 4096, UNIVERSE - 1, UNIVERSE - 2, 5 * COARSE_UNIT]
KEY_POOL += [n * COARSE_UNIT for n in range(8)] + [n * COARSE_UNIT + 1 for n in range(8)]


@dataclasses.dataclass(frozen=True)
class Posting:
    key: int
    code: int
    ordinal: int
    number: int

    @property
    def slide_id(self) -> str:
        return slide_id_of(self.ordinal)


def slide_id_of(ordinal: int) -> str:
    """Slide ids whose order is not the order of ordinals."""
    return f"s{(ordinal * 37) % 101:03d}"


def slide_ids_of(ordinals):
    return [slide_id_of(int(ordinal)) for ordinal in ordinals]


def rank(posting, distance):
    return (distance, posting.slide_id, posting.number)


def distance_of(posting, code):
    return (posting.code ^ code).bit_count()


def published(postings, key, code, s):
    """Return accepted (posting, distance) in published order, and the keys stepped on."""
    by_key = {}
    for p in postings:
        by_key.setdefault(p.key, []).append(p)
    accepted, stepped = {}, set()
    for seed in seeds_of(key, seed_spacing=s.seed_spacing, seeds_per_side=s.seeds_per_side):
        for way in (-1, 1):
            ahead = sorted((k for k in by_key if way * (k - seed) > 0), key=lambda k: way * k)
            for k in ahead[: s.max_steps]:
                if k in accepted:
                    break
                stepped.add(k)
                best = min(by_key[k], key=lambda p: rank(p, distance_of(p, code)))
                if distance_of(best, code) <= s.max_distance:
                    accepted[k] = (best, distance_of(best, code))
    return sorted(accepted.values(), key=lambda row: row[1]), stepped


def neighbourhood(postings, key, s):
    occupied = sorted({p.key for p in postings})
    around = {key} & set(occupied)
    for seed in seeds_of(key, seed_spacing=s.seed_spacing, seeds_per_side=s.seeds_per_side):
        below = [k for k in occupied if k < seed]
        above = [k for k in occupied if k > seed]
        around |= set(below[max(0, len(below) - s.max_steps) :]) | set(above[: s.max_steps])
    return around


def expected(postings, key, code, s, *, mergeable):
    """Return ordered (posting, distance) rows and the keys examined of one query patch."""
    if s.mode is Mode.SISH and not mergeable:
        return published(postings, key, code, s)
    around = {p.key for p in postings}
    if s.mode is not Mode.EXACT:
        around = neighbourhood(postings, key, s)
    rows = [(p, distance_of(p, code)) for p in postings if p.key in around]
    rows = sorted((r for r in rows if r[1] <= s.max_distance), key=lambda r: rank(*r))
    if s.mode is Mode.SISH:
        nearest = {}
        for row in rows:
            nearest.setdefault(row[0].key, row)
        rows = list(nearest.values())
    return rows, around


def assert_answers(snapshot, postings, queries, s, *, mergeable, eligible, n_threads=1):
    keys, codes = zip(*queries, strict=True)
    found = snapshot.search(
        np.array(keys, np.uint64),
        packed(codes),
        s,
        eligible=eligible,
        slide_ids_of=slide_ids_of,
        mergeable=mergeable,
        cancellation=NEVER_CANCELLED,
        n_threads=n_threads,
    )
    visible = [p for p in postings if p.ordinal < len(eligible) and eligible[p.ordinal]]
    all_examined = set()
    for i, (key, code) in enumerate(queries):
        rows, examined = expected(visible, key, code, s, mergeable=mergeable)
        is_final = not mergeable or s.mode is Mode.EXACT
        rows = rows[: s.max_candidates] if s.max_candidates and is_final else rows
        part = slice(found.offsets[i], found.offsets[i + 1])
        columns = (found.keys, found.distances, found.ordinals, found.numbers, found.corners[:, 0])
        there = list(zip(*(column[part].tolist() for column in columns), strict=True))
        assert there == [(p.key, d, p.ordinal, p.number, p.number + 7) for p, d in rows]
        assert found.examined_counts[i] == sum(p.key in examined for p in visible)
        all_examined |= examined
    assert found.eligible == len(visible) == snapshot.eligible_count(eligible)
    if not mergeable or s.mode is Mode.EXACT:
        assert found.examined_keys is None
        return
    assert found.examined_keys.tolist() == sorted(all_examined)
    wanted = [sum(p.key == k for p in visible) for k in sorted(all_examined)]
    assert found.examined_key_counts.tolist() == wanted


def packed(codes):
    return np.array(codes, ">u8").view(np.uint8).reshape(len(codes), BITS // 8)


def columns_of(postings):
    numbers = np.array([p.number for p in postings], np.uint32)
    return {
        "keys": np.array([p.key for p in postings], np.uint64),
        "codes": packed([p.code for p in postings]),
        "ordinals": np.array([p.ordinal for p in postings], np.uint32),
        "numbers": numbers,
        "corners": np.stack([numbers + 7, numbers], axis=1).astype(np.int32),
    }


keys = st.one_of(
    st.sampled_from(KEY_POOL), st.integers(0, 12 * COARSE_UNIT), st.integers(0, UNIVERSE - 1)
)
codes = st.one_of(st.sampled_from([0, 1, 3, 0xFF, (1 << 64) - 1]), st.integers(0, (1 << 64) - 1))
slides = st.lists(st.tuples(keys, codes), min_size=1, max_size=30)
bounds = st.builds(
    SearchSettings,
    mode=st.sampled_from([Mode.SISH, Mode.GUIDED, Mode.EXACT]),
    max_distance=st.sampled_from([0, 2, 8, 30, 64]),
    seeds_per_side=st.integers(1, 4),
    seed_spacing=st.sampled_from([1, 3, 50, 10_000]),
    max_steps=st.sampled_from([0, 1, 2, 5, 1000]),
    max_candidates=st.sampled_from([0, 0, 1, 3]),
)
queries = st.lists(st.tuples(keys, codes), min_size=1, max_size=10)


class IndexBesideList(RuleBasedStateMachine):
    """Inserts, forgets and compactions; searches of now and of snapshots taken before."""

    def __init__(self) -> None:
        super().__init__()
        self.index = PostingIndex(BITS // 8)
        self.postings: list[Posting] = []
        self.n_ordinals = 0
        self.kept = []

    @rule(many=st.lists(slides, min_size=1, max_size=3))
    def insert(self, many) -> None:
        added = []
        for slide in many:
            added += [Posting(k, c, self.n_ordinals, i) for i, (k, c) in enumerate(slide)]
            self.n_ordinals += 1
        self.index.insert(**columns_of(added))
        self.postings = self.postings + added

    @rule(chosen=st.sets(st.integers(0, 20), max_size=4))
    def forget(self, chosen) -> None:
        self.index.forget(np.array(sorted(chosen & set(range(self.n_ordinals))), np.uint32))
        gone = {o for o in chosen if o < self.n_ordinals}
        self.postings = [p for p in self.postings if p.ordinal not in gone]

    @rule()
    def compact(self) -> None:
        self.index.compact()
        assert not self.index.needs_compaction()

    @rule()
    def keep_a_snapshot(self) -> None:
        self.kept.append((self.index.snapshot(), self.postings, self.n_ordinals))

    @rule(s=bounds, asked=queries, mergeable=st.booleans(), data=st.data())
    def search(self, s, asked, mergeable, data) -> None:
        moments = [(self.index.snapshot(), self.postings, self.n_ordinals), *self.kept]
        snapshot, postings, n = data.draw(st.sampled_from(moments))
        eligible = np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)), bool)
        if data.draw(st.booleans()):
            eligible[:] = True
        assert_answers(snapshot, postings, asked, s, mergeable=mergeable, eligible=eligible)

    @precondition(lambda self: self.postings)
    @rule(start=keys, length=st.integers(1, UNIVERSE), limit=st.integers(1, 20))
    def read_pages(self, start, length, limit) -> None:
        end = min(start + length, UNIVERSE)
        snapshot, eligible = self.index.snapshot(), np.ones(self.n_ordinals, bool)
        listed, after = [], None
        while True:
            rows = snapshot.range_rows(start, end, eligible=eligible, limit=limit, after=after)
            listed += list(
                zip(rows.keys.tolist(), rows.ordinals.tolist(), rows.numbers.tolist(), strict=True)
            )
            if len(rows) < limit:
                break
            after = int(rows.keys[-1])
        wanted = [(p.key, p.ordinal, p.number) for p in self.postings if start <= p.key < end]
        assert sorted(listed) == sorted(wanted)
        assert [row[0] for row in listed] == sorted(row[0] for row in wanted)

    @rule(key=keys, n=st.integers(0, 5))
    def look_around(self, key, n) -> None:
        eligible = np.arange(self.n_ordinals) % 3 != 0
        below, above, is_there = self.index.snapshot().neighbours(
            key, n_below=n, n_above=n, eligible=eligible
        )
        occupied = sorted({p.key for p in self.postings if p.ordinal % 3 != 0})
        assert below.tolist() == [k for k in reversed(occupied) if k < key][:n]
        assert above.tolist() == [k for k in occupied if k > key][:n]
        assert is_there == (key in occupied)

    @invariant()
    def agree(self) -> None:
        self.index.check()
        assert self.index.n_postings == len(self.postings)


class IndexOfTinyParts(IndexBesideList):
    """The same with no inline merging and compaction due at once, so that there are many segments."""

    def __init__(self) -> None:
        super().__init__()
        index_module.INLINE_ROWS = 8

    def teardown(self) -> None:
        index_module.INLINE_ROWS = 32_768


TestIndexBesideList = IndexBesideList.TestCase
TestIndexBesideList.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
TestIndexOfTinyParts = IndexOfTinyParts.TestCase
TestIndexOfTinyParts.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)


@settings(max_examples=25, deadline=None)
@given(
    rng_seed=st.integers(0, 1000),
    s=bounds,
    mergeable=st.booleans(),
    share=st.sampled_from([1.0, 0.5, 0.05]),
    cuts=st.sampled_from([(400, 580), (300,), (450, 570, 595)]),
)
def test_hundreds_of_postings_in_a_few_segments_answer_as_the_model(
    rng_seed, s, mergeable, share, cuts
):
    rng = np.random.default_rng(rng_seed)
    pool = rng.integers(0, 200 * COARSE_UNIT, 150)
    postings = [
        Posting(int(rng.choice(pool)), int(rng.integers(0, 4)) * 0x0101, n // 10, n % 10)
        for n in range(600)
    ]
    parts = [postings[start:end] for start, end in itertools.pairwise((0, *cuts, 600))]
    segments = [segment_of(**columns_of(part)) for part in parts]
    index = PostingIndex.restored(BITS // 8, segments, [])
    asked = [(int(rng.choice(pool)) + int(rng.integers(-1, 2)), 0x0100) for _ in range(12)]
    asked = [(max(key, 0), code) for key, code in asked]
    eligible = rng.random(60) < share
    snapshot = index.snapshot()
    assert_answers(
        snapshot,
        postings,
        asked,
        s,
        mergeable=mergeable,
        eligible=eligible,
        n_threads=int(rng.integers(1, 3)),
    )


@pytest.mark.parametrize("mode", [Mode.SISH, Mode.GUIDED, Mode.EXACT])
@pytest.mark.parametrize("mergeable", [False, True])
@pytest.mark.parametrize("order", range(6))
def test_equal_distances_at_one_key_go_to_the_first_slide_id_then_number(mode, mergeable, order):
    tied = [Posting(5, 1, ordinal, number) for ordinal in range(6) for number in (0, 1)]
    postings = [tied[i] for i in np.random.default_rng(order).permutation(12)]
    index = PostingIndex(BITS // 8)
    for part in (postings[:7], postings[7:]):
        index.insert(**columns_of([*part, Posting(9, 0, 6 + len(part), 0)]))
    s = SearchSettings(mode=mode, max_distance=3, seeds_per_side=2)
    eligible = np.arange(14) != order
    everyone = [*postings, Posting(9, 0, 13, 0), Posting(9, 0, 11, 0)]
    assert_answers(
        index.snapshot(), everyone, [(5, 0), (7, 3)], s, mergeable=mergeable, eligible=eligible
    )


@pytest.mark.parametrize("n_parts", [1, 3])
def test_a_seed_on_an_occupied_key_does_not_look_at_it_unless_another_walk_does(n_parts):
    stride = COARSE_UNIT
    postings = [
        Posting(10 * stride + step, 0, 0, i)
        for i, step in enumerate((-stride, -1, 0, 1, stride, stride + 1))
    ]
    index = PostingIndex(BITS // 8)
    for part in range(n_parts):
        index.insert(**columns_of(postings[part::n_parts]))
    for mode in (Mode.SISH, Mode.GUIDED):
        for steps in (1, 2, 3, 6):
            s = SearchSettings(
                mode=mode, max_distance=3, seeds_per_side=2, seed_spacing=1, max_steps=steps
            )
            asked = [(10 * stride, 0), (9 * stride, 0), (11 * stride, 0)]
            assert_answers(
                index.snapshot(), postings, asked, s, mergeable=False, eligible=np.ones(1, bool)
            )
