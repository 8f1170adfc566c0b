"""Import -> search -> export -> import gives equal answers, through real embedded clusters."""

import csv
import pickle

import h5py
import numpy as np
import pytest

from sish_cluster.core.query import Mode, Query, Ranking, SearchSettings
from sish_cluster.exchange.plain_pickle import plain_pickle
from sish_cluster.local import open_home
from sish_cluster.testing.clusters import ProcessCluster, cut_by_range
from sish_cluster.testing.synthetic import SyntheticSlides
from tests.oracles import search as oracle

DRAWN = SyntheticSlides(patches=8)
MODES = [Mode.SISH, Mode.GUIDED, Mode.EXACT]


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A home with nine drawn slides in collection `synthetic`."""
    home = tmp_path_factory.mktemp("stored")
    with open_home(home) as client:
        client.create_collection(DRAWN.collection)
        for slide in DRAWN.slides(9):
            client.ingest_slide("synthetic", slide)
    return home


def postings_of(encoded):
    patches = encoded.patches
    return [
        oracle.Posting(
            int(key), int.from_bytes(code.tobytes()), encoded.slide.slide_id, int(number)
        )
        for key, code, number in zip(patches.keys, patches.codes, patches.numbers, strict=True)
    ]


def answers(home, collection, ids):
    """Return what every slide finds in every mode, published ranking and default: slides, distances."""
    found = {}
    with open_home(home) as client:
        fingerprint = client.definition_of(collection).fingerprint
        for slide_id in ids:
            encoded = client.encoded_slide(collection, slide_id)
            for mode in MODES:
                for ranking in (Ranking.SISH, Ranking.UNCERTAINTY):
                    query = Query(
                        encoded.patches,
                        fingerprint,
                        SearchSettings(mode=mode),
                        patient=encoded.slide.patient,
                    )
                    result = client.search(collection, query, k=9, ranking=ranking)
                    found[slide_id, mode, ranking] = [
                        (r.slide.slide_id, r.distance, r.uncertainty, r.matches, r.slide.diagnosis)
                        for r in result.results
                    ]
    return found


IDS = [f"slide-{n:04}" for n in range(9)]


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_a_table_gives_equal_answers_and_the_same_versions(stored, kind, sish, home, tmp_path, slides_in):  # fmt: skip
    file = tmp_path / f"out.{kind}"
    result = sish("export", "synthetic", "--to", kind, file, "--home", stored)
    assert "wrote 9 slides, 72 postings" in result.stdout
    again = sish("import", "tables", f"--{kind}", file, "-c", "copy", "--home", home)
    assert "9 slides stored, 0 unchanged, 0 failed" in again.stdout
    versions = {slide_id: slide.version for slide_id, slide in slides_in(home, "copy").items()}
    assert versions == {s.slide.slide_id: s.version for s in DRAWN.slides(9)}
    assert answers(home, "copy", IDS) == answers(stored, "synthetic", IDS)
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".part"] == []


def test_published_files_give_equal_answers_and_export_again_to_the_same_bytes(stored, sish, home, tmp_path):  # fmt: skip
    first, second = tmp_path / "first", tmp_path / "second"
    sish("export", "synthetic", "--to", "published", first, "--home", stored)
    arguments = ("--labels", first / "labels.csv", "-c", "copy", "--home", home)
    meta = first / "index_meta" / "meta.pkl"
    for expected in ("9 slides stored, 0 unchanged", "0 slides stored, 9 unchanged"):
        result = sish("import", "published", "--meta", meta, *arguments)
        assert expected in result.stdout, result.output
    before, after = answers(stored, "synthetic", IDS), answers(home, "copy", IDS)
    assert any(before.values())
    assert before == after
    sish("export", "copy", "--to", "published", second, "--home", home)
    for file in sorted(p for p in first.rglob("*") if p.suffix in (".pkl", ".csv")):
        assert file.read_bytes() == (second / file.relative_to(first)).read_bytes()


def test_a_database_imported_without_its_labels_says_that_patients_are_unknown(stored, sish, home, tmp_path):  # fmt: skip
    folder = tmp_path / "out"
    sish("export", "synthetic", "--to", "published", folder, "--home", stored)
    bare = (
        "import",
        "published",
        "--meta",
        folder / "index_meta/meta.pkl",
        "-c",
        "copy",
        "--home",
        home,
    )
    said = sish(*bare).stderr
    assert "warning: 9 slides without a patient: no search can leave" in said
    assert f"import again with --labels {folder / 'labels.csv'}" in said
    told = sish(*bare, "--labels", folder / "labels.csv")
    assert ("9 slides stored" in told.stdout, told.stderr.count("warning")) == (True, 0)
    (folder / "labels.csv").unlink()
    assert "import again with --labels CSV, a table with" in sish(*bare).stderr


def test_slides_named_after_their_patients_import_without_a_warning(pickled, sish, home):
    posting = {
        "slide_name": "TCGA-05-4244-01Z-00-DX1",
        "dense_binarized": "01" * 512,
        "x": 1,
        "y": 2,
    }
    arguments = ("--meta", pickled({5: [posting]}), "-c", "demo", "--home", home)
    told = sish("import", "published", *arguments)
    assert ("1 slide stored" in told.stdout, "warning" in told.stderr) == (True, False)


def test_exported_files_are_what_published_tools_read(stored, sish, tmp_path):
    sish("export", "synthetic", "--to", "published", tmp_path / "out", "--home", stored)
    meta = pickle.loads((tmp_path / "out/index_meta/meta.pkl").read_bytes())
    assert meta == plain_pickle(tmp_path / "out/index_meta/meta.pkl")
    assert list(meta) == sorted(meta)
    fields = {"slide_name", "dense_binarized", "x", "y", "slide_ext", "diagnosis", "site"}
    assert all(fields <= posting.keys() for postings in meta.values() for posting in postings)
    slide = DRAWN.slide(4)
    base = tmp_path / "out"
    place = "liver/liver-1/20x"
    texts = pickle.loads((base / f"LATENT/{place}/densenet/slide-0004.pkl").read_bytes())
    assert [len(text) for text in texts] == [1024] * 8
    with h5py.File(base / f"MOSAICS/{place}/coord_clean/slide-0004.h5") as file:
        np.testing.assert_array_equal(file["coords"][:], slide.patches.corners)
        assert file["coords"].dtype == np.int64
    with (base / "labels.csv").open() as file:
        row = list(csv.DictReader(file))[4]
    assert (row["slide"], row["patient"], row["stain"]) == ("slide-0004", "patient-2", "HE")


def test_results_hold_what_the_published_search_finds_for_each_query_patch(stored, sish, tmp_path):  # fmt: skip
    file = tmp_path / "results.pkl"
    options = ("--results", file, "--leave-out", "patient", "--home", stored)
    assert "wrote 9 searches" in sish("export", "synthetic", *options).stdout
    results = plain_pickle(file)
    patients = {s.slide.slide_id: s.slide.patient for s in DRAWN.slides(9)}
    assert list(results) == IDS
    meta = [posting for slide in DRAWN.slides(9) for posting in postings_of(slide)]
    for slide_id, found in results.items():
        eligible = {name for name, patient in patients.items() if patient != patients[slide_id]}
        for own, patch in zip(
            postings_of(DRAWN.slide(IDS.index(slide_id))), found["results"], strict=True
        ):
            wanted, _ = oracle.published(meta, eligible, own.key, own.code, oracle.Bounds())
            told = [(row["hamming_dist"], row["slide_name"]) for row in patch]
            assert told == [(distance, posting.slide) for distance, posting in wanted]
        assert found["label_query"] == DRAWN.slide(IDS.index(slide_id)).slide.diagnosis
        rows = [row for patch in found["results"] for row in patch]
        assert rows
        assert patients[slide_id] not in {patients[row["slide_name"]] for row in rows}
        assert all(0 <= row["hamming_dist"] <= 128 for row in rows)


def test_latents_are_imported_with_mosaics_and_patches_and_again_unchanged(published, sish, home, slides_in):  # fmt: skip
    rng = np.random.default_rng(1)
    for name in "abc":
        published.draw(name, rng, site="skin")
    published.add("broken", np.full((1, 64, 64), 200), ["0" * 64])
    folders = [("--latent", "LATENT"), ("--mosaics", "MOSAICS"), ("--patches", "PATCHES")]
    options = [part for name, folder in folders for part in (name, published.top / folder)]
    options += ["--codeword-order", published.order, "--code-bits", 64, "-c", "demo"]
    first = sish("import", "published", *options, "--home", home)
    assert first.exit_code == 4
    assert "3 slides stored, 0 unchanged, 1 failed" in first.stdout
    assert "codeword 200" in first.stdout.replace("\n", " ")
    again = sish("import", "published", *options, "--home", home)
    assert "0 slides stored, 3 unchanged, 1 failed" in again.stdout
    assert {s.slide.site for s in slides_in(home, "demo").values()} == {"skin"}


def test_a_fingerprint_somebody_vouches_for_is_taken_and_another_is_then_refused(pickled, sish, home):  # fmt: skip
    posting = {"slide_name": "a", "dense_binarized": "01" * 512, "x": 1, "y": 2}
    arguments = ("published", "--meta", pickled({5: [posting]}), "-c", "demo", "--home", home)
    assert sish("import", *arguments, "--fingerprint", "mine").exit_code == 0
    with open_home(home) as client:
        assert client.definition_of("demo").fingerprint == "mine"
    refused = sish("import", *arguments)
    assert refused.exit_code == 1
    assert (
        "holds imported published database (codes of 1024 bits, fingerprint mine)" in refused.stderr
    )
    assert "one encoder made both, add --fingerprint mine" in refused.stderr


def test_a_table_of_another_encoder_is_refused_with_what_both_are(stored, pickled, sish, home, tmp_path):  # fmt: skip
    posting = {"slide_name": "a", "dense_binarized": "01" * 512, "x": 1, "y": 2}
    sish("import", "published", "--meta", pickled({5: [posting]}), "-c", "demo", "--home", home)
    sish("export", "synthetic", "--to", "jsonl", tmp_path / "t.jsonl", "--home", stored)
    refused = sish(
        "import", "tables", "--jsonl", tmp_path / "t.jsonl", "-c", "demo", "--home", home
    )
    assert refused.exit_code == 1
    assert f"fingerprint {DRAWN.collection.fingerprint})" in refused.stderr
    assert refused.stderr.rstrip().endswith("import them into a new collection")


def test_a_hostile_database_is_refused_and_named_on_the_command_line(sish, home, tmp_path):
    path = tmp_path / "meta.pkl"
    path.write_bytes(b"cos\nsystem\n(S'touch hacked'\ntR.")
    result = sish("import", "published", "--meta", path, "-c", "demo", "--home", home)
    assert result.exit_code == 1
    assert "os.system" in result.stderr
    assert str(path) in result.stderr.replace("\n", "")


def test_collections_without_keys_and_folders_that_hold_something_are_refused(stored, sish, tmp_path):  # fmt: skip
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    options = ("--to", "published", tmp_path / "full", "--home", stored)
    result = sish("export", "synthetic", *options)
    assert (result.exit_code, "is not an empty folder" in result.stderr) == (1, True)
    nothing = sish("export", "synthetic", "--home", stored)
    assert (nothing.exit_code, "say what to write" in nothing.stderr) == (1, True)


def test_a_cluster_of_two_shards_takes_and_gives_the_same_table(stored, sish, tmp_path):
    files = [tmp_path / "one.jsonl", tmp_path / "two.jsonl"]
    sish("export", "synthetic", "--to", "jsonl", files[0], "--home", stored)
    with ProcessCluster(tmp_path / "cluster", cut_by_range(2)) as cluster:
        router = ("--router", cluster.address)
        result = sish("import", "tables", "--jsonl", files[0], "-c", "synthetic", *router)
        assert "9 slides stored" in result.stdout, result.output
        sish("export", "synthetic", "--to", "jsonl", files[1], *router)
    assert files[0].read_bytes() == files[1].read_bytes()


def test_several_exports_in_one_command_are_all_written(stored, sish, tmp_path):
    table, folder = tmp_path / "out.jsonl", tmp_path / "published"
    told = sish("export", "synthetic", "--to", "jsonl", table, "--to", "published", folder, "--home", stored)  # fmt: skip
    assert (table.is_file(), (folder / "index_meta" / "meta.pkl").is_file()) == (True, True)
    assert "--labels" in told.stdout
