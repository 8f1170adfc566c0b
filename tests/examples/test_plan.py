import importlib.util
import sys
from pathlib import Path

import pytest

from sish_cluster.core.slide import Slide
from sish_cluster.local.encoding import SlideToEncode

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture(scope="module")
def plan():
    spec = importlib.util.spec_from_file_location("demo_plan", EXAMPLES / "plan.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["demo_plan"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["demo_plan"]


def slide(name, patient, site, folder=Path("nowhere")):
    return SlideToEncode(folder / name, Slide(name, patient=patient, site=site))


ARCHIVE = [
    slide("a1", "A", "lung"),
    slide("a2", "A", "lung"),
    slide("b", "B", "liver"),
    slide("c", "C", "liver"),
    slide("d", "D", "skin"),
    slide("e", "E", "unknown"),
]


def test_one_slide_of_each_kind_is_held_out_and_its_note_is_true(plan):
    found = plan.plan_of(ARCHIVE)
    assert [held.slide.slide.slide_id for held in found.held_out] == ["a2", "c", "d"]
    assert [s.slide.slide_id for s in found.indexed] == ["a1", "b", "e"]
    indexed = [s.slide for s in found.indexed]
    for held in found.held_out:
        has_organ = any(s.site == held.slide.slide.site for s in indexed)
        assert has_organ != ("nor is any" in held.note)


def test_the_pair_is_the_indexed_and_the_held_out_slide_of_one_patient(plan):
    inside, outside = plan.plan_of(ARCHIVE).pair
    assert (inside.slide.slide_id, outside.slide.slide_id) == ("a1", "a2")


@pytest.mark.parametrize("count", [2, 3, 4])
def test_few_slides_still_leave_some_to_find_and_one_to_ask(plan, count):
    found = plan.plan_of(ARCHIVE[:count])
    assert found.held_out
    assert found.indexed
    assert len(found.held_out) + len(found.indexed) == count


def test_slides_without_labels_still_make_a_plan_without_a_pair(plan):
    found = plan.plan_of([slide(name, "", "") for name in "xyz"])
    assert (len(found.indexed), len(found.held_out), found.pair) == (2, 1, None)


def test_a_limit_keeps_a_pair_and_then_the_smallest_files(plan, tmp_path):
    sizes = {"a1": 900, "a2": 800, "b": 10, "c": 20, "d": 700}
    for name, size in sizes.items():
        (tmp_path / name).write_bytes(b"x" * size)
    slides = [slide(s.slide.slide_id, s.slide.patient, s.slide.site, tmp_path) for s in ARCHIVE[:5]]
    assert [s.slide.slide_id for s in plan.few(slides, 4)] == ["a1", "a2", "b", "c"]
    assert plan.few(slides, None) == slides
