import pytest

from sish_cluster.core.slide import patient_of


@pytest.mark.parametrize(
    ("name", "patient"),
    [
        ("TCGA-CR-7395-01A-01-TS1.b0a7", "TCGA-CR-7395"),
        ("TCGA-05-4244-01Z-00-DX1", "TCGA-05-4244"),
        ("tcga-05-4244-01z", "tcga-05-4244"),
        ("TCGA-CR-7395", "TCGA-CR-7395"),
        ("C3N-02678-21", "C3N-02678"),
        ("C3L-00001-26", "C3L-00001"),
    ],
)
def test_names_of_public_archives_begin_with_their_patient(name, patient):
    assert patient_of(name) == patient


@pytest.mark.parametrize(
    "name",
    ["", "CMU-1", "liver-3-b", "TCGA-CR", "TCGA-CR-73955-01", "C3N-026789-21", "XC3N-02678-21"],
)
def test_names_of_any_other_form_say_nothing(name):
    assert patient_of(name) == ""
