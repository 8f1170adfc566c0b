"""The encoder fingerprint: one digest of everything that changes a key, a code or an embedding.

Keys of two encoders are numbers on different axes; comparing them finds nothing and says nothing. A
collection therefore accepts only the fingerprint it was made with. Which selector chose the patches, and how
many, is part of it where it is not the published one, so that one collection holds one kind of mosaic;
the selector's settings and seed are not: any patch of a slide may be searched for. Which of code and
embedding a collection keeps is not part of it either: both come from the same numbers.
"""

from __future__ import annotations

from collections.abc import Mapping

from sish_cluster.core.slide import canonical_bytes, digest_of
from sish_cluster.encoder.embedders import LoadedEmbedder
from sish_cluster.encoder.keying import KeyNetwork
from sish_cluster.encoder.networks.inputs import SYMMETRIC
from sish_cluster.encoder.profile import Profile

READING = "best level, area filter, white outside; 1"
"""How a patch's pixels are made; the number goes up when that changes."""


def parts_of(
    profile: Profile,
    keying: KeyNetwork | None,
    embedder: LoadedEmbedder,
    *,
    extras: Mapping[str, object] | None = None,
) -> dict[str, object]:
    """Return what a fingerprint is made of, as plain values.

    Parameters
    ----------
    profile
        Field of view and pixels.
    keying
        The key network; None where postings have no keys of their own.
    embedder
        The network of codes and embeddings.
    extras
        What differs from the defaults: stain normalisation, the mosaic's selector. Only what is there
        counts, so that a new option changes no fingerprint of those who do not use it.
    """
    key = None
    if keying is not None:
        key = {
            "network": keying.size.name,
            "weights": keying.weights_digest,
            "codeword_ranks": keying.ranks_digest,
            "normalisation": SYMMETRIC.name,
        }
    return {
        "field_um": profile.field_um,
        "side_px": profile.side_px,
        "mpp": profile.mpp,
        "reading": READING,
        "key": key,
        "texture": dict(embedder.parts),
        **(extras or {}),
    }


def fingerprint_of(
    profile: Profile,
    keying: KeyNetwork | None,
    embedder: LoadedEmbedder,
    *,
    extras: Mapping[str, object] | None = None,
) -> str:
    """Return the encoder fingerprint, 32 hex digits; see `parts_of`."""
    return digest_of(canonical_bytes(parts_of(profile, keying, embedder, extras=extras)))
