"""Filtered searches: equal to searching everything and leaving rows out, whatever comes and goes."""

import dataclasses

import numpy as np
import pytest

from sish_cluster.core.clock import NEVER_CANCELLED
from sish_cluster.core.query import Filter, Mode, SearchSettings
from sish_cluster.core.seams import SlideState
from sish_cluster.core.slide import Slide
from sish_cluster.shard import selections as selections_module
from sish_cluster.shard.index import PostingIndex
from sish_cluster.shard.ledger import Ledger
from sish_cluster.shard.records import SlideRecord
from sish_cluster.shard.scope import Passing

CODE_BYTES, PATCHES = 64, 10
FILTERS = (
    Filter(),
    Filter.of(keep={"site": ["rare"]}),
    Filter.of(keep={"site": ["rare", "odd"]}, leave_out={"patient": ["p3"]}),
    Filter.of(leave_out={"site": ["common"]}),
    Filter.of(keep={"block": [""]}),
    Filter.of(keep={"site": ["nowhere"]}),
)


class Collection:
    """A ledger and an index changed together, as a shard does it, with a plain list of what is there."""

    def __init__(self):
        self.rng = np.random.default_rng(7)
        self.ledger, self.index = Ledger(), PostingIndex(CODE_BYTES)
        self.columns, self.slides, self.committed = [], [], []

    def add(self, n, state=SlideState.COMMITTED):
        for _ in range(n):
            number = len(self.slides)
            site = "rare" if number % 25 == 3 else "odd" if number % 25 == 9 else "common"
            labels = {"block": f"b{number}"} if number > 100 else {}
            slide = Slide(f"s{number:04d}", patient=f"p{number % 5}", site=site, labels=labels)
            record = SlideRecord(
                slide=slide, version="1", fingerprint="f", state=state, is_home=True, home="here",
                stored_at_s=0.0, postings=PATCHES,
            )  # fmt: skip
            ordinal = self.ledger.add(number, record)
            columns = {
                "keys": self.rng.integers(0, 1 << 50, PATCHES).astype(np.uint64),
                "codes": self.rng.integers(0, 2, (PATCHES, CODE_BYTES), dtype=np.uint8),
                "ordinals": np.full(PATCHES, ordinal, np.uint32),
                "numbers": np.arange(PATCHES, dtype=np.uint32),
                "corners": np.zeros((PATCHES, 2), np.int32),
            }
            self.index.insert(**columns)
            self.columns.append(columns)
            self.slides.append(slide)
            self.committed.append(state is SlideState.COMMITTED)

    def forget(self, ordinal):
        self.ledger.remove(ordinal)
        self.index.forget(np.array([ordinal], np.uint32))
        self.committed[ordinal] = False

    def commit(self, ordinal):
        self.ledger.commit(ordinal)
        self.committed[ordinal] = True

    def search(self, view, snapshot, where, settings):
        return snapshot.search(
            self.columns[3]["keys"][:2],
            self.columns[3]["codes"][:2],
            settings,
            eligible=view.eligible(where),
            slide_ids_of=view.slide_ids_of,
            mergeable=False,
            cancellation=NEVER_CANCELLED,
            passing=view.passing(where),
        )

    def assert_as_without_copies(self, where, settings):
        """The same answer as an index of only the eligible slides gives, rows and counts."""
        chosen = [
            o for o, slide in enumerate(self.slides) if self.committed[o] and where.passes(slide)
        ]
        only = PostingIndex(CODE_BYTES)
        for ordinal in chosen:
            only.insert(**self.columns[ordinal])
        view = self.ledger.view()
        found = self.search(view, self.index.snapshot(), where, settings)
        want = self.search(view, only.snapshot(), Filter(), settings)
        for field in dataclasses.fields(found):
            mine, theirs = getattr(found, field.name), getattr(want, field.name)
            assert np.array_equal(mine, theirs) if mine is not None else theirs is None, field.name
        assert found.eligible == PATCHES * len(chosen)


@pytest.mark.parametrize("mode", [Mode.SISH, Mode.GUIDED, Mode.EXACT])
def test_filters_see_every_commit_forget_and_compaction_at_once(mode):
    held = Collection()
    settings = SearchSettings(mode=mode, max_distance=45, max_steps=20, seeds_per_side=3)
    for step in range(6):
        held.add(40)
        held.add(5, SlideState.PENDING)
        for where in FILTERS:
            held.assert_as_without_copies(where, settings)
        held.commit(45 * step + 40 + step % 5)
        held.forget(45 * step + 3)
        if step == 3:
            held.index.compact()
        for where in FILTERS:
            held.assert_as_without_copies(where, settings)


def test_an_older_view_keeps_its_answer_under_a_filter():
    held = Collection()
    held.add(60)
    where, settings = FILTERS[1], SearchSettings(mode=Mode.EXACT, max_distance=512)
    view, snapshot = held.ledger.view(), held.index.snapshot()
    before = held.search(view, snapshot, where, settings)
    held.add(60)
    held.forget(3)
    after = held.search(held.ledger.view(), held.index.snapshot(), where, settings)
    again = held.search(view, snapshot, where, settings)
    assert before.eligible == again.eligible == 3 * PATCHES
    assert np.array_equal(before.ordinals, again.ordinals)
    assert after.eligible == 4 * PATCHES
    assert 3 not in after.ordinals


def test_copies_for_a_filter_are_made_once_per_segment(monkeypatch):
    held, made = Collection(), []
    held.add(200)
    copy_of = selections_module.Passing.copies_of.__globals__["copy_of"]

    def counted(segment, flags):
        made.append(segment)
        return copy_of(segment, flags)

    monkeypatch.setattr("sish_cluster.shard.scope.copy_of", counted)
    for _ in range(5):
        held.add(1)
        held.assert_as_without_copies(FILTERS[1], SearchSettings(mode=Mode.GUIDED))
    assert len({id(segment) for segment in made}) == len(made)


def test_copies_of_filters_asked_for_long_ago_are_dropped(monkeypatch):
    monkeypatch.setattr(selections_module, "FEWEST_COPIED", 100)
    held = Collection()
    held.add(300)
    settings = SearchSettings(mode=Mode.GUIDED)
    for number in range(40):
        where = Filter.of(keep={"slide": [f"s{number + i:04d}" for i in range(5)]})
        held.assert_as_without_copies(where, settings)
        view = held.ledger.view()
        assert len(view.selections) <= selections_module.FILTERS_KEPT
        assert view.selections.copied_rows <= 300 * PATCHES / 16 + 5 * PATCHES


def test_entries_that_were_added_never_change():
    passing = Passing()
    passing.add(0, np.array([True, False]))
    early = passing.flags(2)
    passing.add(1, np.array([True, True, False]))
    passing.add(0, np.zeros(2, bool))
    assert early.tolist() == [True, False]
    assert passing.flags(4).tolist() == [True, False, True, False]
    passing.add(4, np.ones(100, bool))
    assert passing.flags(5).tolist() == [True, False, True, False, True]
    assert len(passing) == 104
