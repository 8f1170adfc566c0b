"""Ray Train runs the workers: every kind of training, a killed worker, an error of one of them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from sish_cluster.cli.main import main
from sish_cluster.encoder.training.loop_log import CLOCK
from sish_cluster.testing.network import can_isolate, isolated

SCRIPT = Path(__file__).with_name("train_ray_run.py")

TIMEOUT_S = 560.0
"""Seconds the run may take on a busy machine; it needs about 60 on a quiet one."""

needs_isolation = pytest.mark.skipif(
    not can_isolate(), reason="needs unshare and user namespaces, to keep Ray on loopback"
)

KINDS = ("sslp", "retccl", "wsisum", "vqvae")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """(folder, what the run printed, home): one Ray for all of it."""
    folder, home = tmp_path_factory.mktemp("trained"), tmp_path_factory.mktemp("home")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    done = subprocess.run(
        isolated([sys.executable, str(SCRIPT), str(folder)]),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        env={**environment, "HOME": str(home)},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, json.loads(done.stdout.strip().splitlines()[-1]), home


def curve(folder):
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text("utf-8").splitlines()]
    return [{name: value for name, value in row.items() if name != CLOCK} for row in rows]


@needs_isolation
@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", KINDS)
def test_two_workers_train_every_kind_and_a_killed_one_changes_nothing(run, kind):
    folder, found, _ = run
    whole, cut = folder / "whole" / kind, folder / "cut" / kind
    assert (folder / "cut" / "mark").exists(), "no worker was killed"
    assert found["whole"][kind]
    assert found["cut"][kind] == found["whole"][kind]
    assert curve(cut) == curve(whole)
    assert json.loads((whole / "metrics.json").read_text())
    assert (whole / "loss.png").read_bytes().startswith(b"\x89PNG")


@needs_isolation
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_driver_sees_every_row_as_it_is_made_and_where_the_run_went_on(run):
    _, found, _ = run
    rows = {report["row"]["step"] for report in found["told"] if report["row"]}
    assert rows == set(range(2, 19, 2))
    assert {report["first_step"] for report in found["told"]} == {0, 4}


@needs_isolation
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_an_error_of_one_worker_reaches_the_driver_although_the_other_waits_for_it(run):
    _, found, _ = run
    assert found["failed"] == "BadSlide: slide-7.svs: cannot be read"


@needs_isolation
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_no_process_and_no_file_of_rays_is_left_behind(run):
    folder, found, home = run
    assert found["left"] == []
    assert not [path for path in home.rglob("*") if "ray" in path.name.lower()]
    assert list((folder / "failed").iterdir()) == []
    assert not list(folder.glob("**/workers"))


@pytest.mark.parametrize("kind", KINDS)
def test_options_of_workers_without_workers_are_refused(kind, tmp_path):
    source = "--features" if kind == "wsisum" else "--tiles"
    (tmp_path / "slide.h5").touch()
    command = ["train", kind, source, str(tmp_path), "--out", str(tmp_path / "run")]
    found = CliRunner().invoke(main, [*command, "--gpus-per-worker", "1"])
    if kind != "wsisum":
        assert "--gpus-per-worker is about several workers" in found.output
    assert found.exit_code != 0
