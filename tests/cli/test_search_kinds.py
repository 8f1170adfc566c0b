"""Searches by cosine, by region, by case and by stored slide, on what `sish index --keep` made."""

import json

import pytest


@pytest.fixture(scope="module")
def kept(archive, tmp_path_factory):
    """The home of three collections: codes and embeddings, embeddings alone, and a ResNet's."""
    torch = pytest.importorskip("torch", reason="needs the extra 'encoder'")
    from sish_cluster.encoder.networks.resnet import ResNet

    home = tmp_path_factory.mktemp("kept")
    torch.manual_seed(0)
    torch.save({"module." + n: t for n, t in ResNet(18).state_dict().items()}, home / "r18.pth")
    return home


@pytest.fixture(scope="module")
def own(kept):
    return ("--embedder", "resnet18", "--weights", kept / "r18.pth")


@pytest.fixture(scope="module")
def made(kept, own, archive):
    from click.testing import CliRunner

    from sish_cluster.cli import main

    common = ["index", archive, "--labels", archive / "labels.csv", "--no-ray", "--home", kept]
    results = {
        name: CliRunner().invoke(main, [str(word) for word in (*common, "-c", name, *options)])
        for name, options in {
            "both": ("--keep", "both"),
            "features": ("--keep", "embeddings"),
            "resnet": own,
        }.items()
    }
    for name, result in results.items():
        assert "2 slides stored" in result.stdout, (name, result.output)
    return results


@pytest.fixture
def answer(sish, kept, made):
    """Search and return the answer's JSON."""

    def ask(*arguments):
        result = sish("search", *arguments, "--home", kept, "--json")
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    return ask


def test_a_collection_of_both_answers_by_code_and_by_cosine(answer, archive):
    by_code = answer(archive / "good-1.tif", "-c", "both")
    by_cosine = answer(archive / "good-1.tif", "-c", "both", "--mode", "direct")
    assert (by_code["mode"], by_cosine["mode"]) == ("exact", "direct")
    for found in (by_code, by_cosine):
        assert found["results"][0]["slide"]["slide_id"] == "good-1"
    assert by_cosine["results"][0]["distance"] <= 32


def test_embeddings_alone_are_searched_by_cosine_and_by_nothing_else(answer, archive, sish, kept):
    found = answer(archive / "good-1.tif", "-c", "features", "--min-cosine", -1)
    assert found["mode"] == "direct"
    assert {r["slide"]["slide_id"] for r in found["results"]} == {"good-1", "good-2"}
    refused = sish("search", archive / "good-1.tif", "-c", "features", "--mode", "exact", "--home", kept)  # fmt: skip
    assert refused.exit_code == 1
    assert "keeps no codes" in refused.stderr


def test_a_high_min_cosine_leaves_only_what_is_equal(answer, archive):
    found = answer(archive / "good-1.tif", "-c", "features", "--min-cosine", 0.9999)
    assert [r["slide"]["slide_id"] for r in found["results"]] == ["good-1"]


def test_table_and_page_show_cosines_after_a_direct_search(sish, made, kept, archive, tmp_path):
    common = ("-c", "both", "--mode", "direct", "--home", kept)
    page = tmp_path / "page.html"
    result = sish("search", archive / "good-1.tif", *common, "--html", page)
    assert "cos 1.000" in result.stdout, result.output
    text = page.read_text()
    assert "cosine 1.000" in text
    assert "bits apart" not in text


def test_another_embedder_has_no_keys_its_own_mosaic_and_retccls_ranking(answer, archive, own):
    found = answer(archive / "good-1.tif", "-c", "resnet", *own, "--ranking", "retccl")
    assert (found["mode"], found["ranking"]) == ("direct", "retccl")
    assert found["results"][0]["slide"]["slide_id"] == "good-1"
    assert found["results"][0]["slide"]["patch_side_px"] == 512


def test_a_region_is_asked_about_instead_of_the_slide(answer, archive, tmp_path):
    slide = archive / "good-1.tif"
    rectangle = answer(slide, "-c", "both", "--rectangle", "200,200,2000,1000")
    outline = [[200, 200], [2200, 200], [2200, 1200], [200, 1200], [200, 200]]
    file = tmp_path / "a.geojson"
    file.write_text(json.dumps({"type": "Polygon", "coordinates": [outline]}))
    region = answer(slide, "-c", "both", "--region", file)
    assert rectangle["n_query_patches"] == region["n_query_patches"] == 2
    assert rectangle["results"] == region["results"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--rectangle", "1,2,3"], "x,y,width,height"),
        (["--rectangle", "90000,0,10,10"], "none of it is on the slide"),
        (["--slide-id", "good-2", "--rectangle", "0,0,9,9"], "exactly one SLIDE"),
    ],
)
def test_a_region_that_cannot_be_asked_about_is_refused(sish, made, kept, archive, options, words):
    result = sish("search", archive / "good-1.tif", "-c", "both", "--home", kept, *options)
    assert result.exit_code == 1
    assert words in result.stderr


def test_several_slides_are_one_case_and_each_patch_says_whose_it_is(answer, archive, sish, kept, tmp_path):  # fmt: skip
    files = (archive / "good-1.tif", archive / "good-2.tif")
    found = answer(*files, "-c", "both")
    assert found["query"]["slide_id"] == "good-1 + good-2"
    assert [part["slide_id"] for part in found["parts"]] == ["good-1", "good-2"]
    assert len(found["query_patches"]) == found["n_query_patches"]
    first = {r["slide"]["slide_id"]: r["matches"][0] for r in found["results"]}
    for name, match in first.items():
        assert found["query_patches"][match["query_number"]][0] == name
        assert match["distance"] == 0
    page = tmp_path / "case.html"
    sish("search", *files, "-c", "both", "--home", kept, "--html", page)
    assert "of good-2 · its match" in page.read_text()


def test_a_stored_slide_is_a_query_without_its_file(answer, archive):
    found = answer("--slide-id", "good-1", "-c", "both")
    from_file = answer(archive / "good-1.tif", "-c", "both")
    assert found["results"] == from_file["results"]
    both = answer(archive / "good-1.tif", "--slide-id", "good-2", "-c", "both", "--exclude-slide")
    assert both["results"] == []


def test_a_search_without_any_slide_says_what_to_name(sish, made, kept):
    result = sish("search", "-c", "both", "--home", kept)
    assert result.exit_code == 1
    assert "--slide-id" in result.stderr


def test_what_a_collection_keeps_never_changes(sish, made, kept, archive):
    options = ("-c", "both", "--no-ray", "--home", kept, "--keep", "codes")
    result = sish("index", archive, "--labels", archive / "labels.csv", *options)
    assert result.exit_code == 1
    assert "keeps both, and --keep codes was asked for" in result.stderr


def test_a_patient_left_out_under_another_spelling_is_warned_about(sish, kept, made, archive):
    arguments = ("search", archive / "good-1.tif", "-c", "both", "--home", kept)
    told = sish(*arguments, "--exclude-patient", "nobody")
    assert (told.exit_code, "patient 'nobody'" in told.stderr) == (0, True), told.output
    assert "warning" not in sish(*arguments, "--exclude-patient").stderr


def test_a_time_limit_of_nothing_is_a_usage_error(sish, kept, made):
    refused = sish("search", "--slide-id", "good-1", "-c", "both", "--home", kept, "--timeout", 0)
    assert refused.exit_code == 2
    assert "--timeout" in refused.stderr
