"""The store when there is no room: searches go on, and so do writes once there is room again."""

import dataclasses
import resource

import pytest

from sish_cluster.core.errors import BadRequest, CheckpointMismatch, StoreFull
from sish_cluster.core.seams import SlideState
from sish_cluster.shard.shard import Shard
from sish_cluster.wire.status import error_from_bytes


def fill(shard, make, *, state=SlideState.COMMITTED):
    """Ingest slides until the store is full; return those that are durable."""
    stored = []
    while True:
        encoded = make.slide(f"s{len(stored)}", len(stored), 200)
        try:
            shard.ingest("demo", encoded, state=state)
        except StoreFull as error:
            return stored, error
        stored.append(encoded)


@pytest.fixture
def small(settings, make):
    with Shard(dataclasses.replace(settings, map_bytes=1 << 20)) as shard:
        shard.create_collection(make.collection)
        yield shard


def test_a_full_map_is_named_and_loses_nothing_and_searches_go_on(small, make):
    stored, error = fill(small, make)
    assert "limit of 1048576" in error.message
    assert "sish shard grow" in error.message
    assert error.retry_after_s > 1
    assert len(stored) > 10
    assert make.found(small, stored[0]) == ["s0"]
    assert make.found(small, stored[-1]) == [f"s{len(stored) - 1}"]
    assert small.describe_collection("demo").slides == len(stored)


def test_writes_go_on_after_the_limit_is_raised_without_opening_again(small, make, settings):
    stored, _ = fill(small, make)
    small.grow(2 << 20)
    more, _ = fill(small, make)
    assert len(more) > 1.5 * len(stored)
    small.close()
    with Shard(settings) as again:
        assert again.describe_collection("demo").slides == len(more)


def test_a_full_store_can_be_emptied_and_filled_again(small, make):
    stored, _ = fill(small, make)
    for encoded in stored:
        assert small.forget("demo", encoded.slide.slide_id).postings == 200
    again, _ = fill(small, make)
    assert len(again) > 0.6 * len(stored)


def test_pending_slides_of_a_full_store_can_still_be_committed(small, make):
    stored, _ = fill(small, make, state=SlideState.PENDING)
    for encoded in stored:
        small.commit_slide("demo", encoded.slide.slide_id, encoded.version)
    assert small.describe_collection("demo").slides == len(stored)


def test_in_a_batch_that_does_not_fit_whatever_fits_is_stored(small, make):
    begun = [small.begin_ingest("demo", make.slide(f"s{i}", i, 200)) for i in range(400)]
    fates = [future.exception() for future in begun]
    assert {type(fate) for fate in fates} == {type(None), StoreFull}
    kept = {f"s{i}" for i, fate in enumerate(fates) if fate is None}
    assert {s.slide.slide_id for s in small.list_slides("demo")} == kept


def test_a_full_disk_is_named_and_writes_go_on_when_it_has_room_again(serve, make, requests_of):
    server = serve()
    server.create()
    pid, unlimited = server.process.pid, (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))
    encoded = [make.slide(f"s{i}", i, 200) for i in range(400)]
    stream = (request for e in encoded for request in requests_of(e))
    fates = {r.slide_id: r.error for r in server.stub.Ingest(stream, timeout=60)}
    refused = {slide_id for slide_id, error in fates.items() if error}
    assert {type(error_from_bytes(fates[slide_id])) for slide_id in refused} == {StoreFull}
    assert server.slides().keys() == fates.keys() - refused
    resource.prlimit(pid, resource.RLIMIT_FSIZE, unlimited)
    stream = (request for e in encoded for request in requests_of(e))
    assert not any(r.error for r in server.stub.Ingest(stream, timeout=60))
    server.kill()
    server.start()
    assert len(server.slides()) == 400


def test_a_shard_opens_and_searches_on_a_disk_without_any_room(settings, make):
    encoded = make.slide("s", 1)
    with Shard(settings) as shard:
        shard.create_collection(make.collection)
        shard.ingest("demo", encoded)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    try:
        with Shard(settings) as shard:
            with pytest.raises(StoreFull, match="the disk refused a write"):
                shard.ingest("demo", make.slide("more", 2))
            assert make.found(shard, encoded) == ["s"]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)


def test_a_folder_of_another_layout_is_refused(settings):
    Shard(settings).close()
    (settings.data_dir / "LAYOUT").write_text('{"layout": 99}')
    with pytest.raises(CheckpointMismatch, match="layout 99"):
        Shard(settings)


def test_a_map_too_small_for_anything_is_refused(settings):
    with pytest.raises(BadRequest, match="at least 262144 bytes"):
        dataclasses.replace(settings, map_bytes=4096)
