"""Backups: hot, whole, checked, and never written over anything."""

import subprocess
import sys
import threading

import pytest
from click.testing import CliRunner

from sish_cluster.cli.shard import shard as shard_command
from sish_cluster.core.errors import BadRequest, Corrupt
from sish_cluster.shard.backup import backed_up, restored
from sish_cluster.shard.check import check_in_another_process
from sish_cluster.shard.data_dir import DataDir
from sish_cluster.shard.shard import Shard


def test_a_backup_made_while_writing_holds_everything_acknowledged_before_it(
    serve, make, requests_of, tmp_path
):
    server = serve()
    server.create()
    encoded = [make.slide(f"s{i}", i, 50) for i in range(600)]
    begun = threading.Event()

    def write():
        stream = (request for e in encoded for request in requests_of(e))
        for i, _ in enumerate(server.stub.Ingest(stream, timeout=60)):
            if i == 20:
                begun.set()

    writing = threading.Thread(target=write)
    writing.start()
    begun.wait(30)
    before = set(server.slides())
    backed_up(server.data_dir, tmp_path / "backup")
    writing.join()
    server.kill()
    report = restored(tmp_path / "backup", tmp_path / "new")
    assert report.damage == []
    again = serve(name="new")
    stored = again.slides()
    assert before <= stored.keys() <= {e.slide.slide_id for e in encoded}
    assert len(before) > 20


def test_a_served_store_passes_its_check(serve, make, requests_of):
    server = serve()
    server.create()
    list(server.stub.Ingest(requests_of(make.slide("s", 1)), timeout=30))
    report = check_in_another_process(DataDir(server.data_dir))
    assert report.damage == []
    assert (report.collections[0].slides, report.collections[0].postings) == (1, 5)


def test_a_damaged_backup_is_not_restored(shard, make, settings, tmp_path, flip):
    encoded = make.slide("s", 1, 300)
    shard.ingest("demo", encoded)
    backup, new = tmp_path / "backup", tmp_path / "new"
    shard.backup(backup)
    path = backup / "store" / "data.mdb"
    flip(path, path.read_bytes().find(encoded.patches.codes.tobytes()[:64]))
    with pytest.raises(Corrupt, match="slide 's'"):
        restored(backup, new)
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith("new")] == []


CRASHING = """
import os, sys
from pathlib import Path
from sish_cluster.shard.backup import backed_up
from sish_cluster.shard.steps import STEP_EVENT

step = sys.argv[1]
sys.addaudithook(lambda event, args: event == STEP_EVENT and args == (step,) and os._exit(77))
backed_up(Path(sys.argv[2]), Path(sys.argv[3]))
"""


@pytest.mark.parametrize(
    "step", ["backup begun", "backup copied", "backup checked", "backup renamed"]
)
def test_a_backup_that_crashed_is_whole_or_not_there_and_can_be_made_again(
    shard, make, settings, tmp_path, step
):
    for i in range(3):
        shard.ingest("demo", make.slide(f"s{i}", i))
    target = tmp_path / "backup"
    command = [sys.executable, "-c", CRASHING, step, str(settings.data_dir), str(target)]
    assert subprocess.run(command, timeout=120).returncode == 77
    assert target.exists() == (step == "backup renamed")
    report = check_in_another_process(DataDir(target)) if target.exists() else shard.backup(target)
    assert (report.damage, report.collections[0].slides) == ([], 3)
    assert [path.name for path in tmp_path.glob("backup*")] == ["backup"]


def test_nothing_is_overwritten_and_only_data_directories_are_copied(shard, settings, tmp_path):
    shard.backup(tmp_path / "backup")
    with pytest.raises(BadRequest, match="exists and is not empty"):
        shard.backup(tmp_path / "backup")
    shard.close()
    with pytest.raises(BadRequest, match="exists and is not empty"):
        backed_up(settings.data_dir, tmp_path / "backup")
    with pytest.raises(BadRequest, match="no shard's data directory"):
        restored(tmp_path / "nothing", tmp_path / "new")


def test_the_commands_check_back_up_restore_and_grow(settings, make, tmp_path):
    with Shard(settings) as shard:
        shard.create_collection(make.collection)
        shard.ingest("demo", make.slide("s", 1))
    data, backup, new = str(settings.data_dir), str(tmp_path / "b"), str(tmp_path / "n")
    run = CliRunner().invoke
    shown = run(shard_command, ["check", "--data-dir", data])
    assert shown.output == "demo: 1 slides, 5 postings sound\nall sound\n"
    assert run(shard_command, ["backup", "--data-dir", data, "--to", backup]).exit_code == 0
    assert run(shard_command, ["restore", "--from", backup, "--data-dir", new]).exit_code == 0
    grown = run(shard_command, ["grow", "--data-dir", new, "--map-size", "1.5GiB"])
    assert "may grow to 1610612736 bytes" in grown.output
    assert DataDir(tmp_path / "n").limit_bytes() == 1610612736
    wrong = run(shard_command, ["grow", "--data-dir", new, "--map-size", "lots"])
    assert "'lots' is no size" in wrong.output
