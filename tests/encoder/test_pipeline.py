"""From a slide file to an encoded slide: what is filled in, and how failures look."""

import dataclasses

import numpy as np
import pytest

from sish_cluster.core.errors import BadRequest, BadSlide, Internal
from sish_cluster.core.slide import Slide
from sish_cluster.encoder.catalogue import CatalogueEntry
from sish_cluster.encoder.cutting import cut_mosaic
from sish_cluster.encoder.encoded_store import EncodedStore
from sish_cluster.encoder.keying import KeyNetwork
from sish_cluster.encoder.local_actor import local_actors
from sish_cluster.encoder.outcome import EncodeFailure
from sish_cluster.encoder.settings import ActorSettings
from sish_cluster.encoder.slide import open_slide
from sish_cluster.testing.slides import empty_slide, one_patch_slide, slide_without_mpp


@pytest.fixture(scope="module")
def encoded(encoder, glands):
    return encoder.encode_slide(glands.path, glands.slide)


def test_an_encoded_slide_knows_its_sizes_and_keeps_its_labels(encoded, encoder, glands):
    slide = encoded.slide
    assert (slide.width_px, slide.height_px, slide.patch_side_px) == (1024, 1024, 256)
    assert slide.mpp == pytest.approx(2.0, rel=1e-3)
    assert (slide.diagnosis, slide.labels) == ("glands", {"stain": "HE"})
    assert len(slide.digest) == 32
    assert encoded.fingerprint == encoder.fingerprint


def test_each_row_is_the_key_and_code_of_the_patch_at_its_corner(encoded, encoder, glands):
    with open_slide(glands.path) as reader:
        mosaic = cut_mosaic(reader, encoder.settings.mosaic)
        last = len(mosaic) - 1
        pixels = reader.region(mosaic.box(last), side_px=512)
    keys, codes, embeddings = encoder.encode_patches(pixels[None])
    assert np.array_equal(encoded.patches.corners, mosaic.corners)
    assert encoded.patches.keys[last] == keys[0]
    assert np.array_equal(encoded.patches.codes[last], codes[0])
    assert np.array_equal(encoded.patches.embeddings[last], embeddings[0])


def test_progress_tells_every_stage_and_every_patch(encoder, tmp_path):
    steps = []
    path = one_patch_slide(tmp_path / "one.tif", mpp=2.0)
    encoded = encoder.encode_slide(path, Slide("one"), progress=lambda *step: steps.append(step))
    n = len(encoded.patches)
    assert steps[0] == ("reading", 0, 0)
    assert {stage for stage, _, _ in steps} == {"reading", "mosaic", "encoding"}
    assert [step for step in steps if step[0] == "encoding"] == [
        ("encoding", i, n) for i in range(n + 1)
    ]


def fate_of(entry, encoder):
    """Return what becomes of an entry on the way every slide of a folder takes."""
    with local_actors(encoder.settings, ActorSettings(n_actors=1), encoder=encoder) as (lane,):
        return lane.encode(entry, "ticket").result(60)


def test_an_error_raised_by_progress_stops_the_slide(encoder, glands):
    def stop(stage, done, total):
        if stage == "encoding":
            raise BadRequest("enough")

    with pytest.raises(BadRequest, match=r"^enough$"):
        encoder.encode_slide(glands.path, glands.slide, progress=stop)


def test_a_slide_without_tissue_and_one_without_mpp_are_failures_that_say_why(encoder, tmp_path):
    empty = CatalogueEntry(empty_slide(tmp_path / "e.tif", side_px=512), Slide("e"), None)
    bare = CatalogueEntry(slide_without_mpp(tmp_path / "b.tif", side_px=512), Slide("b"), None)
    failures = [fate_of(entry, encoder) for entry in (empty, bare)]
    assert all(isinstance(failure, EncodeFailure) for failure in failures)
    assert [failure.slide_id for failure in failures] == ["e", "b"]
    assert all(isinstance(failure.error, BadSlide) for failure in failures)
    assert "tissue" in failures[0].error.message
    assert "--mpp" in failures[1].error.message


def test_what_nobody_foresaw_becomes_an_internal_failure_of_that_slide(
    encoder, glands, monkeypatch
):
    def broken(pixels):
        raise ZeroDivisionError("surprise")

    monkeypatch.setattr(encoder, "encode_patches", broken)
    failure = fate_of(glands, encoder)
    assert isinstance(failure.error, Internal)
    assert "ZeroDivisionError: surprise" in failure.error.message


def test_patches_of_another_side_than_the_profiles_are_refused(encoder):
    with pytest.raises(BadRequest, match=r"\(n, 512, 512, 3\)"):
        encoder.encode_patches(np.zeros((1, 1024, 1024, 3), np.uint8))


@pytest.mark.slow
def test_the_published_profile_sees_1024_pixels_and_uses_many_codewords(patches):
    keying = KeyNetwork("vqvae-large")
    latents = keying.latents_of(patches[:1].repeat(2, axis=1).repeat(2, axis=2))
    assert latents.shape == (1, 64, 64)
    assert len(np.unique(latents)) > 40
    assert "vqvae-large (untrained" in keying.description


def kept(store, encoded, **changed):
    how = {"digest": encoded.slide.digest, "fingerprint": encoded.fingerprint}
    how |= {"mosaic_digest": "m", "mpp": None} | changed
    return store.found(Slide("glands", site="colon"), **how)


def test_a_stored_slide_comes_back_under_the_callers_labels(encoded, tmp_path):
    store = EncodedStore(tmp_path / "encoded")
    store.put(encoded, mosaic_digest="m", mpp=None)
    found = kept(store, encoded)
    assert found.slide == dataclasses.replace(
        encoded.slide, patient="", site="colon", diagnosis="", labels={}
    )
    for column in ("keys", "codes", "corners", "numbers", "embeddings"):
        assert np.array_equal(getattr(found.patches, column), getattr(encoded.patches, column))


@pytest.mark.parametrize(
    "changed",
    [{"digest": "0"}, {"fingerprint": "0"}, {"mosaic_digest": "0"}, {"mpp": 0.5}],
    ids=str,
)
def test_another_file_encoder_mosaic_or_mpp_is_another_entry(encoded, tmp_path, changed):
    store = EncodedStore(tmp_path)
    store.put(encoded, mosaic_digest="m", mpp=None)
    assert kept(store, encoded, **changed) is None


@pytest.mark.parametrize("damage", ["a byte", "the end", "everything"])
def test_a_damaged_entry_counts_as_absent(encoded, tmp_path, damage):
    store = EncodedStore(tmp_path)
    store.put(encoded, mosaic_digest="m", mpp=None)
    (entry,) = tmp_path.iterdir()
    data = bytearray(entry.read_bytes())
    if damage == "a byte":
        data[len(data) // 2] ^= 1
    entry.write_bytes({"the end": data[:-9], "everything": b""}.get(damage, data))
    assert kept(store, encoded) is None
    store.put(encoded, mosaic_digest="m", mpp=None)
    assert kept(store, encoded) is not None
