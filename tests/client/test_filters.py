import pytest
from hypothesis import given
from hypothesis import strategies as st

from sish_cluster.client import Exclusion, filter_of, parsed_filter
from sish_cluster.core.errors import BadFilter
from sish_cluster.core.slide import Slide

WORDS = st.text("abcXYZ019 ._-", min_size=1).map(str.strip).filter(bool)


def test_conditions_of_several_labels_must_all_hold():
    where = parsed_filter(["site=lung", "stain in (HE, PAS)", "patient!=P7"])

    def slide(**labels):
        stain = {"stain": labels.pop("stain", "HE")}
        return Slide("s", **{"site": "lung", "patient": "P1", **labels}, labels=stain)

    assert where.passes(slide())
    assert where.passes(slide(stain="PAS"))
    assert not where.passes(slide(stain="IHC"))
    assert not where.passes(slide(site="liver"))
    assert not where.passes(slide(patient="P7"))


def test_not_in_leaves_every_listed_value_out():
    where = parsed_filter(["site NOT IN (lung, liver)"])
    sites = ["lung", "liver", "brain", ""]
    assert [where.passes(Slide("s", site=site)) for site in sites] == [False, False, True, True]


def test_a_value_may_contain_spaces_and_equals_signs():
    where = parsed_filter(["diagnosis = ductal carcinoma, grade=2"])
    assert where.keep["diagnosis"] == {"ductal carcinoma, grade=2"}


@given(WORDS, WORDS)
def test_keeping_and_leaving_out_the_same_value_split_all_slides(value, other):
    slide = Slide("s", site=other)
    kept = parsed_filter([f"site={value}"]).passes(slide)
    left = parsed_filter([f"site!={value}"]).passes(slide)
    assert kept == (value == other)
    assert left != kept


@pytest.mark.parametrize(
    "condition", ["site", "=lung", "site=", "site in ()", "site in lung", "site ~ lung", "", "9=x"]
)
def test_a_condition_that_cannot_be_read_says_how_to_write_one(condition):
    with pytest.raises(BadFilter, match="write label=value"):
        parsed_filter([condition])


def test_two_conditions_that_no_slide_can_meet_are_refused():
    with pytest.raises(BadFilter, match=r"no slide can have site 'liver' and also 'lung'"):
        parsed_filter(["site=lung", "site=liver"])


def test_conditions_on_one_label_narrow_each_other():
    where = parsed_filter(["site in (lung, liver)", "site in (liver, brain)"])
    assert where.keep["site"] == {"liver"}


def test_the_querys_own_patient_is_left_out_beside_those_named():
    own = Exclusion.of(Slide("q", patient="P1"), patient=True)
    where = filter_of(["patient!=P2"], own.and_also(Exclusion(patients=("P3",))))
    assert where.leave_out["patient"] == {"P1", "P2", "P3"}


def test_leaving_out_an_unknown_patient_is_refused_with_what_to_do():
    with pytest.raises(BadFilter, match="nobody said who that is"):
        Exclusion.of(Slide("q"), patient=True)
