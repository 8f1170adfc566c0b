import csv

import pytest
from click.testing import CliRunner

from sish_cluster.cli import main


def run(*arguments):
    """Return the result of `sish ARGUMENTS`, its two outputs apart."""
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def labels_table(path, rows, columns=("slide", "patient", "site", "diagnosis")):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])
    return path


@pytest.fixture
def sish():
    return run


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """A folder with two good slides and every kind of bad one, and its labels."""
    slides = pytest.importorskip("sish_cluster.testing.slides", reason="needs the extra 'encoder'")
    folder = tmp_path_factory.mktemp("archive")
    slides.one_patch_slide(folder / "good-1.tif", rng_seed=1)
    slides.one_patch_slide(folder / "good-2.tif", rng_seed=2)
    slides.empty_slide(folder / "empty.tif")
    slides.slide_without_mpp(folder / "scaleless.tif")
    slides.truncated_slide(folder / "truncated.tif")
    slides.picture_named_slide(folder / "picture.svs")
    names = ["good-1", "good-2", "empty", "scaleless", "truncated", "picture", "lost"]
    rows = [(name, f"patient-{name}", "lung", f"kind-{name[-1]}") for name in names]
    labels_table(folder / "labels.csv", rows)
    return folder


@pytest.fixture(scope="module")
def indexed(archive, tmp_path_factory):
    """The result of indexing the archive, and the home it went to."""
    home = tmp_path_factory.mktemp("home")
    options = ("--labels", archive / "labels.csv", "-c", "demo", "--no-ray", "--home", home)
    return run("index", archive, *options), home
