"""Embeddings beside codes, or instead of them: durable, checked, forgotten, given back as they came."""

import dataclasses
import shutil

import numpy as np
import pytest

from sish_cluster.core.collection import Collection
from sish_cluster.core.errors import BadMessage, BadRequest, Corrupt
from sish_cluster.core.key import UNIVERSE
from sish_cluster.core.query import Filter, Mode
from sish_cluster.core.seams import SlideState
from sish_cluster.core.topology import KeyRange
from sish_cluster.shard import records
from sish_cluster.shard.backup import restored
from sish_cluster.shard.check import checked, drop_damaged
from sish_cluster.shard.data_dir import DataDir
from sish_cluster.shard.records import Kind
from sish_cluster.shard.shard import Shard
from sish_cluster.shard.store import Store

FEW = {"checkpoint_postings": 1}


@pytest.fixture
def filled(settings, make):
    """A data directory with slides s0..s7 of 70 patches in a collection of codes and embeddings."""
    with Shard(settings) as shard:
        shard.create_collection(make.both)
        for i in range(8):
            shard.ingest("both", make.embedded_slide(f"s{i}", i, 70))
    return DataDir(settings.data_dir)


def assert_same(found, encoded):
    assert (found.slide, found.version) == (encoded.slide, encoded.version)
    for name in ("keys", "codes", "corners", "numbers", "embeddings"):
        ours, theirs = getattr(found.patches, name), getattr(encoded.patches, name)
        assert ours.dtype == theirs.dtype, name
        assert np.array_equal(ours, theirs), name


@pytest.mark.parametrize("checkpoint_postings", [1, 10**6])
def test_slides_are_found_after_a_restart_with_a_checkpoint_and_without(
    settings, filled, make, checkpoint_postings
):
    chosen = dataclasses.replace(settings, checkpoint_postings=checkpoint_postings)
    for restart in range(3):
        with Shard(chosen) as shard:
            for i in range(8):
                encoded = make.embedded_slide(f"s{i}", i, 70)
                assert make.directly_found(shard, encoded) == [f"s{i}"]
                assert_same(shard.encoded_slide("both", f"s{i}"), encoded)
            shard.ingest("both", make.embedded_slide(f"t{restart}", 100 + restart, 9))
    assert filled.checkpoint("both").exists() == (checkpoint_postings == 1)
    assert checked(filled).damage == []


def test_an_update_replaces_and_a_forget_removes_embeddings(settings, filled, make):
    old, new = make.embedded_slide("s1", 1, 70), make.embedded_slide("s1", 50, 33)
    with Shard(settings) as shard:
        shard.ingest("both", new, state=SlideState.PENDING)
        assert make.directly_found(shard, old) == ["s1"]
        assert make.directly_found(shard, new) == []
        assert_same(shard.encoded_slide("both", "s1"), old)
    with Shard(settings) as shard:
        shard.commit_slide("both", "s1", new.version)
        assert make.directly_found(shard, old) == []
        assert make.directly_found(shard, new) == ["s1"]
        shard.forget("both", "s2")
        assert shard.encoded_slide("both", "s2") is None
        assert make.directly_found(shard, make.embedded_slide("s2", 2, 70)) == []
    assert checked(filled).damage == []
    store = Store(filled.store, limit_bytes=filled.limit_bytes, is_read_only=True)
    with store.rows(1) as rows:
        chunks = [records.serial_of(address) for address, _ in rows(Kind.EMBEDDING)]
    store.close()
    assert sorted(set(chunks)) == [0, 3, 4, 5, 6, 7, 8]


def test_memory_of_forgotten_embeddings_is_given_back_once_no_view_sees_them(shard, make):
    shard.create_collection(make.both)
    for i in range(3):
        shard.ingest("both", make.embedded_slide(f"s{i}", i, 70))
    held = shard._held("both")
    view, before = held.view, held.vectors.memory_bytes
    shard.forget("both", "s1")
    shard.ingest("both", make.embedded_slide("s3", 3, 1))
    assert held.vectors.memory_bytes > before
    del view
    shard.forget("both", "s3")
    shard.ingest("both", make.embedded_slide("s4", 4, 1))
    assert held.vectors.memory_bytes < before


def test_a_flipped_byte_of_an_embedding_is_found_named_and_can_be_dropped(
    settings, filled, make, flip
):
    encoded = make.embedded_slide("s3", 3, 70)
    path, wanted = filled.store / "data.mdb", encoded.patches.embeddings.tobytes()[:64]
    place = path.read_bytes().find(wanted)
    flip(path, place + 5)
    assert "'s3'" in checked(filled).damage[0]
    with pytest.raises(Corrupt, match=r"EMBEDDING record .* does not match") as caught:
        Shard(settings)
    assert caught.value.metadata["serial"] == "3"
    assert drop_damaged(filled).dropped == 1
    assert checked(filled).damage == []
    with Shard(settings) as shard:
        assert shard.encoded_slide("both", "s3") is None
        assert not shard.ingest("both", encoded).was_stored
        assert make.directly_found(shard, encoded) == ["s3"]


@pytest.mark.parametrize("chunk_of", [(1, 2, 0), (1, 99, 0)])
def test_missing_and_left_over_embeddings_are_damage(filled, chunk_of):
    address = records.chunk_address(*chunk_of)
    store = Store(filled.store, limit_bytes=filled.limit_bytes)
    if chunk_of[1] == 2:
        store.write(lambda batch: batch.delete_at(Kind.EMBEDDING, address))
    else:
        store.write(lambda batch: batch._put(Kind.EMBEDDING, address, b"12345678"))
    store.close()
    damage = "\n".join(checked(filled).damage)
    expected = "'s2': it has 0 of its 1 EMBEDDING" if chunk_of[1] == 2 else "no sound slide header"
    assert expected in damage


def test_a_backup_has_the_embeddings_and_its_copy_finds_them(settings, make, tmp_path):
    encoded = make.embedded_slide("s", 4, 500)
    with Shard(settings) as shard:
        shard.create_collection(make.both)
        shard.ingest("both", encoded)
        assert shard.backup(tmp_path / "backup").damage == []
    restored(tmp_path / "backup", tmp_path / "again")
    with Shard(dataclasses.replace(settings, data_dir=tmp_path / "again")) as shard:
        assert_same(shard.encoded_slide("both", "s"), encoded)
        assert make.directly_found(shard, encoded) == ["s"]


def test_a_collection_without_embeddings_has_the_records_and_tables_it_had_before(settings, make):
    with Shard(settings) as shard:
        shard.create_collection(make.collection)
        shard.ingest("demo", make.slide("s", 1))
    folder = DataDir(settings.data_dir)
    store = Store(folder.store, limit_bytes=folder.limit_bytes, is_read_only=True)
    assert Kind.EMBEDDING not in store._tables
    store.close()
    assert records.collection_payload(1, make.collection) == (
        b'{"collection":{"code_bits":128,"encoder":"","fingerprint":"fingerprint-1",'
        b'"max_distance":128,"name":"demo"},"number":1}'
    )
    assert checked(folder).damage == []
    with Shard(settings) as shard:
        shard.create_collection(make.both)
        shard.ingest("both", make.embedded_slide("s", 2))
        assert make.found(shard, make.slide("s", 1)) == ["s"]
        assert make.directly_found(shard, make.embedded_slide("s", 2)) == ["s"]


def test_the_table_of_embeddings_is_not_there_when_its_collection_was_refused(settings, make):
    with Shard(settings) as shard:
        shard.create_collection(make.collection)
        store, made = shard._store, []

        def fail(batch):
            batch.put_collection(2, make.both)
            made.append(Kind.EMBEDDING in batch._tables)
            raise BadRequest("no")

        with pytest.raises(BadRequest):
            store.write(fail)
        assert made == [True]
        assert Kind.EMBEDDING not in store._tables
        shard.create_collection(make.both)
        shard.ingest("both", make.embedded_slide("s", 2))
        assert make.directly_found(shard, make.embedded_slide("s", 2)) == ["s"]


def test_a_collection_of_embeddings_only_is_stored_listed_looked_up_and_searched(settings, make):
    slides = {f"s{i}": make.embedded_slide(f"s{i}", i, 40, code_bytes=0) for i in range(3)}
    chosen = dataclasses.replace(settings, **FEW)
    with Shard(chosen) as shard:
        shard.create_collection(make.embedded)
        for encoded in slides.values():
            shard.ingest("embedded", encoded)
    with Shard(chosen) as shard:
        assert [s.slide.slide_id for s in shard.list_slides("embedded")] == ["s0", "s1", "s2"]
        page = shard.range_lookup("embedded", 0, UNIVERSE)
        assert page.codes.shape == (120, 0)
        keys = np.concatenate([s.patches.keys for s in slides.values()])
        assert np.array_equal(page.keys, np.sort(keys))
        for slide_id, encoded in slides.items():
            assert make.directly_found(shard, encoded, "embedded") == [slide_id]
            assert_same(shard.encoded_slide("embedded", slide_id), encoded)
    report = checked(DataDir(settings.data_dir))
    assert (report.damage, report.checkpoint_damage) == ([], [])
    assert report.collections[0].postings == 120


def test_a_shard_gives_its_share_of_a_slide_with_the_whole_slides_version(settings, make):
    encoded = make.embedded_slide("s", 1, 200)
    half = UNIVERSE // 2
    is_here = encoded.patches.keys < half
    chosen = dataclasses.replace(settings, range=KeyRange(0, half))
    with Shard(chosen) as shard:
        shard.create_collection(make.both)
        shard.ingest("both", encoded.part(is_here), is_home=False, home="other")
        found = shard.encoded_slide("both", "s")
        assert_same(found, encoded.part(is_here))
        assert 0 < len(found.patches) < 200
        assert shard.encoded_slide("both", "unknown") is None


def test_a_home_without_postings_gives_an_empty_share(shard, make):
    shard.create_collection(make.both)
    encoded = make.embedded_slide("s", 1, 10)
    shard.ingest("both", encoded.part(np.zeros(10, bool)))
    assert_same(shard.encoded_slide("both", "s"), encoded.part(np.zeros(10, bool)))


@pytest.mark.parametrize(("code_bytes", "dimensions"), [(16, 0), (0, 24), (16, 23), (24, 24)])
def test_a_slide_with_other_columns_is_refused_with_both_lengths(
    shard, make, code_bytes, dimensions
):
    shard.create_collection(make.both)
    patches = make.embedded_patches(1, code_bytes=code_bytes, dimensions=dimensions)
    found = f"codes of 16 bytes .* of 24 dim.*found codes of {code_bytes} .*of {dimensions} dim"
    with pytest.raises(BadMessage, match=found):
        shard.ingest("both", make.slide("s", patches=patches))


def test_a_query_needs_only_what_its_mode_compares(shard, make):
    shard.create_collection(make.both)
    encoded = make.embedded_slide("s", 1)
    shard.ingest("both", encoded)
    coded, embedded = encoded.patches.without_embeddings(), make.embedded_patches(1, code_bytes=0)
    for patches, mode, ran in (
        (coded, Mode.EXACT, Mode.EXACT),
        (coded, Mode.AUTO, Mode.EXACT),
        (embedded, Mode.DIRECT, Mode.DIRECT),
        (embedded, Mode.AUTO, Mode.DIRECT),
    ):
        answer = shard.search("both", make.query(patches, mode=mode, min_cosine=1.0))
        assert (answer.mode, len(answer.candidates)) == (ran, 5)
    with pytest.raises(BadMessage, match="compares embeddings of 24 dimensions; found 0"):
        shard.search("both", make.query(coded, mode=Mode.DIRECT))
    with pytest.raises(BadMessage, match="compares codes of 16 bytes; found 0"):
        shard.search("both", make.query(embedded, mode=Mode.GUIDED))


def test_a_mode_the_collection_lacks_is_refused_and_auto_means_one_it_has(shard, make):
    shard.create_collection(make.embedded)
    shard.create_collection(Collection("plain", make.fingerprint, 128, has_keys=False))
    encoded = make.embedded_slide("s", 1, code_bytes=0)
    shard.ingest("embedded", encoded)
    for mode in (Mode.SISH, Mode.GUIDED, Mode.EXACT):
        with pytest.raises(BadRequest, match="use direct"):
            shard.search("embedded", make.query(encoded.patches, mode=mode))
    with pytest.raises(BadRequest, match=r"keeps no embeddings.*use exact"):
        shard.search("plain", make.query(encoded.patches, mode=Mode.DIRECT))
    answer = shard.search("embedded", make.query(encoded.patches, mode=Mode.AUTO))
    assert (answer.mode, answer.eligible) == (Mode.DIRECT, 5)
    auto = make.query(make.patches(1), mode=Mode.AUTO)
    assert shard.search("plain", auto).mode is Mode.EXACT


def test_filters_decide_what_counts_as_eligible_and_examined(shard, make):
    shard.create_collection(make.both)
    for i in range(6):
        shard.ingest("both", make.embedded_slide(f"s{i}", i, 10, site="lung" if i % 2 else "skin"))
    where = Filter.of(keep={"site": ["lung"]})
    patches = make.embedded_patches(1, 3)
    query = make.query(patches, where=where, mode=Mode.DIRECT, min_cosine=-1.0)
    answer = shard.search("both", query, wants_examined=True)
    assert {slide.site for slide in answer.slides} == {"lung"}
    assert (answer.eligible, answer.examined_counts.tolist()) == (30, [30, 30, 30])
    assert np.diff(answer.candidates.offsets).tolist() == [30, 30, 30]


def test_a_full_store_that_never_had_embeddings_opens_and_grows_into_them(settings, make, tmp_path):
    small = dataclasses.replace(settings, map_bytes=256 << 10)
    with Shard(small) as shard:
        shard.create_collection(make.collection)
        with pytest.raises(Exception, match="is full"):
            for i in range(1000):
                shard.ingest("demo", make.slide(f"s{i}", i, 100))
    shutil.copytree(settings.data_dir, tmp_path / "copy")
    with Shard(dataclasses.replace(settings, data_dir=tmp_path / "copy")) as shard:
        shard.grow(4 << 20)
        shard.create_collection(make.both)
        shard.ingest("both", make.embedded_slide("s", 1, 300))
        assert make.directly_found(shard, make.embedded_slide("s", 1, 300)) == ["s"]
