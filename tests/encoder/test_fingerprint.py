"""The fingerprint: everything that changes a key or a code changes it, the mosaic does not."""

import dataclasses

import pytest
import torch

from sish_cluster.core.errors import BadRequest
from sish_cluster.encoder.cutting import MosaicSettings
from sish_cluster.encoder.embedders import NetworkEmbedder
from sish_cluster.encoder.fingerprint import fingerprint_of, parts_of
from sish_cluster.encoder.keying import KeyNetwork
from sish_cluster.encoder.networks.seeding import drawn_network
from sish_cluster.encoder.networks.vqvae import COMPACT as COMPACT_SIZE
from sish_cluster.encoder.pipeline import Encoder, description_of
from sish_cluster.encoder.profile import COMPACT, PUBLISHED, RETCCL, own_profile, profile_of
from sish_cluster.encoder.settings import EncoderSettings


def test_the_same_settings_give_the_same_fingerprint(encoder):
    again = Encoder(EncoderSettings())
    assert again.fingerprint == encoder.fingerprint == description_of(EncoderSettings()).fingerprint
    assert len(encoder.fingerprint) == 32


def test_the_mosaics_seed_is_no_part_of_it_and_its_selector_is(encoder):
    other = EncoderSettings(mosaic=MosaicSettings(rng_seed=9))
    assert description_of(other).fingerprint == encoder.fingerprint
    assert other.mosaic_digest != EncoderSettings().mosaic_digest
    random = description_of(EncoderSettings(mosaic=MosaicSettings(selector="random")))
    few = description_of(EncoderSettings(mosaic=MosaicSettings(patches_per_slide=7)))
    assert len({encoder.fingerprint, random.fingerprint, few.fingerprint}) == 3
    assert str(random).endswith("mosaic random")
    assert str(few).endswith("at most 7 patches a slide")


def test_how_many_threads_read_is_no_part_of_the_mosaic():
    one = EncoderSettings(mosaic=MosaicSettings(readers=1))
    assert one.mosaic_digest == EncoderSettings(mosaic=MosaicSettings(readers=3)).mosaic_digest


def test_weights_order_and_profile_each_change_it(tmp_path, encoder):
    torch.save({"model": drawn_network(COMPACT_SIZE, rng_seed=3).state_dict()}, tmp_path / "m.pt")
    torch.save(list(reversed(range(128))), tmp_path / "order.pt")
    weights = EncoderSettings(key_weights=tmp_path / "m.pt")
    order = dataclasses.replace(weights, codeword_order=tmp_path / "order.pt")
    found = [description_of(s).fingerprint for s in (weights, order)]
    keying, texture = KeyNetwork("vqvae-compact"), NetworkEmbedder()
    wider = dataclasses.replace(COMPACT, side_px=1024)
    found += [fingerprint_of(wider, keying, texture), encoder.fingerprint]
    assert len(set(found)) == 4


def test_its_parts_name_both_networks_and_what_they_see():
    parts = parts_of(COMPACT, KeyNetwork("vqvae-compact"), NetworkEmbedder())
    assert (parts["side_px"], parts["mpp"], parts["field_um"]) == (512, 1.0, 512.0)
    assert parts["key"]["network"] == "vqvae-compact"
    assert parts["texture"]["bits"] == 1024


def test_sishs_profiles_cover_the_same_field_and_compact_is_the_default():
    assert EncoderSettings().profile is COMPACT
    assert COMPACT.mpp * COMPACT.side_px == PUBLISHED.mpp * PUBLISHED.side_px == 512.0
    with pytest.raises(BadRequest, match="compact, published, retccl"):
        profile_of("large")


def test_retccls_profile_has_256_px_at_1_mpp_its_own_selector_and_no_keys():
    settings = EncoderSettings(profile=RETCCL)
    assert (RETCCL.side_px, RETCCL.mpp, RETCCL.key_network) == (256, 1.0, "")
    assert (settings.cutting.field_um, settings.cutting.selector) == (256.0, "retccl")
    assert settings.extras == {"mosaic": {"selector": "retccl", "patches": None}}
    assert own_profile(side_px=224, mpp=0.5).field_um == 112.0
