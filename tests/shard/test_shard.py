"""A shard as its callers see it: durable, idempotent, atomic, refusing what does not belong."""

import dataclasses

import numpy as np
import pytest

from sish_cluster.core.clock import Cancellation
from sish_cluster.core.collection import Collection
from sish_cluster.core.errors import (
    BadMessage,
    BadRequest,
    Cancelled,
    CollectionExists,
    FingerprintMismatch,
    HomeInUse,
    Moved,
    UnknownCollection,
    UnknownSlide,
)
from sish_cluster.core.key import UNIVERSE
from sish_cluster.core.query import AUTO_EXACT_POSTINGS, Filter, Mode
from sish_cluster.core.seams import SlideState
from sish_cluster.core.topology import KeyRange, Selector
from sish_cluster.shard.shard import Shard

PENDING, COMMITTED = SlideState.PENDING, SlideState.COMMITTED


def test_a_slide_is_found_at_distance_zero_as_soon_as_its_ingest_returns(shard, make):
    encoded = make.slide("s1", 1)
    outcome = shard.ingest("demo", encoded)
    answer = shard.search("demo", make.query(encoded.patches))
    assert not outcome.was_stored
    assert [slide.slide_id for slide in answer.slides] == ["s1"]
    assert answer.candidates.offsets.tolist() == [0, 1, 2, 3, 4, 5]
    assert (answer.candidates.distances == 0).all()
    np.testing.assert_array_equal(answer.candidates.keys, encoded.patches.keys)
    np.testing.assert_array_equal(answer.candidates.corners, encoded.patches.corners)
    assert answer.eligible == 5


def test_the_same_slide_and_version_again_changes_nothing(shard, make):
    encoded = make.slide("s1", 1)
    first, again = (shard.ingest("demo", encoded) for _ in range(2))
    assert (first.was_stored, again.was_stored) == (False, True)
    assert shard.describe_collection("demo").postings == 5


def test_a_pending_slide_is_not_eligible_until_it_is_committed(shard, make):
    encoded = make.slide("s1", 1)
    shard.ingest("demo", encoded, state=PENDING, home="other")
    assert make.found(shard, encoded) == []
    assert [(p.slide_id, p.home) for p in shard.list_pending("demo")] == [("s1", "other")]
    shard.commit_slide("demo", "s1", encoded.version)
    assert make.found(shard, encoded) == ["s1"]
    assert shard.list_pending("demo") == []


def test_committing_twice_changes_nothing_and_committing_the_unknown_is_refused(shard, make):
    encoded = make.slide("s1", 1)
    shard.ingest("demo", encoded, state=PENDING)
    for _ in range(2):
        shard.commit_slide("demo", "s1", encoded.version)
    with pytest.raises(UnknownSlide, match="no pending version v9"):
        shard.commit_slide("demo", "s1", "v9")
    assert shard.describe_collection("demo").slides == 1


def test_a_late_retry_of_a_pending_ingest_does_not_hide_the_committed_slide(shard, make):
    encoded = make.slide("s1", 1)
    shard.ingest("demo", encoded)
    assert shard.ingest("demo", encoded, state=PENDING).was_stored
    assert make.found(shard, encoded) == ["s1"]
    assert shard.list_pending("demo") == []


def test_a_committed_ingest_of_a_pending_version_finishes_it(shard, make):
    encoded = make.slide("s1", 1)
    shard.ingest("demo", encoded, state=PENDING)
    assert shard.ingest("demo", encoded, state=COMMITTED).was_stored
    assert make.found(shard, encoded) == ["s1"]
    assert shard.describe_collection("demo").pending == 0


@pytest.mark.parametrize("in_two_steps", [False, True])
def test_a_new_version_replaces_the_old_one_when_it_is_committed(shard, make, in_two_steps):
    old, new = make.slide("s1", 1), make.slide("s1", 2, 3)
    shard.ingest("demo", old)
    if in_two_steps:
        shard.ingest("demo", new, state=PENDING)
        assert (make.found(shard, old), make.found(shard, new)) == (["s1"], [])
        shard.commit_slide("demo", "s1", new.version)
    else:
        shard.ingest("demo", new)
    assert (make.found(shard, old), make.found(shard, new)) == ([], ["s1"])
    state = shard.describe_collection("demo")
    assert (state.slides, state.postings) == (1, 3)
    assert [(s.version, s.postings) for s in shard.list_slides("demo")] == [(new.version, 3)]


def test_forgetting_removes_every_version_or_only_the_pending_one_that_is_named(shard, make):
    old, new = make.slide("s1", 1), make.slide("s1", 2)
    shard.ingest("demo", old)
    shard.ingest("demo", new, state=PENDING)
    assert shard.forget("demo", "s1", pending_version=old.version).was_stored is False
    assert shard.forget("demo", "s1", pending_version=new.version).postings == 5
    assert make.found(shard, old) == ["s1"]
    assert shard.forget("demo", "s1").postings == 5
    assert shard.forget("demo", "s1").was_stored is False
    assert make.found(shard, old) == []


def test_everything_is_as_it_was_after_opening_again(settings, make):
    kept, updated, begun = make.slide("kept", 1), make.slide("new", 3), make.slide("begun", 4)
    with Shard(settings) as shard:
        shard.create_collection(make.collection)
        for encoded in (kept, make.slide("gone", 2), make.slide("new", 9), updated):
            shard.ingest("demo", encoded)
        shard.ingest("demo", begun, state=PENDING)
        shard.forget("demo", "gone")
        before = shard.describe_collection("demo")
    with Shard(settings) as shard:
        assert shard.describe_collection("demo") == before
        assert [s.slide.slide_id for s in shard.list_slides("demo")] == ["kept", "new"]
        assert make.found(shard, updated) == ["new"]
        assert make.found(shard, begun) == []
        shard.commit_slide("demo", "begun", begun.version)
        assert make.found(shard, begun) == ["begun"]


def test_a_slide_of_many_chunks_and_one_without_patches_survive_opening_again(settings, make):
    large = make.slide("large", patches=make.patches(1, 10_000))
    none = make.slide("none", patches=make.patches(1, 0))
    with Shard(settings) as shard:
        shard.create_collection(make.collection)
        shard.ingest("demo", large)
        shard.ingest("demo", none)
    with Shard(settings) as shard:
        stored = {s.slide.slide_id: s.postings for s in shard.list_slides("demo")}
        assert stored == {"large": 10_000, "none": 0}
        query = make.query(large.patches.taken(np.array([0, 4095, 9999])))
        assert shard.search("demo", query).candidates.numbers.tolist() == [0, 4095, 9999]


def test_a_filter_and_the_label_counts_go_by_labels_and_home(shard, make):
    labels = [
        ("a", {"patient": "p1", "diagnosis": "LUAD", "site": "lung"}),
        ("b", {"patient": "p2", "diagnosis": "LUSC", "site": "lung"}),
        ("c", {"patient": "p2", "diagnosis": "GBM", "site": "brain", "labels": {"stain": "HE"}}),
        ("d", {"patient": "p3"}),
    ]
    patches = make.patches(1)
    for slide_id, values in labels:
        encoded = make.slide(slide_id, patches=patches, **values)
        shard.ingest("demo", encoded, is_home=slide_id != "a")
    filters = {
        "bcd": Filter.of(leave_out={"patient": ["p1", "nobody"]}),
        "ab": Filter.of(keep={"site": ["lung", "liver"]}),
        "c": Filter.of(keep={"stain": ["HE"]}),
        "abd": Filter.of(leave_out={"stain": ["HE"]}),
        "": Filter.of(keep={"never": ["x"]}),
        "abcd": Filter.of(keep={"never": [""]}),
        "bc": Filter.of(keep={"slide": ["a", "b", "c"]}, leave_out={"slide": ["a"]}),
    }
    for expected, where in filters.items():
        answer = shard.search("demo", make.query(patches, where=where))
        assert "".join(sorted(s.slide_id for s in answer.slides)) == expected
        assert answer.eligible == 5 * len(expected)
    query = dataclasses.replace(make.query(patches), patient="p3")
    assert shard.search("demo", query).label_counts == {"LUSC": 1, "GBM": 1}
    described = shard.describe_collection("demo")
    assert described.slides == 3
    assert described.label_counts["site"] == {"lung": 1, "brain": 1}


def test_auto_is_exact_while_few_postings_are_eligible_and_guided_beyond(shard, make):
    patches = make.patches(1, AUTO_EXACT_POSTINGS, code_bytes=16)
    shard.ingest("demo", make.slide("most", patches=patches, site="lung"))
    one = make.slide("one", 2, 1, site="brain")
    query = make.query(one.patches, mode=Mode.AUTO)
    assert shard.search("demo", query).mode is Mode.EXACT
    shard.ingest("demo", one)
    assert shard.search("demo", query).mode is Mode.GUIDED
    few = make.query(one.patches, mode=Mode.AUTO, where=Filter.of(keep={"site": ["brain"]}))
    assert shard.search("demo", few).mode is Mode.EXACT


def test_slides_and_keys_that_belong_elsewhere_are_moved(tmp_path, settings, make):
    owned = dataclasses.replace(
        settings, name="low-lung", selector=Selector.parsed(["site=lung"]), range=KeyRange(0, 1000)
    )
    with Shard(owned) as shard:
        shard.create_collection(make.collection)
        inside = make.patches(1, high=1000)
        with pytest.raises(Moved, match="site=lung"):
            shard.ingest("demo", make.slide("s", patches=inside, site="brain"))
        with pytest.raises(Moved, match="outside shard 'low-lung', which owns 0:1000"):
            shard.ingest("demo", make.slide("s", patches=make.patches(1, low=1000), site="lung"))
        assert not shard.ingest("demo", make.slide("s", patches=inside, site="lung")).was_stored


def test_what_does_not_fit_the_collection_is_refused_with_what_was_found(shard, make):
    with pytest.raises(FingerprintMismatch, match="fingerprint-1, found other"):
        shard.ingest("demo", make.slide("s", 1, fingerprint="other"))
    with pytest.raises(BadMessage, match=r"codes of 16 bytes .*found codes of 32 bytes"):
        shard.ingest("demo", make.slide("s", patches=make.patches(1, code_bytes=32)))
    with pytest.raises(UnknownCollection, match=r"no collection 'none' .it has: demo"):
        shard.ingest("none", make.slide("s", 1))
    with pytest.raises(BadRequest, match="no version"):
        shard.ingest("demo", dataclasses.replace(make.slide("s", 1), version=""))
    with pytest.raises(FingerprintMismatch):
        query = make.query(make.patches(1))
        shard.search("demo", dataclasses.replace(query, fingerprint="other"))
    assert shard.describe_collection("demo").slides == 0


def test_creating_a_collection_again_is_fine_only_with_equal_properties(shard, make):
    assert shard.create_collection(make.collection) is False
    with pytest.raises(CollectionExists, match="exists as"):
        shard.create_collection(Collection("demo", fingerprint="other", code_bits=128))
    assert shard.create_collection(Collection("more", fingerprint="f", code_bits=64)) is True
    assert [c.name for c in shard.list_collections()] == ["demo", "more"]


def test_many_collections_made_at_once_keep_apart(settings, make):
    names = [f"c{i}" for i in range(20)]
    with Shard(settings) as shard:
        begun = [shard.begin_create(Collection(n, fingerprint=n, code_bits=128)) for n in names]
        assert all(future.result() for future in begun)
        for i, name in enumerate(names):
            shard.ingest(name, make.slide(name, i, fingerprint=name))
    with Shard(settings) as shard:
        listed = {n: [s.slide.slide_id for s in shard.list_slides(n)] for n in names}
        assert listed == {name: [name] for name in names}


def test_a_second_opening_of_the_data_directory_is_refused_naming_the_process(shard, settings):
    with pytest.raises(HomeInUse, match=r"in use by process [0-9]+"):
        Shard(settings)


def test_a_range_is_looked_up_in_pages_that_never_cut_a_key(shard, make):
    keys = [5, 5, 5, 9, 20, 20, 30]
    codes = np.zeros((7, 16), np.uint8)
    columns = type(make.patches(1)).of(keys, codes)
    for slide_id in ("b", "a"):
        shard.ingest("demo", make.slide(slide_id, patches=columns))
    seen, token = [], ""
    while True:
        page = shard.range_lookup("demo", 5, 30, page_size=2, page_token=token)
        ids = [page.slides[row].slide_id for row in page.slide_rows]
        seen += list(zip(page.keys.tolist(), ids, page.numbers.tolist(), strict=True))
        token = page.next_page_token
        if not token:
            break
    expected = [(k, s, i) for s in "ab" for i, k in enumerate(keys) if k < 30]
    assert seen == sorted(expected)


def test_a_range_or_a_token_out_of_bounds_is_refused(shard):
    assert shard.range_lookup("demo", 7, 9).codes.shape == (0, 16)
    with pytest.raises(BadRequest, match=r"found \[7, 7\)"):
        shard.range_lookup("demo", 7, 7)
    with pytest.raises(BadRequest, match="is not one of the range"):
        shard.range_lookup("demo", 7, 9, page_token="after-9")
    with pytest.raises(BadRequest, match="at most 1000000 postings"):
        shard.range_lookup("demo", 7, 9, page_size=10**7)


def test_neighbours_are_the_nearest_occupied_eligible_keys(shard, make):
    codes = np.zeros((4, 16), np.uint8)
    columns = type(make.patches(1)).of([10, 20, 30, UNIVERSE - 1], codes)
    shard.ingest("demo", make.slide("a", patches=columns, site="lung"))
    shard.ingest("demo", make.slide("b", patches=columns.taken(np.array([1])), site="brain"))
    found = shard.neighbours("demo", 20, predecessors=5, successors=1)
    assert (found.predecessors.tolist(), found.successors.tolist()) == ([10], [30])
    assert found.is_occupied
    brain = Filter.of(keep={"site": ["brain"]})
    few = shard.neighbours("demo", 30, predecessors=5, successors=5, where=brain)
    assert (few.predecessors.tolist(), few.successors.tolist()) == ([20], [])
    assert not few.is_occupied
    with pytest.raises(BadRequest, match="key must be"):
        shard.neighbours("demo", UNIVERSE, predecessors=1, successors=1)


def test_a_cancelled_search_stops(shard, make):
    shard.ingest("demo", make.slide("s", 1))
    with pytest.raises(Cancelled):
        gone = Cancellation(is_cancelled=lambda: True)
        shard.search("demo", make.query(make.patches(1)), cancellation=gone)


def test_a_change_cancelled_before_its_batch_is_not_made(settings, make):
    slow = dataclasses.replace(settings, group_slides=1)
    with Shard(slow) as shard:
        shard.create_collection(make.collection)
        begun = [shard.begin_ingest("demo", make.slide(f"s{i}", i)) for i in range(50)]
        cancelled = [future.cancel() for future in begun]
        stored = {s.slide.slide_id for s in shard.list_slides("demo")}
        for future, was_cancelled in zip(begun, cancelled, strict=True):
            if not was_cancelled:
                stored.add(future.result().slide_id)
    assert any(cancelled)
    with Shard(settings) as shard:
        assert {s.slide.slide_id for s in shard.list_slides("demo")} == stored


def test_the_status_names_what_the_shard_owns_and_uses(shard, make):
    shard.ingest("demo", make.slide("s", 1))
    status = shard.status()
    assert status.collections[0].slides == 1
    assert 0 < status.store_used_bytes < status.store_map_bytes
    assert status.resident_bytes > 10**7
    assert status.range == KeyRange()
