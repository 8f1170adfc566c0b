"""Actors in the process, and the pool: back-pressure, isolation of failures, the store, stalls."""

import threading

import pytest

from sish_cluster.core.errors import BadRequest, BadSlide, Cancelled, EncoderUnavailable
from sish_cluster.core.posting import EncodedSlide
from sish_cluster.core.slide import Slide
from sish_cluster.encoder import pool
from sish_cluster.encoder import slide as slide_module
from sish_cluster.encoder.catalogue import CatalogueEntry
from sish_cluster.encoder.encoded_store import EncodedStore
from sish_cluster.encoder.lane import Stage
from sish_cluster.encoder.local_actor import local_actors
from sish_cluster.encoder.outcome import EncodeFailure
from sish_cluster.encoder.pool import SlideProgress, encode_all
from sish_cluster.encoder.reader_actor import SlideReaderActor
from sish_cluster.encoder.settings import ActorSettings, EncoderSettings
from sish_cluster.testing.slides import picture_named_slide, slide_without_mpp

ONE = ActorSettings(n_actors=1, poll_s=0.01)


@pytest.fixture
def actors(monkeypatch, encoder):
    """Local actors share the tests' encoder instead of reading the weights again."""
    monkeypatch.setattr("sish_cluster.encoder.local_actor.Encoder", lambda settings, **_: encoder)
    return encoder


@pytest.fixture
def folder(tmp_path, drawn_folder):
    """Two sound slides and two that are none, as entries."""
    picture_named_slide(tmp_path / "picture.svs")
    slide_without_mpp(tmp_path / "bare.tif", side_px=512)
    files = [
        drawn_folder / "glands.tif",
        tmp_path / "picture.svs",
        drawn_folder / "fibres.tif",
        tmp_path / "bare.tif",
    ]
    return [CatalogueEntry(file, Slide(file.stem), None) for file in files]


def by_id(outcomes):
    return {o.slide.slide_id if isinstance(o, EncodedSlide) else o.slide_id: o for o in outcomes}


@pytest.mark.parametrize("n_actors", [1, 2])
def test_a_bad_slide_is_a_failure_and_the_others_are_encoded(actors, folder, n_actors):
    settings = ActorSettings(n_actors=n_actors, poll_s=0.01)
    found = by_id(encode_all(folder, actors.settings, ray=False, actors=settings))
    assert set(found) == {"glands", "picture", "fibres", "bare"}
    for name in ("picture", "bare"):
        assert isinstance(found[name], EncodeFailure)
        assert isinstance(found[name].error, BadSlide)
    plain = actors.encode_slide(folder[0].path, folder[0].slide)
    assert found["glands"].version == plain.version


def test_entries_are_taken_only_when_an_actor_is_free(actors, folder):
    taken = []

    def entries():
        for entry in folder:
            taken.append(entry.slide.slide_id)
            yield entry

    outcomes = encode_all(entries(), actors.settings, ray=False, actors=ONE)
    next(outcomes)
    assert len(taken) <= 2
    outcomes.close()


def test_progress_names_the_slide_and_ends_with_all_its_patches(actors, glands):
    told = []
    (outcome,) = encode_all(
        [glands], actors.settings, ray=False, actors=ONE, on_progress=told.append
    )
    n = len(outcome.patches)
    assert told[-1] == SlideProgress("glands", "encoding", n, n)
    assert [p.done for p in told if p.stage == "encoding"] == sorted(
        p.done for p in told if p.stage == "encoding"
    )


def test_a_second_run_takes_slides_from_the_store_and_starts_no_actor(
    actors, glands, tmp_path, monkeypatch
):
    store, settings = EncodedStore(tmp_path), actors.settings
    (first,) = encode_all([glands], settings, ray=False, actors=ONE, cache=store)

    def refuse(*args, **kwargs):
        raise AssertionError("an actor was started")

    monkeypatch.setattr(pool, "started_actors", refuse)
    told = []
    (second,) = encode_all([glands], settings, cache=store, on_progress=told.append)
    assert second.version == first.version
    assert [progress.stage for progress in told] == ["stored"]


def test_a_damaged_store_entry_is_encoded_again(actors, glands, tmp_path):
    store, settings = EncodedStore(tmp_path), actors.settings
    (first,) = encode_all([glands], settings, ray=False, actors=ONE, cache=store)
    (entry,) = tmp_path.iterdir()
    whole = entry.read_bytes()
    entry.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    (second,) = encode_all([glands], settings, ray=False, actors=ONE, cache=store)
    assert second.version == first.version
    assert entry.read_bytes() == whole


def test_an_unreadable_slide_is_a_failure_before_any_actor_starts(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(pool, "started_actors", None)
    (failure,) = encode_all([folder[1]], EncoderSettings(), cache=EncodedStore(tmp_path / "store"))
    assert isinstance(failure.error, BadSlide)


def test_a_cancelled_job_stops_before_its_next_patch(encoder, glands):
    with local_actors(encoder.settings, ONE, encoder=encoder) as (lane,):
        begun = lane.encode(glands, "ticket")
        lane.cancel("ticket")
        assert isinstance(begun.result(60).error, Cancelled)
        assert lane.stage().ticket == "ticket"
        assert isinstance(lane.encode(glands, "another").result(60), EncodedSlide)


def test_a_slide_that_makes_no_progress_is_given_up_and_the_next_one_runs(
    encoder, glands, monkeypatch
):
    hang = threading.Event()
    plain = SlideReaderActor.items

    def hanging(self, entry, ticket):
        if entry.slide.slide_id == "stuck":
            self._stage = Stage(ticket, "mosaic", 2, 9)
            hang.wait()
        yield from plain(self, entry, ticket)

    monkeypatch.setattr(SlideReaderActor, "items", hanging)
    monkeypatch.setattr("sish_cluster.encoder.local_actor.Encoder", lambda settings, **_: encoder)
    stuck = CatalogueEntry(glands.path, Slide("stuck"), None)
    settings = ActorSettings(n_actors=1, poll_s=0.01, stall_timeout_s=12.0)
    found = by_id(encode_all([stuck, glands], encoder.settings, ray=False, actors=settings))
    hang.set()
    assert isinstance(found["stuck"].error, EncoderUnavailable)
    assert "patch 2 of 9" in str(found["stuck"].error)
    assert isinstance(found["glands"], EncodedSlide)


def test_patches_through_an_actor_are_those_of_the_encoder(encoder, patches):
    with local_actors(encoder.settings, ONE, encoder=encoder) as (lane,):
        keys, codes, _ = lane.encode_patches(patches[:1]).result(timeout=60)
    plain_keys, plain_codes, _ = encoder.encode_patches(patches[:1])
    assert keys.tolist() == plain_keys.tolist()
    assert codes.tobytes() == plain_codes.tobytes()


def test_at_least_one_actor_is_asked_for():
    with pytest.raises(BadRequest, match="at least 1 actor"):
        ActorSettings(n_actors=0)
    assert ActorSettings().wanted_actors >= 1


def test_a_slides_file_is_hashed_once_although_the_store_is_asked_first(
    actors, glands, tmp_path, monkeypatch
):
    hashed = []
    parts_of = slide_module._parts_of
    monkeypatch.setattr(
        slide_module, "_parts_of", lambda path: hashed.append(path) or parts_of(path)
    )
    store = EncodedStore(tmp_path)
    for times in (1, 2):
        [found] = encode_all([glands], actors.settings, ray=False, actors=ONE, cache=store)
        assert isinstance(found, EncodedSlide)
        assert hashed == [glands.path] * times
