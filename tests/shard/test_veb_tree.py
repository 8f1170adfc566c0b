"""The van Emde Boas tree against a plain sorted list, aimed at its word, cluster and block borders."""

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from sortedcontainers import SortedList

from sish_cluster.core.errors import BadKey, Corrupt
from sish_cluster.core.key import UNIVERSE
from sish_cluster.shard.veb import VebTree
from sish_cluster.shard.veb_table import HIGH, TABLE, USED

BORDERS = [
    0,
    1 << 6,
    1 << 12,
    1 << 18,
    1 << 24,
    1 << 30,
    1 << 36,
    1 << 44,
    UNIVERSE // 2,
    UNIVERSE - 1,
]
LATTICE = [
    a + b for a in (0, 1 << 24, 3 << 36, UNIVERSE - (1 << 25)) for b in (0, 63, 4095, 4096, 1 << 18)
]


def _clipped(key: int) -> int:
    return min(max(key, 0), UNIVERSE - 1)


near_borders = st.builds(
    lambda border, shift: _clipped(border + shift),
    st.sampled_from(BORDERS + LATTICE),
    st.integers(-65, 65),
)
keys = st.one_of(near_borders, st.integers(0, UNIVERSE - 1))


class TreeBesideList(RuleBasedStateMachine):
    """Every operation on both; the tree's own check after every rule."""

    def __init__(self) -> None:
        super().__init__()
        self.tree, self.model = VebTree(), SortedList()

    @rule(key=keys)
    def insert(self, key: int) -> None:
        assert self.tree.insert(key) == (key not in self.model)
        if key not in self.model:
            self.model.add(key)

    @rule(many=st.lists(keys, max_size=40))
    def insert_many(self, many: list[int]) -> None:
        is_new = self.tree.insert_all(np.array(many, np.uint64))
        for key, was_new in zip(many, is_new.tolist(), strict=True):
            assert was_new == (key not in self.model)
            if was_new:
                self.model.add(key)

    @rule(key=keys)
    def delete(self, key: int) -> None:
        assert self.tree.delete(key) == (key in self.model)
        self.model.discard(key)

    @rule(place=st.floats(0, 1, exclude_max=True))
    def delete_one_that_is_there(self, place: float) -> None:
        if self.model:
            key = self.model.pop(int(place * len(self.model)))
            assert self.tree.delete(key)

    @rule(key=st.one_of(keys, st.integers(-(1 << 60), 1 << 60)))
    def look_around(self, key: int) -> None:
        above, below = self.model.bisect_right(key), self.model.bisect_left(key) - 1
        assert self.tree.successor(key) == (self.model[above] if above < len(self.model) else None)
        assert self.tree.predecessor(key) == (self.model[below] if below >= 0 else None)

    @rule(ends=st.tuples(keys, keys))
    def list_a_range(self, ends: tuple[int, int]) -> None:
        start, end = sorted(ends)
        listed = list(self.tree.keys_between(start, end))
        assert listed == list(self.model.irange(start, end, inclusive=(True, False)))

    @invariant()
    def agree(self) -> None:
        self.tree.check()
        assert len(self.tree) == len(self.model)
        assert self.tree.min == (self.model[0] if self.model else None)
        assert self.tree.max == (self.model[-1] if self.model else None)


TestTreeBesideList = TreeBesideList.TestCase
TestTreeBesideList.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)


def test_a_million_random_operations_agree_with_a_sorted_list():
    rng = np.random.default_rng(7)
    pool = np.unique(rng.integers(0, 1 << 50, 60_000))
    tree, model = VebTree(), set()
    for _ in range(25):
        added, removed = rng.choice(pool, 15_000), rng.choice(pool, 15_000)
        assert np.count_nonzero(tree.insert_all(added)) == len(set(added.tolist()) - model)
        model |= set(added.tolist())
        assert np.count_nonzero(tree.delete_all(removed)) == len(model & set(removed.tolist()))
        model -= set(removed.tolist())
        ordered, asked = np.array(sorted(model)), rng.choice(pool, 5_000)
        padded = np.concatenate([[-1], ordered, [-1]])
        assert (
            tree.successors_of(asked) == padded[np.searchsorted(ordered, asked, "right") + 1]
        ).all()
        assert (
            tree.predecessors_of(asked) == padded[np.searchsorted(ordered, asked, "left")]
        ).all()
        assert (tree.contains_all(asked) == np.isin(asked, ordered)).all()
    assert list(tree) == sorted(model)
    tree.check()


def test_an_empty_tree_takes_a_few_kilobytes_and_answers_none():
    tree = VebTree()
    assert tree.memory_bytes < 10_000
    assert (tree.min, tree.max, tree.successor(-5), tree.predecessor(1 << 60)) == (
        None,
        None,
        None,
        None,
    )
    assert list(tree) == []
    tree.check()


def test_memory_is_linear_in_the_keys_and_shrinks_with_them():
    keys = np.random.default_rng(1).integers(0, UNIVERSE, 50_000)
    tree = VebTree(keys)
    assert tree.memory_bytes < 150 * len(tree)
    tree.delete_all(np.unique(keys)[:-10])
    assert tree.memory_bytes < 20_000
    tree.check()


@pytest.mark.parametrize("key", [-1, UNIVERSE, 1 << 62])
def test_a_key_outside_the_universe_is_refused_and_changes_nothing(key):
    tree = VebTree([3])
    with pytest.raises(BadKey, match="0 <= key"):
        tree.insert(key)
    assert list(tree) == [3]


@pytest.mark.parametrize("word", [HIGH, USED])
def test_check_finds_a_changed_word(word):
    tree = VebTree(np.arange(0, 1 << 30, 1 << 20))
    tree._block[word] += 1
    with pytest.raises(Corrupt):
        tree.check()


def test_a_changed_entry_breaks_the_tree_or_makes_it_the_tree_of_other_keys():
    keys = np.unique(np.random.default_rng(3).integers(0, 1 << 20, 40))
    n_broken = 0
    for slot in np.flatnonzero(VebTree(keys)._block[TABLE::2]):
        tree = VebTree(keys)
        tree._block[TABLE + 2 * slot + 1] ^= 1 << 5
        try:
            tree.check()
        except Corrupt:
            n_broken += 1
        else:
            assert list(tree) != keys.tolist()
    assert n_broken > 40
