"""The encoder fingerprint: one digest of everything that changes a key or a code.

Keys of two encoders are numbers on different axes; comparing them finds nothing and says nothing. A
collection therefore accepts only the fingerprint it was made with. How patches were *chosen* (the
mosaic) is not part of it: any patch of a slide may be searched for.
"""

from __future__ import annotations

from sish_cluster.core.geometry import PATCH_FIELD_UM
from sish_cluster.core.slide import canonical_bytes, digest_of
from sish_cluster.encoder.keying import KeyNetwork
from sish_cluster.encoder.networks.inputs import IMAGENET, SYMMETRIC
from sish_cluster.encoder.profile import Profile
from sish_cluster.encoder.texture import TextureNetwork

READING = "best level, area filter, white outside; 1"
"""How a patch's pixels are made; the number goes up when that changes."""


def parts_of(profile: Profile, keying: KeyNetwork, texture: TextureNetwork) -> dict[str, object]:
    """Return what a fingerprint is made of, as plain values."""
    return {
        "field_um": PATCH_FIELD_UM,
        "side_px": profile.side_px,
        "mpp": profile.mpp,
        "reading": READING,
        "key": {
            "network": keying.size.name,
            "weights": keying.weights_digest,
            "codeword_ranks": keying.ranks_digest,
            "normalisation": SYMMETRIC.name,
        },
        "texture": {
            "network": profile.texture_network,
            "weights": texture.weights_digest,
            "normalisation": IMAGENET.name,
            "pooling": "mean before the last relu",
            "bits": texture.dimensions,
        },
    }


def fingerprint_of(profile: Profile, keying: KeyNetwork, texture: TextureNetwork) -> str:
    """Return the encoder fingerprint, 32 hex digits."""
    return digest_of(canonical_bytes(parts_of(profile, keying, texture)))
