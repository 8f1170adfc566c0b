import pytest
from hypothesis import given
from hypothesis import strategies as st

from sish_cluster.core.slide import Slide
from sish_cluster.evaluation.leaving_out import Leaver, patient_of
from sish_cluster.evaluation.settings import LeaveOut

NAMES = st.sampled_from(
    ["TCGA-AA-0001-01Z-00-DX1", "TCGA-AA-0001-01Z-00-DX2", "tcga-aa-0002-01a", "C3N-02678-21",
     "C3N-02678-22", "C3L-00001-21", "biopsy 12", "TCGA-like", "C3N-0267", "x"]
)  # fmt: skip
SLIDES = st.lists(
    st.builds(
        Slide,
        NAMES,
        patient=st.sampled_from(["", "P1", "TCGA-AA-0001", "C3N-02678"]),
        institution=st.sampled_from(["", "north", "south"]),
    ),
    min_size=1,
    unique_by=lambda slide: slide.slide_id,
)


@pytest.mark.parametrize(
    ("name", "patient"),
    [
        ("TCGA-CR-7395-01A-01-TS1", "TCGA-CR-7395"),
        ("tcga-cr-7395-01a-01-ts1", "TCGA-CR-7395"),
        ("C3N-02678-21", "C3N-02678"),
        ("c3l-00004-22.x", "C3L-00004"),
        ("C3N-02678b-21", "C3N-02678b-21"),
        ("slide 7 of Mr X", "slide 7 of Mr X"),
    ],
)
def test_the_patient_is_read_from_the_names_of_two_archives_only(name, patient):
    assert patient_of(Slide(name)) == patient
    assert patient_of(Slide(name, patient="P7")) == "P7"


@given(SLIDES, st.sampled_from(LeaveOut))
def test_the_filter_hides_exactly_what_is_to_be_left_out(slides, leave_out):
    leaver = Leaver(slides, leave_out)
    for query in slides:
        where = leaver.filter_for(query)
        for slide in slides:
            assert where.passes(slide) != leaver.is_left_out(slide, query=query)


@given(SLIDES)
def test_no_slide_of_the_patient_passes_whether_named_by_label_or_by_slide_id(slides):
    leaver = Leaver(slides, LeaveOut.PATIENT)
    for query in slides:
        passing = [slide for slide in slides if leaver.filter_for(query).passes(slide)]
        assert patient_of(query) not in [patient_of(slide) for slide in passing]


@given(SLIDES)
def test_leaving_an_institution_out_hides_every_slide_of_it(slides):
    leaver = Leaver(slides, LeaveOut.INSTITUTION)
    for query in slides:
        passing = [slide for slide in slides if leaver.filter_for(query).passes(slide)]
        assert not query.institution or query.institution not in [s.institution for s in passing]
