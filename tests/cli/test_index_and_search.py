import json
import re

import pytest

from sish_cluster.local import open_home


def test_bad_slides_are_listed_with_what_to_do_and_stop_no_other(indexed):
    result, _ = indexed
    assert result.exit_code == 4, result.output
    assert "2 slides stored, 0 unchanged, 5 failed" in result.stdout
    for name in ("empty", "scaleless", "truncated", "picture", "lost"):
        assert re.search(rf"│\s+{name}\s+│\s+\S", result.stdout), name
    assert "--mpp" in result.stdout
    assert "Traceback" not in result.output


def test_what_is_stored_is_not_encoded_again(indexed, archive, sish, monkeypatch):
    _, home = indexed
    monkeypatch.setattr(
        "sish_cluster.encoder.pipeline.Encoder.encode_patches", lambda *_: pytest.fail("encoded")
    )
    again = sish(
        "index",
        archive,
        "--labels",
        archive / "labels.csv",
        "-c",
        "demo",
        "--no-ray",
        "--home",
        home,
    )
    assert "0 slides stored, 2 unchanged" in again.stdout, again.output


def test_corrected_labels_are_stored_without_encoding_again(indexed, archive, sish, tmp_path, monkeypatch):  # fmt: skip
    _, home = indexed
    monkeypatch.setattr(
        "sish_cluster.encoder.pipeline.Encoder.encode_patches", lambda *_: pytest.fail("encoded")
    )
    text = (archive / "labels.csv").read_text()
    corrected = tmp_path / "labels.csv"
    corrected.write_text("\n".join(text.replace("patient-good-2", "patient-X").splitlines()[:3]))
    result = sish("index", archive, "--labels", corrected, "-c", "demo", "--no-ray", "--home", home)
    assert "1 slide stored, 1 unchanged" in result.stdout, result.output
    with open_home(home) as client:
        assert client.list_slides("demo", slide_id="good-2")[0].slide.patient == "patient-X"


def test_an_indexed_slide_finds_itself_first_at_distance_0(indexed, archive, sish):
    _, home = indexed
    result = sish("search", archive / "good-1.tif", "-c", "demo", "--home", home, "--json")
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout)
    first = answer["results"][0]
    assert (first["slide"]["slide_id"], first["distance"], first["rank"]) == ("good-1", 0, 1)
    assert answer["mode"] == "exact"
    assert answer["coverage"] == 1.0
    assert answer["query"]["patient"] == "patient-good-1"


def test_the_table_shows_labels_prediction_and_coverage(indexed, archive, sish):
    _, home = indexed
    result = sish("search", archive / "good-1.tif", "-c", "demo", "--home", home, "-k", 1)
    row = next(line for line in result.stdout.splitlines() if "kind-1" in line)
    for cell in ("good-1", "lung", "100.0%", " 0 "):
        assert cell in row, result.stdout
    assert "prediction kind-1" in result.stdout


@pytest.mark.parametrize(
    "options",
    [
        ["--exclude-patient"],
        ["--exclude-slide"],
        ["--exclude-patient", "patient-good-1"],
        ["--where", "slide!=good-1"],
    ],
)
def test_a_slide_that_is_left_out_is_not_found(indexed, archive, sish, options):
    _, home = indexed
    common = ("-c", "demo", "--home", home, "--json", "--max-distance", 1024)
    result = sish("search", archive / "good-1.tif", *common, *options)
    assert result.exit_code == 0, result.output
    found = [r["slide"]["slide_id"] for r in json.loads(result.stdout)["results"]]
    assert found == ["good-2"]


def test_nothing_within_the_filter_is_an_answer_with_its_reason(indexed, archive, sish):
    _, home = indexed
    result = sish(
        "search", archive / "good-1.tif", "-c", "demo", "--home", home, "--where", "site=moon"
    )
    assert result.exit_code == 0, result.output
    assert "no slide" in result.stdout
    assert "widen the filter" in result.stdout


def test_a_page_is_written_with_pictures_of_query_and_results(indexed, archive, sish, tmp_path):
    _, home = indexed
    page = tmp_path / "out" / "report.html"
    common = ("-c", "demo", "--home", home, "--slides-dir", archive)
    result = sish("search", archive / "good-1.tif", *common, "--html", page)
    assert result.exit_code == 0, result.output
    text = page.read_text()
    assert text.count("data:image/jpeg;base64,") >= 4
    assert "Slide good-1, boxes at matched patches 1" in text


def test_a_collection_of_another_encoder_is_refused_before_anything_is_encoded(archive, sish, tmp_path):  # fmt: skip
    home = tmp_path / "home"
    made = sish("collection", "create", "demo", "--fingerprint", "other", "--code-bits", 1024, "--home", home)  # fmt: skip
    assert made.exit_code == 0, made.output
    options = ("-c", "demo", "--no-ray", "--home", home)
    result = sish("index", archive, "--labels", archive / "labels.csv", *options)
    assert result.exit_code == 1
    assert "fingerprint of the collection other" in result.stderr
    assert not (home / "encoded").exists()
    searched = sish("search", archive / "good-1.tif", "-c", "demo", "--home", home)
    assert searched.exit_code == 1
    assert "fingerprint of the collection other" in searched.stderr
