"""Stain normalisation: known stains are found, other laboratories' colours come nearer, glass stays."""

import numpy as np
import pytest

from sish_cluster.core.errors import BadRequest
from sish_cluster.encoder.pipeline import description_of
from sish_cluster.encoder.reading import read_slide
from sish_cluster.encoder.settings import EncoderSettings
from sish_cluster.encoder.stain import (
    CONCENTRATIONS,
    LIGHT,
    METHODS,
    STAINS,
    TARGET_DEVIATION,
    TARGET_MEAN,
    Unchanged,
    _lab,
    stain_of,
    stain_vectors,
)


def stained(stains, strength=1.0, rng_seed=0, n=2):
    """Return patches dyed with two stains, uint8 (n, 64, 64, 3), and their densities."""
    rng = np.random.default_rng(rng_seed)
    amounts = rng.uniform(0.05, 1, (n * 64 * 64, 2)) * np.where(
        rng.random((n * 64 * 64, 1)) < 0.5, [1.0, 0.05], [0.05, 1.0]
    )
    unit = np.asarray(stains) / np.linalg.norm(stains, axis=1, keepdims=True)
    densities = amounts * strength * CONCENTRATIONS @ unit
    pixels = np.clip(LIGHT * np.exp(-densities) - 1, 0, 255)
    return np.rint(pixels).astype(np.uint8).reshape(n, 64, 64, 3), densities


OTHER = np.array([[0.55, 0.75, 0.36], [0.10, 0.95, 0.30]])
"""A laboratory with bluer haematoxylin and redder eosin."""


def test_macenko_finds_the_stains_a_picture_was_dyed_with():
    _, densities = stained(OTHER)
    found = stain_vectors(densities[densities.mean(axis=1) > 0.15])
    unit = OTHER / np.linalg.norm(OTHER, axis=1, keepdims=True)
    assert (found * unit).sum(axis=1) == pytest.approx([1, 1], abs=0.01)


@pytest.mark.parametrize("method", METHODS)
def test_two_laboratories_come_nearer_to_each_other(method):
    here, _ = stained(STAINS, strength=1.0)
    there, _ = stained(OTHER, strength=0.6)
    before = np.abs(here.mean((0, 1, 2)) - there.mean((0, 1, 2))).max()
    ours, theirs = (stain_of(method, p).applied(p) for p in (here, there))
    assert ours.dtype == np.uint8
    assert ours.shape == here.shape
    after = np.abs(ours.mean((0, 1, 2)) - theirs.mean((0, 1, 2))).max()
    assert after < 0.6 * before


def test_reinhard_gives_the_reference_its_means_and_deviations():
    pixels, densities = stained(STAINS, strength=0.7)
    flat = stain_of("reinhard", pixels).applied(pixels).reshape(-1, 3)
    values = _lab(flat[densities.mean(axis=1) > 0.15])
    assert values.mean(axis=0) == pytest.approx(TARGET_MEAN, abs=0.02)
    assert values.std(axis=0) == pytest.approx(TARGET_DEVIATION, abs=0.02)


@pytest.mark.parametrize("method", METHODS)
def test_every_patch_of_a_slide_is_mapped_alike_whatever_its_batch(method):
    pixels, _ = stained(OTHER, n=4)
    stain = stain_of(method, pixels)
    assert np.array_equal(stain.applied(pixels)[2:3], stain.applied(pixels[2:3]))


@pytest.mark.parametrize("method", METHODS)
def test_glass_is_left_as_it_is(method):
    glass = np.full((2, 64, 64, 3), 245, np.uint8)
    assert isinstance(stain_of(method, glass), Unchanged)
    assert np.array_equal(stain_of(method, glass).applied(glass), glass)


def test_no_method_changes_nothing_and_an_unknown_one_is_refused():
    pixels, _ = stained(OTHER)
    assert stain_of("", pixels).applied(pixels) is pixels
    with pytest.raises(BadRequest, match="macenko, reinhard"):
        stain_of("vahadane", pixels)


def test_it_is_in_the_fingerprint_and_in_the_description(encoder):
    found = description_of(EncoderSettings(stain="macenko"))
    assert found.fingerprint != encoder.fingerprint
    assert str(found).endswith("stain macenko")


def test_a_slides_patches_are_read_in_the_references_stain(encoder, glands):
    def first(stain):
        settings = EncoderSettings(mosaic=encoder.settings.mosaic, stain=stain)
        _, pixels, *_ = read_slide(glands, settings, encoder.embedder, tell=lambda *_: None)
        return pixels

    plain, normalised = first(""), first("reinhard")
    assert plain.shape == normalised.shape
    assert not np.array_equal(plain, normalised)
