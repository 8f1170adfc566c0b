"""Checkpoints: whatever their age and wherever a crash came, store and checkpoint give the store's state."""

import dataclasses
import shutil
import subprocess
import sys
import threading

import pytest

from sish_cluster.core.query import Filter, Mode
from sish_cluster.core.seams import SlideState
from sish_cluster.shard.check import checked
from sish_cluster.shard.data_dir import DataDir
from sish_cluster.shard.shard import Shard
from sish_cluster.shard.steps import STEP_EVENT

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
def path(checkpoint_path):
    return checkpoint_path


def uncovered(shard):
    """Return the postings that opening took from the store, or found forgotten."""
    return shard._held("demo").uncovered


def test_an_index_from_a_checkpoint_is_the_one_from_the_store(eager, make, path):
    slides = make.filled(eager)
    with Shard(eager) as shard:
        assert uncovered(shard) == 0
        shard._held("demo").index.check()
        found = make.everything(shard)
    path.unlink()
    with Shard(eager) as shard:
        assert uncovered(shard) == 40 * len(slides)
        assert make.everything(shard) == found


def test_a_checkpoint_that_is_far_behind_gives_the_stores_state(eager, never, make, path):
    slides = make.filled(eager)
    with Shard(never) as shard:
        shard.forget("demo", "s0")
        shard.forget("demo", "s11")
        shard.ingest("demo", make.slide("s1", 100, 30))
        shard.ingest("demo", make.slide("new", 101, 700))
        shard.ingest("demo", make.slide("empty", 1, 0))
        shard.ingest("demo", make.slide("later", 102, 7), state=SlideState.PENDING)
        expected = make.everything(shard)
    with Shard(never) as shard:
        assert uncovered(shard) == 3 * 40 + 30 + 700 + 7
        assert make.everything(shard) == expected
        assert make.found(shard, slides["s0"]) == make.found(shard, slides["s1"]) == []
        assert [p.slide_id for p in shard.list_pending("demo")] == ["later"]
        shard._held("demo").index.check()


def test_a_pending_slide_of_the_checkpoint_may_be_committed_after_it(eager, never, make):
    make.filled(eager, n=2)
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
    make.filled(eager, n=1)
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
    slides = make.filled(eager, n=3)
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
    make.filled(eager, n=30)
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
    make.filled(settings)
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
    expected = make.everything(shard)
    shard.close()
    with Shard(never) as shard:
        assert uncovered(shard) < 100
        assert make.everything(shard) == expected
    assert checked(DataDir(settings.data_dir)).checkpoint_damage == []


def test_a_checkpoint_is_written_when_changes_pause_however_small_their_share(
    eager, never, make, path
):
    make.filled(eager, n=20)
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


def test_a_checkpoint_is_written_once_the_last_one_is_old_though_changes_never_pause(
    eager, never, make
):
    slow = dataclasses.replace(
        eager, checkpoint_postings=30, checkpoint_every_s=0.05, checkpoint_idle_s=1e6
    )
    done = threading.Event()
    make.filled(eager, n=20)
    watch(lambda step: step == "checkpoint durable" and done.set())
    with Shard(slow) as shard:
        for i in range(100, 10_100):
            shard.ingest("demo", make.slide("same", i, 40))
            if done.is_set():
                break
        assert done.is_set()
        assert uncovered(shard) < 0.5 * shard._held("demo").index.n_postings


def test_headers_from_a_checkpoint_are_those_ingested_after_commits_replacements_and_forgets(
    eager, never, make
):
    slides = make.filled(eager)
    with Shard(never) as shard:
        entries = shard._held("demo").ledger.entries
        assert list(entries._later) == [None]  # for rows that were forgotten already
        shard.forget("demo", "s3")
        slides["s5"] = make.slide("s5", 99, 40, patient="another")
        shard.ingest("demo", slides["s5"])
        del slides["s3"]
        assert (len(entries), len(entries._later)) == (14, 2)
        listed = {s.slide.slide_id: (s.slide, s.version) for s in shard.list_slides("demo")}
    assert listed == {name: (s.slide, s.version) for name, s in slides.items()}


def test_understood_headers_of_a_checkpoint_stay_few(eager, never, make, monkeypatch):
    slides = make.filled(eager)
    monkeypatch.setattr("sish_cluster.shard.entries.MOST_UNDERSTOOD", 3)
    with Shard(never) as shard:
        for name, encoded in slides.items():
            assert make.found(shard, encoded) == [name]
        assert 0 < len(shard._held("demo").ledger.entries._understood) <= 3


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
