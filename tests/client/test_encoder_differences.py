import dataclasses

import pytest

from sish_cluster.client import EncoderDescription, check_encoder
from sish_cluster.core.collection import Collection
from sish_cluster.core.errors import FingerprintMismatch

HERE = EncoderDescription(
    "compact",
    "ffff",
    1024,
    "compact (trained, vqvae.safetensors, digest 91d7d9bf59c3)",
    "densenet121 (own; file.pth, digest 0123456789ab)",
)


def refusal(*, here=HERE, there=HERE, **more):
    """Return what is said of an encoder at a collection made with another."""
    facts = {"code_bits": there.code_bits, "encoder": str(there)} | more
    with pytest.raises(FingerprintMismatch) as raised:
        check_encoder(Collection("demo", "eeee", **facts), here)
    assert raised.value.metadata == {"collection": "demo", "expected": "eeee", "found": "ffff"}
    return raised.value.message


CASES = {
    "profile (--profile): published in the collection, compact here": {"profile": "published"},
    "patches per slide (--patches-per-slide): 7 in the collection, the selector's here": {
        "mosaic": "at most 7 patches a slide"
    },
    "stain normalisation (--stain): macenko in the collection, as scanned here": {
        "mosaic": "stain macenko"
    },
    "mosaic (--selector): random in the collection, the profile's here": {
        "mosaic": "mosaic random"
    },
    "key network (--key-weights): compact (mine.pt, digest 1111) in the collection, compact (trained": {
        "key_weights": "compact (mine.pt, digest 1111)"
    },
    "embedder (--embedder, --weights): none in the collection, densenet121": {
        "texture_weights": "none"
    },
}


@pytest.mark.parametrize("said", CASES)
def test_the_option_that_differs_is_named_and_no_other(said):
    message = refusal(there=dataclasses.replace(HERE, **CASES[said]))
    assert f"than this one: {said}" in message
    assert message.count(" in the collection, ") == 1


def test_several_differences_are_all_named():
    other = dataclasses.replace(
        HERE, profile="retccl", mosaic="stain reinhard, mosaic entropy, at most 3 patches a slide"
    )
    message = refusal(there=other)
    named = ("--profile", "--stain", "--selector", "--patches-per-slide")
    assert [option in message for option in named] == [True] * 4


def test_the_same_weights_under_another_name_are_no_difference():
    renamed = "densenet121 (copy.pth, digest 0123456789ab)"
    message = refusal(there=dataclasses.replace(HERE, texture_weights=renamed))
    assert "both are described alike" in message
    assert "codeword order" in message


def test_a_description_of_somebodys_own_is_shown_beside_this_encoder():
    message = refusal(encoder="CTransPath at 20x")
    assert f"the collection's is CTransPath at 20x; this one is {HERE}" in message
    assert "described by nobody" in refusal(encoder="")


def test_the_collections_own_encoder_passes():
    check_encoder(Collection("demo", "ffff", 1024), HERE)
