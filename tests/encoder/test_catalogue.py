"""The labels table meets the folder: who is indexed, and what is said about the others."""

import pytest

from sish_cluster.core.errors import BadLabels, BadSlide
from sish_cluster.core.slide import Slide
from sish_cluster.encoder.catalogue import find_slides, matched, read_labels, slide_name

HEADER = "slide,patient,site,diagnosis"


def touched(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def labels_of(folder, *lines):
    path = folder / "labels.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return read_labels(path)


def test_slides_are_found_in_subfolders_sorted_and_by_known_names(tmp_path):
    touched(tmp_path, "b.SVS", "lung/a.tif", "notes.txt", ".hidden.svs", "lung/x.ndpi")
    names = [path.relative_to(tmp_path).as_posix() for path in find_slides(tmp_path)]
    assert names == ["b.SVS", "lung/a.tif", "lung/x.ndpi"]


def test_slides_of_several_files_are_found_once(tmp_path):
    touched(tmp_path, "m.mrxs", "m/Data0001.dat", "m/Index.jpg", "dicom.1/1.dcm", "dicom.1/2.dcm")
    touched(tmp_path, "vms/v.vms", "vms/v-0.jpg", "vms/v-1.jpg")
    names = [path.relative_to(tmp_path).as_posix() for path in find_slides(tmp_path)]
    assert names == ["dicom.1", "m.mrxs", "vms/v.vms"]
    assert [slide_name(path) for path in find_slides(tmp_path)] == ["dicom.1", "m", "v"]


def test_links_that_turn_in_a_circle_end(tmp_path):
    touched(tmp_path, "lung/a.svs")
    (tmp_path / "lung" / "again").symlink_to(tmp_path)
    assert [path.name for path in find_slides(tmp_path)] == ["a.svs"]


def test_a_missing_folder_of_slides_is_refused(tmp_path):
    with pytest.raises(BadSlide, match="no such folder of slides"):
        find_slides(tmp_path / "none")


def test_every_column_of_the_table_reaches_the_slide(tmp_path):
    labels = labels_of(
        tmp_path, HEADER + ",institution,mpp,stain", "s1,P1,lung,cancer,north,0.25,HE"
    )
    row = labels.rows["s1"]
    assert row.slide == Slide("s1", "P1", "lung", "cancer", "north", {"stain": "HE"})
    assert (row.mpp, row.line) == (0.25, 2)


@pytest.mark.parametrize(
    "data",
    [
        b"\xef\xbb\xbfSlide, Patient ,site,diagnosis\r\ns1,P1,colon,Gr\xc3\xbcn\r\n\r\n",
        "slide;patient;site;diagnosis\ns1;P1;colon;Grün\n".encode("cp1252"),
        "slide\tpatient\tsite\tdiagnosis\ns1\tP1\tcolon\tGrün\n".encode("utf-16"),
        '\n"slide","patient","site","diagnosis"\n"s1","P1","colon","Grün"'.encode(),
    ],
)
def test_tables_of_every_common_writer_read_alike(tmp_path, data):
    (tmp_path / "labels.csv").write_bytes(data)
    assert read_labels(tmp_path / "labels.csv").rows["s1"].slide == Slide(
        "s1", "P1", "colon", "Grün"
    )


def test_a_decimal_comma_is_a_decimal_point(tmp_path):
    labels = labels_of(tmp_path, "slide;patient;site;diagnosis;mpp", "s1;P;l;d;0,25", "s2;P;l;d;")
    assert [row.mpp for row in labels.rows.values()] == [0.25, None]


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        (
            ("slide,patient,organ", "s1,P1,lung"),
            "lacks the columns site, diagnosis; found slide, p",
        ),
        (("patient,site,diagnosis", "P1,l,d"), "lacks the columns slide;"),
        ((HEADER + ",site", "s1,P1,l,d,l"), "has the column 'site' twice"),
        ((HEADER,), "has a header but no rows"),
        (("",), "lacks the columns slide, patient, site, diagnosis; found none"),
        ((HEADER, "s1,P1,l,d", ",P2,l,d"), "line 3: names no slide"),
        ((HEADER, "s1,P1,l,d,extra"), "line 2: has 5 values for 4 columns"),
        ((HEADER + ",mpp", "s1,P1,l,d,0.5", "s2,P1,l,d,20x"), "line 3: mpp is '20x'"),
        ((HEADER + ",mpp", "s1,P1,l,d,-1"), "line 2: mpp is '-1'"),
        ((HEADER + ",mpp", "s1,P1,l,d,nan"), "line 2: mpp is 'nan'"),
        ((HEADER, 's1,P1,"l,d'), "line 2: is not CSV"),
    ],
)
def test_bad_tables_are_refused_by_line_and_by_what_was_found(tmp_path, lines, found):
    with pytest.raises(BadLabels) as caught:
        labels_of(tmp_path, *lines)
    assert found in str(caught.value)
    assert "labels.csv" in str(caught.value)


@pytest.mark.parametrize("data", [b"PK\x03\x04xlsx", b"\xd0\xcf\x11\xe0xls", b"slide\0patient"])
def test_files_that_are_no_text_are_refused(tmp_path, data):
    (tmp_path / "labels.csv").write_bytes(data)
    with pytest.raises(BadLabels, match=r"CSV \(UTF-8\)"):
        read_labels(tmp_path / "labels.csv")


def test_a_missing_table_is_refused(tmp_path):
    with pytest.raises(BadLabels, match="cannot be read"):
        read_labels(tmp_path / "none.csv")


def test_rows_that_contradict_each_other_are_refused_with_both_lines(tmp_path):
    with pytest.raises(
        BadLabels, match="'s1' has two rows that contradict each other, lines 2 and 4"
    ):
        labels_of(tmp_path, HEADER, "s1,P1,lung,d", "s2,P2,lung,d", "s1,P1,liver,d")


def test_equal_rows_are_used_once_and_reported(tmp_path):
    labels = labels_of(tmp_path, HEADER, "s1,P1,l,d", "s1,P1,l,d")
    catalogue = matched(touched(tmp_path, "s1.svs"), labels)
    assert [entry.slide.slide_id for entry in catalogue.entries] == ["s1"]
    assert catalogue.problems[0][0] == "s1"
    assert "equal rows on lines 2, 3" in catalogue.problems[0][1]


def test_a_file_without_row_and_a_row_without_file_are_problems_and_stop_nothing(tmp_path):
    slides = touched(tmp_path / "slides", "s1.svs", "s3.svs")
    catalogue = matched(slides, labels_of(tmp_path, HEADER, "s1,P1,l,d", "s2,P2,l,d"))
    assert [entry.slide.slide_id for entry in catalogue.entries] == ["s1"]
    (lost, no_file), (stray, no_row) = catalogue.problems
    assert (lost, stray) == ("s2", "s3")
    assert "line 3: slide 's2' has labels but no file under" in no_file
    assert "add a row with slide 's3'" in no_row


def test_a_file_column_places_slides_from_the_table_or_from_the_folder(tmp_path):
    slides = touched(tmp_path / "slides", "a/scan.svs", "b/scan.svs", "c.svs")
    labels = labels_of(
        tmp_path,
        "slide,file,patient,site,diagnosis",
        "one,slides/a/scan.svs,P1,l,d",
        "two,b\\scan.svs,P2,l,d",
        "c,elsewhere/c.svs,P3,l,d",
    )
    catalogue = matched(slides, labels)
    found = {e.slide.slide_id: e.path.relative_to(slides).as_posix() for e in catalogue.entries}
    assert found == {"one": "a/scan.svs", "two": "b/scan.svs", "c": "c.svs"}
    assert catalogue.problems == []


def test_a_file_column_alone_names_the_slides(tmp_path):
    labels = labels_of(tmp_path, "file,patient,site,diagnosis", "slides/s.1.svs,P1,l,d")
    catalogue = matched(touched(tmp_path / "slides", "s.1.svs"), labels)
    assert [entry.slide.slide_id for entry in catalogue.entries] == ["s.1"]


def test_names_with_their_suffix_match_too(tmp_path):
    labels = labels_of(tmp_path, HEADER, "s1.svs,P1,l,d")
    catalogue = matched(touched(tmp_path / "slides", "s1.svs"), labels)
    assert [entry.path.name for entry in catalogue.entries] == ["s1.svs"]


@pytest.mark.parametrize("with_labels", [True, False])
def test_one_name_in_two_folders_is_refused_with_both_paths(tmp_path, with_labels):
    slides = touched(tmp_path / "slides", "a/s1.svs", "b/s1.tif")
    labels = labels_of(tmp_path, HEADER, "s1,P1,l,d") if with_labels else None
    with pytest.raises(BadLabels, match="two files bear the slide name 's1'") as caught:
        matched(slides, labels)
    assert "a/s1.svs" in str(caught.value)
    assert "b/s1.tif" in str(caught.value)


def test_the_published_folder_layout_gives_site_diagnosis_and_magnification(tmp_path):
    touched(tmp_path, "lung/LUAD/20x/TCGA-05-4244-01Z-00-DX1.svs", "lung/other.svs")
    first, second = matched(tmp_path).entries
    assert first.slide == Slide(
        "TCGA-05-4244-01Z-00-DX1",
        patient="TCGA-05-4244",
        site="lung",
        diagnosis="LUAD",
        labels={"magnification": "20x"},
    )
    assert second.slide == Slide("other")
