"""SIGKILL at random moments of ingest, forgetting, checkpoint and backup: what was acknowledged is there, the retry completes the rest.

``SISH_CRASH_ROUNDS`` sets how often (CI: 10). The moments are random; the seed is printed on failure
because it is part of the test's name.
"""

import os
import random
import threading

import grpc
import numpy as np
import pytest

from sish_cluster.shard.backup import backed_up
from sish_cluster.shard.check import checked
from sish_cluster.shard.data_dir import DataDir
from sish_cluster.shard.settings import ShardSettings
from sish_cluster.shard.shard import Shard
from sish_cluster.wire.sish.v1 import shard_pb2

ROUNDS = int(os.environ.get("SISH_CRASH_ROUNDS", "10"))
SLIDES = 400


class Oracle:
    """What the server acknowledged, and what was asked and may or may not have happened."""

    def __init__(self):
        self.held = {}
        self.doubtful = {}

    def begin(self, slide_id, version):
        self.doubtful[slide_id] = {version, self.held.get(slide_id)}

    def end(self, slide_id, version):
        self.held[slide_id] = version
        self.doubtful.pop(slide_id, None)

    def check(self, slides):
        found = {slide_id: version for slide_id, (version, _) in slides.items()}
        for slide_id in {*found, *self.held, *self.doubtful}:
            allowed = self.doubtful.get(slide_id, {self.held.get(slide_id)})
            assert found.get(slide_id) in allowed, slide_id
        self.held, self.doubtful = found, {}


def changes(server, make, requests_of, rng, oracle):
    """Ingest, update and forget, with embeddings and without, until the server is gone."""
    while True:
        encoded = [make.slide(f"s{rng.randrange(SLIDES)}", rng.randrange(3), 20) for _ in range(40)]
        distinct = {e.slide.slide_id: e for e in encoded}
        for e in distinct.values():
            oracle.begin(e.slide.slide_id, e.version)
        stream = (request for e in distinct.values() for request in requests_of(e))
        for stored in server.stub.Ingest(stream, timeout=30):
            assert not stored.error
            oracle.end(stored.slide_id, stored.version)
        slide_id = f"s{rng.randrange(SLIDES)}"
        oracle.begin(slide_id, None)
        forget = shard_pb2.ForgetRequest(collection="demo", slide_id=slide_id)
        server.stub.Forget(forget, timeout=30)
        oracle.end(slide_id, None)
        change_embeddings(server, make, requests_of, rng)


def change_embeddings(server, make, requests_of, rng):
    """Ingest some slides with embeddings and forget one; what is kept of them tells which they are."""
    names = {f"s{rng.randrange(SLIDES)}": rng.randrange(3) for _ in range(10)}
    slides = [make.embedded_slide(name, rng_seed, 80) for name, rng_seed in names.items()]
    stream = (request for e in slides for request in requests_of(e, collection="both"))
    for stored in server.stub.Ingest(stream, timeout=30):
        assert not stored.error
    slide_id = f"s{rng.randrange(SLIDES)}"
    forget = shard_pb2.ForgetRequest(collection="both", slide_id=slide_id)
    server.stub.Forget(forget, timeout=30)


def check_embeddings(data_dir, make):
    """Every slide left has the embeddings of one of its versions, in the store and in memory."""
    with Shard(ShardSettings(data_dir)) as shard:
        listed = list(shard.list_slides("both"))
        assert listed
        for stored in listed:
            every = [make.embedded_slide(stored.slide.slide_id, seed, 80) for seed in range(3)]
            (encoded,) = [e for e in every if e.version == stored.version]
            kept = shard.encoded_slide("both", stored.slide.slide_id)
            assert np.array_equal(kept.patches.embeddings, encoded.patches.embeddings)
            assert stored.slide.slide_id in make.directly_found(shard, encoded)


def test_every_acknowledged_change_survives_kills_at_random_moments(
    serve, make, requests_of, tmp_path
):
    rng = random.Random(20220)
    server, oracle = serve("--checkpoint-postings", "200"), Oracle()
    server.create()
    server.create(make.both)
    change_embeddings(server, make, requests_of, rng)
    for i in range(ROUNDS):
        killer = threading.Timer(rng.uniform(0.0, 0.25), server.process.kill)
        killer.start()
        copying = threading.Thread(target=back_up, args=(server.data_dir, tmp_path / f"b{i}"))
        if i % 5 == 0:
            copying.start()
        with pytest.raises(grpc.RpcError):
            changes(server, make, requests_of, rng, oracle)
        killer.join()
        server.kill()
        if i % 5 == 0:
            copying.join()
        server.start()
        oracle.check(server.slides())
    server.kill()
    assert len(oracle.held) > 10
    report = checked(DataDir(server.data_dir))
    assert (report.damage, report.checkpoint_damage) == ([], [])
    assert DataDir(server.data_dir).checkpoint("demo").exists()
    check_embeddings(server.data_dir, make)


def back_up(data_dir, target):
    """Copy a shard that is killed meanwhile: the copy is whole, or there is none."""
    report = backed_up(data_dir, target)
    assert report.damage == []


def test_the_retry_after_a_kill_completes_the_rest_without_duplicates(serve, make, requests_of):
    encoded = [make.slide(f"s{i}", i, 20) for i in range(SLIDES)]
    server = serve()
    server.create()
    acknowledged = set()
    stream = (request for e in encoded for request in requests_of(e))
    with pytest.raises(grpc.RpcError):
        for stored in server.stub.Ingest(stream, timeout=30):
            acknowledged.add(stored.slide_id)
            if len(acknowledged) == 70:
                server.process.kill()
    server.kill()
    server.start()
    stored_before = set(server.slides())
    assert acknowledged <= stored_before
    assert len(stored_before) < SLIDES
    stream = (request for e in encoded for request in requests_of(e))
    retried = {r.slide_id: r.was_stored for r in server.stub.Ingest(stream, timeout=60)}
    assert {slide_id for slide_id, was in retried.items() if was} == stored_before
    assert server.slides() == {e.slide.slide_id: (e.version, 20) for e in encoded}
    describe = shard_pb2.DescribeCollectionRequest(collection="demo")
    state = server.stub.DescribeCollection(describe, timeout=30).state
    assert (state.slides, state.postings) == (SLIDES, 20 * SLIDES)


def test_a_kill_while_loading_leaves_a_mark_and_the_next_start_checks_first(settings, make):
    with Shard(settings) as shard:
        shard.create_collection(make.collection)
        shard.ingest("demo", make.slide("s", 1))
    mark = settings.data_dir / "OPENING"
    mark.write_text("1")
    with Shard(settings) as shard:
        assert make.found(shard, make.slide("s", 1)) == ["s"]
    assert not mark.exists()
