import csv
import json
import sys

import numpy as np
import pytest
from click.testing import CliRunner

from sish_cluster import open_home
from sish_cluster.cli import main
from sish_cluster.testing.synthetic import SyntheticSlides

SLIDES = SyntheticSlides(patches=3)


def sish(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A home with 12 drawn slides."""
    home = tmp_path_factory.mktemp("home")
    with open_home(home) as client:
        client.create_collection(SLIDES.collection)
        assert all(o.is_durable for o in client.ingest("synthetic", SLIDES.slides(12)))
    return home


def test_evaluate_writes_the_table_the_json_the_csv_files_and_the_page(folder, tmp_path):
    done = sish("evaluate", "synthetic", "--home", folder, "--label", "site", "--mode",
                "sish,guided,exact,direct", "--ranking", "uncertainty,rrf,sish", "-k", "1,3",
                "--out", tmp_path, "--resamples", 20)  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "guided / rrf" in done.stdout
    assert "keeps no embeddings" in done.stderr
    values = json.loads((tmp_path / "evaluation.json").read_text())
    assert len(values["runs"]) == 9
    assert values["about"]["software"].startswith("sish-cluster ")
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"evaluation.json", "evaluation.html", "queries.csv", "classes.csv"}


@pytest.mark.parametrize(("least", "code", "word"), [("1", 0, "holds"), ("1.01", 1, "missed")])
def test_evaluate_fails_when_an_asked_figure_is_missed(folder, least, code, word):
    done = sish("evaluate", "synthetic", "--home", folder, "--label", "site", "--mode", "exact",
                "--patches", "--nearest", "--at-least", f"exact nearest:Acc@1={least}")  # fmt: skip
    assert (done.exit_code, word in done.stdout) == (code, True), done.output


@pytest.mark.parametrize(
    ("arguments", "expected", "code"),
    [
        ([], "name a collection", 2),
        (["synthetic", "--table", "t.csv"], "--tiles", 2),
        (["synthetic", "--mode", "fast"], "choose from", 2),
        (["synthetic", "--at-least", "0.9"], "exact:Acc@1=0.92", 2),
        (["synthetic", "--at-least", "exact:Acc@1=0.9"], "no run of that mode", 1),
        (["synthetic", "--label", "grade"], "no slide of collection", 1),
        (["nowhere"], "no collection 'nowhere'", 1),
    ],
)
def test_evaluate_says_what_is_wrong_with_what_was_asked(folder, arguments, expected, code):
    done = sish("evaluate", *arguments, "--home", folder)
    assert expected in " ".join((done.stdout + done.stderr).split())
    assert done.exit_code == code


def test_calibrate_keeps_its_result_beside_the_cluster_and_draws_it(folder, tmp_path):
    done = sish("calibrate", "synthetic", "--home", folder, "--label", "site", "--sample", 6,
                "--max-steps", "1,400", "--seeds", "1", "--spacing", "50", "--out", tmp_path)  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "max_distance" in done.stdout
    kept = json.loads((folder / "calibration" / "synthetic.json").read_text())
    assert kept == json.loads((tmp_path / "calibration.json").read_text())
    assert "Recall by budget" in (tmp_path / "calibration.html").read_text()


@pytest.fixture(scope="module")
def tiles(tmp_path_factory):
    """Eight drawn tiles of 48 px in two colours, and their table."""
    image = pytest.importorskip("PIL.Image", reason="needs the extra 'encoder'")
    pytest.importorskip("torch", reason="needs the extra 'encoder'")
    folder = tmp_path_factory.mktemp("tiles")
    rng = np.random.default_rng(0)
    rows = [("patch", "label", "patient")]
    for number in range(8):
        kind = "pink" if number % 2 else "blue"
        ground = np.array([230, 120, 180] if number % 2 else [70, 60, 200])
        grain = rng.normal(0, 12, (48, 48, 1)) * (1 if number % 2 else 3)
        pixels = np.clip(ground + grain, 0, 255).astype(np.uint8)
        image.fromarray(pixels).save(folder / f"{kind}-{number}.png")
        rows.append((f"{kind}-{number}.png", kind, f"p{number}"))
    with (folder / "summary.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return folder


@pytest.mark.slow
def test_tiles_are_encoded_once_and_evaluated_patch_by_patch(tiles, tmp_path):
    ask = ("evaluate", "--tiles", tiles, "--table", tiles / "summary.csv", "--mode", "exact,direct",
           "--nearest", "--home", tmp_path / "home", "-k", "1,3", "--out", tmp_path / "out")  # fmt: skip
    first = sish(*ask, "--at-least", "exact:Acc@1=0.9")
    assert first.exit_code == 0, first.output
    assert "data:image/jpeg" in (tmp_path / "out" / "evaluation.html").read_text()
    with open_home(tmp_path / "home") as client:
        (collection,) = client.list_collections()
        before = client.list_slides(collection.name)
        client.forget(collection.name, "pink-1")
    assert sish(*ask).exit_code == 0
    with open_home(tmp_path / "home") as client:
        assert client.list_slides(collection.name) == before
    runs = json.loads((tmp_path / "out" / "evaluation.json").read_text())["runs"]
    assert [(run["mode"], run["queries"], run["failed"]) for run in runs] == [
        ("exact", 8, 0),
        ("direct", 8, 0),
    ]


def test_a_guided_search_below_the_calibrated_recall_is_warned_of(folder, tmp_path):
    done = sish("calibrate", "synthetic", "--home", folder, "--label", "site", "--sample", 6,
                "--max-steps", "1,400", "--seeds", "1", "--spacing", "50",
                "--calibration", tmp_path / "c.json")  # fmt: skip
    assert done.exit_code == 0, done.output
    ask = ("search", "--slide-id", "slide-0001", "-c", "synthetic", "--home", folder,
           "--calibration", tmp_path / "c.json", "--mode")  # fmt: skip
    assert "warning" not in sish(*ask, "guided").stderr
    poor = json.loads((tmp_path / "c.json").read_text())
    poor["budgets"] = [budget | {"recall": 0.25} for budget in poor["budgets"]]
    (tmp_path / "c.json").write_text(json.dumps(poor))
    assert "expected to find 25% of the 5 nearest" in " ".join(sish(*ask, "guided").stderr.split())
    assert "warning" not in sish(*ask, "exact").stderr


def test_without_matplotlib_figures_are_refused_with_what_to_install(folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    ask = ("evaluate", "synthetic", "--home", folder, "--label", "site", "--max-queries", 2)
    assert sish(*ask).exit_code == 0
    refused = sish(*ask, "--out", tmp_path)
    assert refused.exit_code == 1
    assert "sish-cluster[evaluation]" in " ".join(refused.stderr.split())
