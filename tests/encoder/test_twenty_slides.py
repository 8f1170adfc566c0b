"""Twenty slides indexed under Ray while readers, actors and Ray's head die: nothing lost, nothing twice."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sish_cluster.testing.histology import PATTERNS, Drawing
from sish_cluster.testing.network import can_isolate, isolated
from sish_cluster.testing.slides import draw_slide, write_labels

SCRIPT = Path(__file__).with_name("twenty_run.py")

N_SLIDES = 20

TIMEOUT_S = 560.0
"""Seconds all four runs may take on a busy machine; they need about 60 on a quiet one."""

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.slow,
    pytest.mark.skipif(
        not can_isolate(), reason="needs unshare and user namespaces, to keep Ray on loopback"
    ),
]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What ``twenty_run.py`` saw; one run for all tests here."""
    folder = tmp_path_factory.mktemp("twenty")
    (folder / "slides").mkdir()
    rows = []
    for number in range(N_SLIDES):
        name, pattern = f"s{number:02}", sorted(PATTERNS)[number % len(PATTERNS)]
        drawing = Drawing(pattern, side_px=1024, mpp=2.0, rng_seed=number)
        draw_slide(folder / "slides" / f"{name}.tif", drawing)
        rows.append((name, f"p{number}", "drawn", pattern))
    write_labels(folder / "labels.csv", rows, ("slide", "patient", "site", "diagnosis"))
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "SISH_"))}
    done = subprocess.run(
        isolated([sys.executable, str(SCRIPT), str(folder)]),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        env={**environment, "COLUMNS": "1000"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


def test_a_reader_an_actor_and_the_head_die_and_the_run_still_ends_with_a_fate_for_each(found):
    first = found["first"]
    assert first["killed"] == [
        ["ray::ReaderActor"],
        ["ray::EncoderActor"],
        ["gcs_server", "raylet"],
    ]
    assert first["exit"] == 4
    n_stored = len(found["acknowledged"])
    assert 9 <= n_stored < N_SLIDES
    assert (
        f"{n_stored} slides stored, 0 unchanged, {N_SLIDES - n_stored} failed" in first["printed"]
    )
    assert first["seconds after the last"] < 60


def test_after_a_second_run_every_slide_is_there_with_the_bytes_of_an_undisturbed_run(found):
    assert (found["second"]["exit"], found["undisturbed"]["exit"]) == (0, 0)
    assert len(found["versions"]) == N_SLIDES
    assert found["versions"] == found["undisturbed versions"]
    assert found["equal bytes"]


def test_nothing_that_was_acknowledged_was_lost_or_encoded_again(found):
    n_stored = len(found["acknowledged"])
    assert found["acknowledged"].items() <= found["versions"].items()
    assert found["encodings of each"] == [1] * N_SLIDES
    assert n_stored <= found["encoded by then"]
    printed = f"{N_SLIDES - n_stored} slides stored, {n_stored} unchanged, 0 failed"
    assert printed in found["second"]["printed"]


def test_while_ray_is_down_slides_are_found_and_new_ones_are_refused_saying_what_to_do(found):
    queried, *names = found["first"]["searched"]
    assert queried == names[0]
    assert len(names) > 1
    assert "Ray's head at 127.0.0.1:" in found["first"]["printed"]
    assert "--no-ray" in found["first"]["printed"]
    nowhere = found["nowhere"]
    assert nowhere["exit"] == 3
    assert "Ray at 127.0.0.1:9 could not be reached" in nowhere["printed"]
    assert nowhere["seconds"] < 60


def test_a_reader_has_no_torch_in_its_memory_and_an_actor_has(found):
    assert found["first"]["torch"] == {"ray::ReaderActor": False, "ray::EncoderActor": True}
