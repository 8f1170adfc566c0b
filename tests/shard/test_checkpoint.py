"""Checkpoints: whatever their age and wherever a crash came, store and checkpoint give the store's state."""

import dataclasses
import logging
import os
import random
import shutil
import subprocess
import sys
import threading

import numpy as np
import pytest

from sish_cluster.core.errors import Corrupt
from sish_cluster.core.query import Filter, Mode
from sish_cluster.core.seams import SlideState
from sish_cluster.shard import checkpoint_file
from sish_cluster.shard.backup import backed_up, restored
from sish_cluster.shard.check import checked
from sish_cluster.shard.checkpoint_file import CheckpointFile, write_columns
from sish_cluster.shard.data_dir import DataDir
from sish_cluster.shard.shard import Shard
from sish_cluster.shard.steps import STEP_EVENT

PLACES = int(os.environ.get("SISH_DAMAGE_PLACES", "6"))
STEPS = (
    "checkpoint begun",
    "checkpoint column marks",
    "checkpoint column heads of 0",
    "checkpoint written",
    "checkpoint synced",
    "checkpoint renamed",
    "checkpoint durable",
    "compaction begun",
    "compaction merged",
    "compaction swapped",
    "compaction shown",
)


@pytest.fixture
def eager(settings):
    """Settings under which every change is worth a checkpoint, when closing."""
    return dataclasses.replace(settings, checkpoint_postings=1, checkpoint_share=1.0)


@pytest.fixture
def never(settings):
    return dataclasses.replace(settings, checkpoint_postings=10**9)


@pytest.fixture
def path(settings):
    return DataDir(settings.data_dir).checkpoint("demo")


def filled(settings, make, *, n=12, patches=40):
    """Open, ingest n slides, close; return them by id."""
    slides = {f"s{i}": make.slide(f"s{i}", i, patches, patient=f"p{i}") for i in range(n)}
    with Shard(settings) as shard:
        shard.create_collection(make.collection)
        for encoded in slides.values():
            shard.ingest("demo", encoded)
    return slides


def uncovered(shard):
    """Return the postings that opening took from the store, or found forgotten."""
    return shard._held("demo").uncovered


def everything(shard):
    """Return all eligible postings with their slides, in an order of their own."""
    page = shard.range_lookup("demo", 0, 2**50, page_size=10_000)
    ids = [page.slides[row].slide_id for row in page.slide_rows]
    rows = zip(page.keys.tolist(), ids, page.numbers.tolist(), strict=True)
    columns = zip(rows, page.codes.tolist(), page.corners.tolist(), strict=True)
    state = shard.describe_collection("demo")
    return sorted(columns), state, [s.slide.slide_id for s in shard.list_slides("demo")]


def test_an_index_from_a_checkpoint_is_the_one_from_the_store(eager, make, path):
    slides = filled(eager, make)
    with Shard(eager) as shard:
        assert uncovered(shard) == 0
        shard._held("demo").index.check()
        found = everything(shard)
    path.unlink()
    with Shard(eager) as shard:
        assert uncovered(shard) == 40 * len(slides)
        assert everything(shard) == found


def test_a_checkpoint_that_is_far_behind_gives_the_stores_state(eager, never, make, path):
    slides = filled(eager, make)
    with Shard(never) as shard:
        shard.forget("demo", "s0")
        shard.forget("demo", "s11")
        shard.ingest("demo", make.slide("s1", 100, 30))
        shard.ingest("demo", make.slide("new", 101, 700))
        shard.ingest("demo", make.slide("empty", 1, 0))
        shard.ingest("demo", make.slide("later", 102, 7), state=SlideState.PENDING)
        expected = everything(shard)
    with Shard(never) as shard:
        assert uncovered(shard) == 3 * 40 + 30 + 700 + 7
        assert everything(shard) == expected
        assert make.found(shard, slides["s0"]) == make.found(shard, slides["s1"]) == []
        assert [p.slide_id for p in shard.list_pending("demo")] == ["later"]
        shard._held("demo").index.check()


def test_a_pending_slide_of_the_checkpoint_may_be_committed_after_it(eager, never, make):
    filled(eager, make, n=2)
    later = make.slide("later", 9, 40)
    with Shard(eager) as shard:
        shard.ingest("demo", later, state=SlideState.PENDING)
    with Shard(never) as shard:
        assert uncovered(shard) == 0
        assert make.found(shard, later) == []
        shard.commit_slide("demo", "later", later.version)
    with Shard(never) as shard:
        assert uncovered(shard) == 0
        assert make.found(shard, later) == ["later"]


def test_a_pending_version_of_the_checkpoint_and_a_committed_one_after_it_are_both_there(
    eager, never, make
):
    filled(eager, make, n=1)
    pending, committed = make.slide("a", 1, 40), make.slide("a", 2, 40)
    with Shard(eager) as shard:
        shard.ingest("demo", pending, state=SlideState.PENDING)
    with Shard(never) as shard:
        shard.ingest("demo", committed)
    with Shard(never) as shard:
        assert make.found(shard, committed) == ["a"]
        assert [p.version for p in shard.list_pending("demo")] == [pending.version]


def test_a_serial_that_was_given_again_does_not_bring_a_forgotten_slide_back(
    eager, never, make, path
):
    slides = filled(eager, make, n=3)
    kept = path.with_name("kept")
    shutil.copy(path, kept)
    path.unlink()
    with Shard(never) as shard:
        shard.forget("demo", "s2")
    with Shard(never) as shard:
        shard.ingest("demo", make.slide("other", 77, 40))
        assert shard._held("demo").ledger.committed_of("other") is not None
    shutil.move(kept, path)
    with Shard(never) as shard:
        assert make.found(shard, slides["s2"]) == []
        assert make.found(shard, make.slide("other", 77, 40)) == ["other"]


def test_searches_find_the_same_from_both_in_every_mode(eager, never, make, path):
    filled(eager, make, n=30)
    with Shard(never) as shard:
        shard.forget("demo", "s7")
        shard.ingest("demo", make.slide("new", 50, 90, site="lung"))
    queries = [
        make.query(make.patches(i, 8), where=where, mode=mode, max_distance=60)
        for i in range(3)
        for mode in (Mode.EXACT, Mode.GUIDED, Mode.SISH)
        for where in (Filter(), Filter.of(keep={"site": ["lung"]}))
    ]
    with Shard(never) as shard:
        assert uncovered(shard) < 200
        found = [answer_of(shard, query) for query in queries]
    path.unlink()
    with Shard(never) as shard:
        assert [answer_of(shard, query) for query in queries] == found
    assert sum(len(rows) for rows in found) > 0


def answer_of(shard, query):
    answer = shard.search("demo", query)
    found = answer.candidates
    ids = [answer.slides[s].slide_id for s in found.slides]
    distances, numbers = found.distances.tolist(), found.numbers.tolist()
    return list(zip(found.offsets.tolist(), ids, distances, numbers, strict=False))


def test_small_collections_get_no_checkpoint(settings, make, path):
    filled(settings, make)
    assert not path.exists()


def test_a_checkpoint_is_written_beside_changes_once_enough_has_changed(
    settings, make, path, never
):
    often = dataclasses.replace(settings, checkpoint_postings=100, checkpoint_share=0.5)
    done = threading.Event()
    watch(lambda step: step == "checkpoint durable" and done.set())
    shard = Shard(often)
    shard.create_collection(make.collection)
    encoded = [make.slide(f"s{i}", i, 40) for i in range(30)]
    for one in encoded[:3]:
        shard.ingest("demo", one)
    assert done.wait(30)
    for one in encoded[3:]:
        shard.ingest("demo", one)
    shard.forget("demo", "s1")
    expected = everything(shard)
    shard.close()
    with Shard(never) as shard:
        assert uncovered(shard) < 100
        assert everything(shard) == expected
    assert checked(DataDir(settings.data_dir)).checkpoint_damage == []


def test_a_checkpoint_is_written_when_changes_pause_however_small_their_share(
    eager, never, make, path
):
    filled(eager, make, n=20)
    pausing = dataclasses.replace(eager, checkpoint_postings=30, checkpoint_idle_s=0.05)
    done = threading.Event()
    watch(lambda step: step == "checkpoint durable" and done.set())
    with Shard(pausing) as shard:
        shard.ingest("demo", make.slide("more", 60, 40))
        assert done.wait(30)
        kept = path.read_bytes()
    path.write_bytes(kept)
    with Shard(never) as shard:
        assert uncovered(shard) == 0
        assert make.found(shard, make.slide("more", 60, 40)) == ["more"]


_WATCHERS = []


def watch(called):
    """Call a function with every step from now on; an audit hook cannot be taken back."""
    if not _WATCHERS:
        sys.addaudithook(lambda event, args: event == STEP_EVENT and _WATCHERS[-1](args[0]))
    _WATCHERS.append(called)


CRASHING = """
import os, sys, dataclasses
from pathlib import Path
import numpy as np
from sish_cluster.core.posting import EncodedSlide, PatchColumns
from sish_cluster.core.slide import Slide
from sish_cluster.core.collection import Collection
from sish_cluster.shard.steps import STEP_EVENT
from sish_cluster.shard.settings import ShardSettings
from sish_cluster.shard.shard import Shard

data, step, n = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])

def die(event, args):
    if event == STEP_EVENT and args == (step,):
        os._exit(77)

def say(*words):
    os.write(1, (" ".join(words) + os.linesep).encode())  # in one piece: the end may come in between

def slide(i):
    rng = np.random.default_rng(i)
    columns = PatchColumns.of(
        rng.integers(0, 2**50, 300, dtype=np.uint64), rng.integers(0, 256, (300, 16), dtype=np.uint8)
    )
    return EncodedSlide.whole(Slide(f"s{i % 40}"), columns, "f")

settings = ShardSettings(data, checkpoint_postings=1, checkpoint_share=0.05, group_wait_s=0.0)
shard = Shard(settings)
shard.create_collection(Collection("demo", fingerprint="f", code_bits=128))
sys.addaudithook(die)
for i in range(n, n + 400):
    if i % 3 == 0:
        slide_id = f"s{(i + 17) % 40}"
        say("forgetting", slide_id)
        shard.forget("demo", slide_id)
        say("forgot", slide_id)
    encoded = slide(i)
    say("storing", encoded.slide.slide_id, encoded.version)
    shard.ingest("demo", encoded)
    say("stored", encoded.slide.slide_id, encoded.version)
shard.close()
"""


def acknowledged(output, held):
    """Apply a child's lines to slide id -> version; return also what the last line left in doubt."""
    doubtful = {}
    for line in output.splitlines():
        word, slide_id, *version = line.split()
        if word in ("storing", "forgetting"):
            doubtful = {slide_id: [*version, None][0]}
        else:
            doubtful = {}
            held[slide_id] = [*version, None][0]
    return held, doubtful


@pytest.mark.slow
@pytest.mark.parametrize("step", STEPS)
def test_a_crash_at_any_step_leaves_exactly_what_was_acknowledged(never, step):
    held, crashes = {}, 0
    for start in (0, 1000):
        command = [sys.executable, "-c", CRASHING, str(never.data_dir), step, str(start)]
        child = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert child.returncode in (0, 77), child.stderr
        crashes += child.returncode == 77
        held, doubtful = acknowledged(child.stdout, held)
        with Shard(never) as shard:
            found = {s.slide.slide_id: s.version for s in shard.list_slides("demo")}
            shard._held("demo").index.check()
        for slide_id in {*held, *found, *doubtful}:
            allowed = {held.get(slide_id), doubtful.get(slide_id, held.get(slide_id))}
            assert found.get(slide_id) in allowed, slide_id
        held = found
    assert crashes
    report = checked(DataDir(never.data_dir))
    assert (report.damage, report.checkpoint_damage) == ([], [])
    assert not list(DataDir(never.data_dir).checkpoints.glob("*.part"))


def test_every_flipped_byte_and_every_cut_is_named_and_rebuilt(
    eager, make, path, flip, caplog, request
):
    filled(eager, make)
    with Shard(eager) as shard:
        expected = everything(shard)
    sound, rng = path.read_bytes(), random.Random(5)
    places = [0, 9, len(sound) - 1, len(sound) - 20, len(sound) - 40]
    for place in [*places, *(rng.randrange(len(sound)) for _ in range(10 * PLACES))]:
        path.write_bytes(sound)
        flip(path, place)
        assert_rebuilt(eager, path, expected, caplog)
    for length in [0, 5, len(sound) // 2, len(sound) - 1, len(sound) - 4096]:
        path.write_bytes(sound[:length])
        assert_rebuilt(eager, path, expected, caplog)


def assert_rebuilt(settings, path, expected, caplog):
    """A damaged checkpoint is named by the check, left aside by the next start, and written anew."""
    report = checked(DataDir(settings.data_dir))
    assert str(path) in report.checkpoint_damage[0]
    with pytest.raises(Corrupt, match=path.name):
        report.raise_damage()
    caplog.clear()
    with caplog.at_level(logging.WARNING), Shard(settings) as shard:
        assert everything(shard) == expected
    assert [str(path) in record.getMessage() for record in caplog.records] == [True]
    assert checked(DataDir(settings.data_dir)).checkpoint_damage == []


def test_damage_of_the_store_is_not_served_from_a_checkpoint_and_is_named(
    eager, make, path, flip, settings
):
    slides = filled(eager, make, n=4, patches=300)
    store = settings.data_dir / "store" / "data.mdb"
    flip(store, store.read_bytes().find(slides["s2"].patches.codes.tobytes()[:64]) + 5)
    with Shard(eager) as shard:
        assert make.found(shard, slides["s2"]) == ["s2"]
    assert "slide 's2'" in checked(DataDir(settings.data_dir)).damage[0]


def test_a_checkpoint_of_another_layout_or_collection_is_left_aside(
    eager, make, path, monkeypatch, caplog
):
    filled(eager, make)
    with monkeypatch.context() as patched:
        patched.setattr("sish_cluster.shard.checkpoint._LAYOUT", [0, 0, 0])
        with Shard(eager) as shard:
            expected = everything(shard)
    assert "CheckpointMismatch" in caplog.text or "expected" in caplog.text
    monkeypatch.setattr(checkpoint_file, "FILE_LAYOUT", 99)
    assert checked(DataDir(eager.data_dir)).checkpoint_damage == []
    caplog.clear()
    with Shard(eager) as shard:
        assert everything(shard) == expected
    assert "this version reads 99" in caplog.text


def test_a_checkpoint_whose_rows_differ_from_the_store_is_found_by_the_check(eager, make, path):
    filled(eager, make)
    file = CheckpointFile(path)
    columns = {name: file.column(name) for name in file._columns}
    columns["corners of 0"][3, 1] ^= 1  # in memory: the file is mapped copy-on-write
    write_columns(path, file.about, columns)
    report = checked(DataDir(eager.data_dir))
    assert report.damage == []
    assert "differs from the store's records" in report.checkpoint_damage[0]


def test_a_backup_needs_no_checkpoint(eager, make, tmp_path):
    filled(eager, make)
    with Shard(eager) as shard:
        expected = everything(shard)
        shard.backup(tmp_path / "backup")
    assert not DataDir(tmp_path / "backup").checkpoints.exists()
    restored(tmp_path / "backup", tmp_path / "new")
    with Shard(dataclasses.replace(eager, data_dir=tmp_path / "new")) as shard:
        assert everything(shard) == expected
    assert DataDir(tmp_path / "new").checkpoint("demo").exists()
    assert backed_up(tmp_path / "new", tmp_path / "again").damage == []


def test_a_disk_that_refuses_the_checkpoint_stops_nothing(eager, never, make, path, caplog):
    slides = filled(never, make)
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
    filled(eager, make)
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
