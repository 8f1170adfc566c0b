"""Slides, patch columns, filters, collections, topologies: what they refuse and what they mean."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sish_cluster.core import errors
from sish_cluster.core.clock import Cancellation, Deadline
from sish_cluster.core.collection import Collection
from sish_cluster.core.geometry import patch_side_px_of
from sish_cluster.core.key import UNIVERSE
from sish_cluster.core.posting import EncodedSlide, PatchColumns
from sish_cluster.core.query import Filter, SearchSettings
from sish_cluster.core.slide import Slide
from sish_cluster.core.topology import KeyRange, Selector, ShardSpec, Topology


class StoppedClock:
    def __init__(self):
        self.time_s = 100.0

    def now_s(self):
        return self.time_s


def columns(n=3):
    return PatchColumns.of(np.arange(n), np.zeros((n, 16), np.uint8))


def test_every_error_reason_is_unique_and_finds_its_class():
    classes = list(errors.error_classes())
    assert len({cls.reason() for cls in classes}) == len(classes)
    assert all(errors.error_class_of(cls.reason()) is cls for cls in classes)


def test_columns_of_different_lengths_are_refused():
    with pytest.raises(errors.BadMessage, match=r"3 keys but \{'codes': 2"):
        PatchColumns.of([1, 2, 3], np.zeros((2, 16), np.uint8))


def test_patch_numbers_must_ascend():
    with pytest.raises(errors.BadMessage, match="ascend strictly"):
        PatchColumns.of([1, 2], np.zeros((2, 16), np.uint8), numbers=[4, 4])


def test_a_slide_without_patches_is_a_value_too():
    assert len(PatchColumns.of([], np.zeros((0, 16), np.uint8))) == 0


def test_the_version_changes_with_any_content_and_only_then():
    encoded = EncodedSlide.whole(Slide("a", site="lung"), columns(), "fp")
    same = EncodedSlide.whole(Slide("a", site="lung"), columns(), "fp")
    others = [
        EncodedSlide.whole(Slide("a", site="skin"), columns(), "fp"),
        EncodedSlide.whole(Slide("a", site="lung"), columns(4), "fp"),
        EncodedSlide.whole(Slide("a", site="lung"), columns(), "fq"),
    ]
    assert encoded.version == same.version
    assert len({encoded.version, *(o.version for o in others)}) == 4


def test_a_part_of_a_slide_keeps_the_version_of_the_whole():
    encoded = EncodedSlide.whole(Slide("a"), columns(), "fp")
    part = encoded.part(np.array([True, False, True]))
    assert part.version == encoded.version
    assert part.patches.numbers.tolist() == [0, 2]


def test_an_extra_label_may_not_shadow_a_field():
    with pytest.raises(errors.BadLabels, match="'site'"):
        Slide("a", labels={"site": "lung"})
    with pytest.raises(errors.BadLabels, match="not empty"):
        Slide("")


def test_a_filter_needs_all_its_conditions():
    where = Filter.of(keep={"stain": ["HE", "PAS"]}, leave_out={"slide": ["b"], "patient": []})
    assert where.passes(Slide("a", labels={"stain": "PAS"}))
    assert not where.passes(Slide("a"))
    assert not where.passes(Slide("b", labels={"stain": "HE"}))
    with pytest.raises(errors.BadFilter, match="at least one value of 'site'"):
        Filter.of(keep={"site": []})


@pytest.mark.parametrize("name", ["", "Upper", "-a", "a" * 64, "a/b"])
def test_a_collection_name_that_could_hurt_is_refused(name):
    with pytest.raises(errors.BadRequest, match="collection name"):
        Collection(name, "fp", 1024)


def test_another_fingerprint_is_refused_with_both_named():
    with pytest.raises(errors.FingerprintMismatch, match=r"fingerprint\s+fp, found fq"):
        Collection("demo", "fp", 1024).check_fingerprint("fq")


def test_settings_name_the_field_its_value_and_its_bounds():
    with pytest.raises(errors.BadRequest, match=r"max_steps must be 0..1000000; found -1"):
        SearchSettings(max_steps=-1)


@pytest.mark.parametrize("text", ["5", "a:b", "0.5:9", "9:3", f"0:{UNIVERSE + 1}", "-1:5"])
def test_a_range_that_is_none_is_refused(text):
    with pytest.raises(errors.BadTopology):
        KeyRange.parsed(text)


def test_a_range_may_leave_out_either_end():
    assert KeyRange.parsed(":4e14") == KeyRange(0, 400_000_000_000_000)
    assert KeyRange.parsed("4e14:") == KeyRange(400_000_000_000_000, UNIVERSE)


def spec(name, low=0, high=UNIVERSE, **labels):
    return ShardSpec(name, f"{name}:1", Selector.of(labels), KeyRange(low, high))


@pytest.mark.parametrize(
    ("shards", "words"),
    [
        ([], "at least one shard"),
        ([spec("a"), spec("a", site="x")], "unique"),
        ([spec("a", 0, 5)], r"a gap in \[5,"),
        ([spec("a", 0, 5), spec("b", 6)], r"a gap in \[5, 6\) before shard 'b'"),
        ([spec("a", 0, 7), spec("b", 5)], r"an overlap in \[5, 7\) before shard 'b'"),
    ],
)
def test_a_topology_that_does_not_tile_is_refused(shards, words):
    with pytest.raises(errors.BadTopology, match=words):
        Topology(tuple(shards))


def test_a_slide_goes_to_the_first_group_that_owns_it():
    topology = Topology((spec("lung", site="lung"), spec("low", 0, 9), spec("high", 9)))
    assert [s.name for s in topology.group_of(Slide("a", site="lung"))] == ["lung"]
    assert [s.name for s in topology.group_of(Slide("a", site="skin"))] == ["low", "high"]
    with pytest.raises(errors.Moved, match="owns site=lung"):
        Topology((spec("lung", site="lung"),)).group_of(Slide("a", site="skin"))


@given(st.text(min_size=1))
def test_the_home_of_a_slide_is_stable_and_in_its_group(slide_id):
    group = (spec("low", 0, 9), spec("high", 9))
    assert Topology.home_of(slide_id, group) in group
    assert Topology.home_of(slide_id, group) == Topology.home_of(slide_id, group)


@pytest.mark.parametrize(("mpp", "side"), [(0.5, 1024), (0.25, 2048), (0.526, 973), (600.0, 1)])
def test_a_patch_covers_the_same_field_whatever_the_mpp(mpp, side):
    assert patch_side_px_of(mpp) == side


def test_a_cancellation_fires_at_its_deadline_and_not_before():
    clock = StoppedClock()
    cancellation = Cancellation(Deadline.after(5.0, clock))
    cancellation.check()
    clock.time_s += 5.0
    with pytest.raises(errors.DeadlineExceeded, match="allow more time"):
        cancellation.check()
    with pytest.raises(errors.Cancelled):
        Cancellation(is_cancelled=lambda: True).check()
