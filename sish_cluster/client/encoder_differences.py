"""What makes two encoders two: the options named, rather than two digests side by side.

A fingerprint says only that something differs. A collection keeps its encoder in words beside it
(`EncoderDescription.__str__`); those words are read back here and set beside another encoder's.
"""

from __future__ import annotations

import re

from sish_cluster.client.encoder import EncoderDescription
from sish_cluster.core.collection import Collection
from sish_cluster.core.errors import FingerprintMismatch

_WORDS = re.compile(
    r"(?P<profile>[\w-]+); key: (?P<key>.*?); texture: (?P<texture>.*?\)|[^;]*)(?:; (?P<more>[^;]*))?"
)
_MORE = re.compile(
    r"(?:stain (?P<stain>[\w-]+))?(?:, )?(?:mosaic (?P<mosaic>[\w-]+))?(?:, )?"
    r"(?:at most (?P<patches>\d+) patches a slide)?"
)
_DIGEST = re.compile(r"digest ([0-9a-f]+)")

OPTIONS = {
    "profile": "profile (--profile)",
    "key": "key network (--key-weights)",
    "texture": "embedder (--embedder, --weights)",
    "stain": "stain normalisation (--stain)",
    "mosaic": "mosaic (--selector)",
    "patches": "patches per slide (--patches-per-slide)",
}
"""Part of a description -> what people call it, and the option that sets it."""

USUAL = {"stain": "as scanned", "mosaic": "the profile's", "patches": "the selector's"}
"""What a part is where a description leaves it out."""


def check_encoder(collection: Collection, encoder: EncoderDescription) -> None:
    """Raise `FingerprintMismatch`, naming what differs, unless the encoder is the collection's."""
    if encoder.fingerprint == collection.fingerprint:
        return
    differences = differences_of(collection, encoder)
    told = "; ".join(differences) or (
        f"both are described alike ({encoder}), so it is something descriptions leave out: the codeword"
        " order, or how another version of sish reads pixels"
    )
    raise FingerprintMismatch(
        f"collection {collection.name!r} was made with another encoder than this one: {told}. Give the"
        " options it was made with, or make a new collection (fingerprint of the collection"
        f" {collection.fingerprint}, of this encoder {encoder.fingerprint})",
        metadata={
            "collection": collection.name,
            "expected": collection.fingerprint,
            "found": encoder.fingerprint,
        },
    )


def differences_of(collection: Collection, encoder: EncoderDescription) -> list[str]:
    """Return what differs, ``WHAT: THERE in the collection, HERE here`` each; empty where words do not tell.

    Where the collection's description is not an encoder's (somebody wrote one), both are given whole.
    """
    there, here = _parts_of(collection.encoder), _parts_of(str(encoder))
    if there is None or here is None:
        own = collection.encoder or "described by nobody"
        return [f"the collection's is {own}; this one is {encoder}"]
    found = [
        f"{OPTIONS[part]}: {there[part]} in the collection, {here[part]} here"
        for part in OPTIONS
        if _differ(there[part], here[part])
    ]
    if collection.code_bits and collection.code_bits != encoder.code_bits:
        found.append(f"bits of a code: {collection.code_bits} there, {encoder.code_bits} here")
    return found


def _parts_of(words: str) -> dict[str, str] | None:
    """Return a description's parts, None where it is none."""
    match = _WORDS.fullmatch(words)
    more = _MORE.fullmatch((match["more"] or "") if match else "")
    if match is None or more is None:
        return None
    parts = {part: match[part] for part in ("profile", "key", "texture")}
    return parts | {part: more[part] or usual for part, usual in USUAL.items()}


def _differ(there: str, here: str) -> bool:
    """Whether two parts differ; the same weights under another file name are the same."""
    digests = _DIGEST.search(there), _DIGEST.search(here)
    if digests[0] and digests[1]:
        names = there.partition(" (")[0], here.partition(" (")[0]
        return names[0] != names[1] or digests[0][1] != digests[1][1]
    return there != here
