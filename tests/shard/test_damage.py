"""Damage in the store's file: found, named, never served; the rest can be rescued.

``SISH_DAMAGE_PLACES`` sets how many places of the file are broken one at a time (CI: 6).
"""

import os
import random
import shutil

import pytest

from sish_cluster.core.errors import Corrupt, HomeInUse
from sish_cluster.shard import records
from sish_cluster.shard.check import check_in_another_process, checked, drop_damaged
from sish_cluster.shard.data_dir import DataDir
from sish_cluster.shard.records import Kind
from sish_cluster.shard.shard import Shard
from sish_cluster.shard.store import Store

PLACES = int(os.environ.get("SISH_DAMAGE_PLACES", "6"))


@pytest.fixture
def slides(make):
    return {f"slide-{i}": make.slide(f"slide-{i}", i, 300, patient=f"p{i}") for i in range(8)}


@pytest.fixture
def folder(settings, make, slides):
    with Shard(settings) as shard:
        shard.create_collection(make.collection)
        for encoded in slides.values():
            shard.ingest("demo", encoded)
    return DataDir(settings.data_dir)


def flip_all(folder, flip, content):
    """Flip a byte in every copy of ``content``: LMDB leaves old pages behind."""
    path = folder.store / "data.mdb"
    data, place, flipped = path.read_bytes(), 0, 0
    while (place := data.find(content, place)) >= 0:
        flip(path, place + len(content) // 2)
        place, flipped = place + 1, flipped + 1
    assert flipped


def content_of(encoded, kind):
    return {
        "codes": encoded.patches.codes.tobytes()[:64],
        "keys": encoded.patches.keys.tobytes()[:64],
        "corners": encoded.patches.corners.tobytes()[:64],
        "header": f'"version":"{encoded.version}"'.encode(),
    }[kind]


@pytest.mark.parametrize("kind", ["codes", "keys", "corners", "header"])
def test_a_flipped_byte_of_any_record_is_found_and_the_shard_does_not_serve(
    folder, settings, slides, flip, kind
):
    flip_all(folder, flip, content_of(slides["slide-3"], kind))
    report = checked(folder)
    assert report.damage
    if kind != "header":
        assert "'slide-3'" in report.damage[0]
    with pytest.raises(Corrupt, match=r"damaged.*record") as caught:
        Shard(settings)
    assert caught.value.metadata["serial"] == "3"


@pytest.mark.parametrize("kind", ["codes", "header"])
def test_damaged_slides_can_be_dropped_and_ingested_again(
    folder, settings, make, slides, flip, kind
):
    flip_all(folder, flip, content_of(slides["slide-3"], kind))
    report = drop_damaged(folder)
    assert (report.dropped, report.collections[0].slides) == (1, 7)
    assert checked(folder).damage == []
    with Shard(settings) as shard:
        assert "slide-3" not in [s.slide.slide_id for s in shard.list_slides("demo")]
        assert not shard.ingest("demo", slides["slide-3"]).was_stored
        for slide_id, encoded in slides.items():
            assert make.found(shard, encoded) == [slide_id]
    assert checked(folder).damage == []


def test_damaged_slides_of_a_served_store_are_not_dropped(shard, settings):
    with pytest.raises(HomeInUse):
        drop_damaged(DataDir(settings.data_dir))


def test_a_truncated_file_is_damage_and_not_a_crash(folder, settings):
    path = folder.store / "data.mdb"
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(Corrupt, match=r"data\.mdb|records|damaged"):
        Shard(settings)


def test_a_file_that_is_no_store_is_damage(folder, settings):
    (folder.store / "data.mdb").write_bytes(b"\x01\x02" * 40_000)
    with pytest.raises(Corrupt, match=r"data\.mdb is damaged"):
        Shard(settings)


def test_a_load_that_died_is_checked_in_another_process_before_the_next_one(folder, settings):
    path = folder.store / "data.mdb"
    os.truncate(path, path.stat().st_size // 2)
    (folder.path / "OPENING").write_text("1")
    with pytest.raises(Corrupt):
        Shard(settings)


@pytest.mark.slow
def test_a_sector_broken_anywhere_in_the_file_is_found_or_changes_nothing(
    folder, settings, make, slides, tmp_path
):
    rng = random.Random(7)
    size = (folder.store / "data.mdb").stat().st_size
    for place in [rng.randrange(size // 512) * 512 for _ in range(PLACES)]:
        copy = tmp_path / "copy"
        shutil.copytree(folder.path, copy)
        _overwrite(copy / "store" / "data.mdb", place, rng.randbytes(512))
        report = check_in_another_process(DataDir(copy))
        if not report.damage:
            with Shard(type(settings)(data_dir=copy)) as shard:
                for slide_id, encoded in slides.items():
                    assert make.found(shard, encoded) == [slide_id], place
        shutil.rmtree(copy)


def _overwrite(path, place, content):
    with open(path, "r+b") as file:
        file.seek(place)
        file.write(content)


def test_postings_that_vanished_with_their_page_are_missed(folder):
    store = Store(folder.store, limit_bytes=folder.limit_bytes)
    gone = records.chunk_address(1, 2, 0)
    store.write(lambda batch: batch.delete_at(Kind.BLOB, gone))
    store.write(lambda batch: batch.delete_at(Kind.SLIDE, records.slide_address(1, 5)))
    store.close()
    damage = "\n".join(checked(folder).damage)
    assert "slide 'slide-2' has 0 of its 1 BLOB records" in damage
    assert "belongs to no sound slide header" in damage
