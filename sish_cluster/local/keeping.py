"""What a collection keeps of its patches: codes, embeddings, or both.

An encoder makes both from the same numbers; a collection keeps what its searches compare. Codes are
small (128 bytes a patch) and searched by Hamming distance; embeddings (2 KiB) by cosine.
"""

from __future__ import annotations

import dataclasses
import enum

import numpy as np

from sish_cluster.client import EncoderDescription
from sish_cluster.core.collection import (
    PUBLISHED_MAX_DISTANCE,
    Collection,
    default_max_distance,
)
from sish_cluster.core.errors import BadRequest
from sish_cluster.core.posting import EncodedSlide


class Keep(enum.StrEnum):
    """What of each patch a collection keeps."""

    CODES = "codes"
    """Texture codes: searched in modes sish, guided and exact."""
    EMBEDDINGS = "embeddings"
    """Embeddings: searched in mode direct."""
    BOTH = "both"
    """Either."""


def usual_keep(encoder: EncoderDescription) -> Keep:
    """Return what a collection of this encoder keeps when nothing is said.

    Codes, as SISH does; embeddings where there is no key network, as RetCCL does.
    """
    return Keep.CODES if encoder.has_keys or not encoder.dimensions else Keep.EMBEDDINGS


def keep_of(collection: Collection) -> Keep:
    """Return what a collection keeps."""
    if collection.code_bits and collection.dimensions:
        return Keep.BOTH
    return Keep.CODES if collection.code_bits else Keep.EMBEDDINGS


def collection_of(name: str, encoder: EncoderDescription, keep: Keep) -> Collection:
    """Return the definition of a new collection.

    Raises
    ------
    BadRequest
        If it is to keep embeddings and the encoder gives none.
    """
    wants_codes, wants_embeddings = keep is not Keep.EMBEDDINGS, keep is not Keep.CODES
    if wants_embeddings and not encoder.dimensions:
        raise BadRequest(
            f"a collection that keeps {keep} needs an encoder that gives embeddings; this one"
            f" ({encoder}) gives codes alone: use a newer encoder service, or --keep codes",
            field="keep",
        )
    bound = default_max_distance(encoder.profile, encoder.code_bits)
    return Collection(
        name,
        encoder.fingerprint,
        encoder.code_bits if wants_codes else 0,
        bound if wants_codes else PUBLISHED_MAX_DISTANCE,
        str(encoder),
        encoder.dimensions if wants_embeddings else 0,
        encoder.has_keys,
    )


def check_keep(collection: Collection, keep: Keep | None) -> None:
    """Raise `BadRequest` where a collection that is there keeps something else than asked for."""
    if keep is not None and keep is not keep_of(collection):
        raise BadRequest(
            f"collection {collection.name!r} keeps {keep_of(collection)}, and --keep {keep} was asked"
            " for: what a collection keeps never changes; make another collection",
            field="keep",
        )


def kept(slide: EncodedSlide, collection: Collection) -> EncodedSlide:
    """Return an encoded slide with only those columns its collection keeps."""
    patches = slide.patches
    if patches.dimensions and not collection.dimensions:
        patches = patches.without_embeddings()
    if patches.code_bytes and not collection.code_bits:
        patches = dataclasses.replace(patches, codes=np.zeros((len(patches), 0), np.uint8))
    if patches is slide.patches:
        return slide
    return EncodedSlide.whole(slide.slide, patches, slide.fingerprint)
