"""Checkpoints that are damaged, foreign or refused: named, left aside, rebuilt; nothing is ever lost."""

import dataclasses
import logging
import os
import random
import shutil

import numpy as np
import pytest

from sish_cluster.core.errors import Corrupt
from sish_cluster.shard import checkpoint_file
from sish_cluster.shard.backup import backed_up, restored
from sish_cluster.shard.check import checked
from sish_cluster.shard.checkpoint_file import CheckpointFile, write_columns
from sish_cluster.shard.data_dir import DataDir
from sish_cluster.shard.shard import Shard

PLACES = int(os.environ.get("SISH_DAMAGE_PLACES", "6"))


@pytest.fixture
def path(checkpoint_path):
    return checkpoint_path


def test_every_flipped_byte_and_every_cut_is_named_and_rebuilt(
    eager, make, path, flip, caplog, request
):
    make.filled(eager)
    with Shard(eager) as shard:
        expected = make.everything(shard)
    sound, rng = path.read_bytes(), random.Random(5)
    places = [0, 9, len(sound) - 1, len(sound) - 20, len(sound) - 40]
    for place in [*places, *(rng.randrange(len(sound)) for _ in range(10 * PLACES))]:
        path.write_bytes(sound)
        flip(path, place)
        assert_rebuilt(make, eager, path, expected, caplog)
    for length in [0, 5, len(sound) // 2, len(sound) - 1, len(sound) - 4096]:
        path.write_bytes(sound[:length])
        assert_rebuilt(make, eager, path, expected, caplog)


def assert_rebuilt(make, settings, path, expected, caplog):
    """A damaged checkpoint is named by the check, left aside by the next start, and written anew."""
    report = checked(DataDir(settings.data_dir))
    assert str(path) in report.checkpoint_damage[0]
    with pytest.raises(Corrupt, match=path.name):
        report.raise_damage()
    caplog.clear()
    with caplog.at_level(logging.WARNING), Shard(settings) as shard:
        assert make.everything(shard) == expected
    assert [str(path) in record.getMessage() for record in caplog.records] == [True]
    assert checked(DataDir(settings.data_dir)).checkpoint_damage == []


def test_damage_of_the_store_is_not_served_from_a_checkpoint_and_is_named(
    eager, make, path, flip, settings
):
    slides = make.filled(eager, n=4, patches=300)
    store = settings.data_dir / "store" / "data.mdb"
    flip(store, store.read_bytes().find(slides["s2"].patches.codes.tobytes()[:64]) + 5)
    with Shard(eager) as shard:
        assert make.found(shard, slides["s2"]) == ["s2"]
    assert "slide 's2'" in checked(DataDir(settings.data_dir)).damage[0]


def test_a_checkpoint_of_another_layout_or_collection_is_left_aside(
    eager, make, path, monkeypatch, caplog
):
    make.filled(eager)
    with monkeypatch.context() as patched:
        patched.setattr("sish_cluster.shard.checkpoint._LAYOUT", [0, 0, 0])
        with Shard(eager) as shard:
            expected = make.everything(shard)
    assert "CheckpointMismatch" in caplog.text or "expected" in caplog.text
    monkeypatch.setattr(checkpoint_file, "FILE_LAYOUT", 99)
    assert checked(DataDir(eager.data_dir)).checkpoint_damage == []
    caplog.clear()
    with Shard(eager) as shard:
        assert make.everything(shard) == expected
    assert "this version reads 99" in caplog.text


def test_a_checkpoint_whose_rows_differ_from_the_store_is_found_by_the_check(eager, make, path):
    make.filled(eager)
    file = CheckpointFile(path)
    columns = {name: file.column(name) for name in file._columns}
    columns["corners of 0"][3, 1] ^= 1  # in memory: the file is mapped copy-on-write
    write_columns(path, file.about, columns)
    report = checked(DataDir(eager.data_dir))
    assert report.damage == []
    assert "differs from the store's records" in report.checkpoint_damage[0]


def test_a_backup_needs_no_checkpoint(eager, make, tmp_path):
    make.filled(eager)
    with Shard(eager) as shard:
        expected = make.everything(shard)
        shard.backup(tmp_path / "backup")
    assert not DataDir(tmp_path / "backup").checkpoints.exists()
    restored(tmp_path / "backup", tmp_path / "new")
    with Shard(dataclasses.replace(eager, data_dir=tmp_path / "new")) as shard:
        assert make.everything(shard) == expected
    assert DataDir(tmp_path / "new").checkpoint("demo").exists()
    assert backed_up(tmp_path / "new", tmp_path / "again").damage == []


def test_a_disk_that_refuses_the_checkpoint_stops_nothing(eager, never, make, path, caplog):
    slides = make.filled(never)
    path.parent.write_text("in the way")
    with Shard(eager) as shard:
        assert make.found(shard, slides["s1"]) == ["s1"]
        shard.ingest("demo", make.slide("more", 60, 40))
    assert f"no checkpoint {path}" in caplog.text
    path.parent.unlink()
    with Shard(eager) as shard:
        assert make.found(shard, make.slide("more", 60, 40)) == ["more"]
    assert path.exists()


def test_a_checkpoint_leaves_the_disk_to_the_store(eager, make, path, monkeypatch, caplog):
    usage = shutil.disk_usage(eager.data_dir.parent)._replace(free=1000)
    monkeypatch.setattr(checkpoint_file.shutil, "disk_usage", lambda _: usage)
    make.filled(eager)
    assert "would take more than 50% of 1000 free ones" in caplog.text
    assert not path.exists()


def test_columns_come_back_as_they_were_whatever_their_shape(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint_file, "BLOCK_BYTES", 64)
    rng = np.random.default_rng(0)
    columns = {
        "empty": np.zeros((0, 3), np.int32),
        "flat": rng.integers(0, 2**63, 100),
        "narrow": rng.integers(0, 99, 33).astype(np.uint16),
        "none": np.zeros((7, 0), np.int64),
        "deep": rng.integers(0, 2**63, (5, 7, 4)),
        "texts": np.array([b"a", b"longer"]),
    }
    write_columns(tmp_path / "c" / "x.ckpt", {"a": [1]}, columns)
    file = CheckpointFile(tmp_path / "c" / "x.ckpt")
    assert file.about == {"a": [1]}
    for name, column in columns.items():
        np.testing.assert_array_equal(file.column(name), column)
