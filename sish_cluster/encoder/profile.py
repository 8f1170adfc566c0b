"""Encoder profiles: what a patch covers, how many pixels the networks see of it, and which networks.

SISH's patches cover 512 um (1024 px at 0.5 mpp). The ``published`` profile shows both networks all 1024
pixels a side; ``compact`` shows 512 and uses a smaller key network, which is about ten times cheaper.
``retccl`` is another method: 256 um at 1.0 mpp, one network, no keys. A profile is part of the fingerprint,
so the default is the same on every machine: were it to follow the GPU, a slide encoded on one machine could
not be searched from the next.

Source
------
SISH, Methods (field of view, 1024 px); RetCCL, "Implementation details" (256 px at 1.0 mpp); the compact
profile is ours.
"""

from __future__ import annotations

import dataclasses

from sish_cluster.core.errors import BadRequest
from sish_cluster.core.geometry import PATCH_FIELD_UM


@dataclasses.dataclass(frozen=True, slots=True)
class Profile:
    """Which networks see a patch, and at how many pixels.

    Parameters
    ----------
    name
        ``compact``, ``published``, ``retccl``, or ``own`` for an embedder of one's own.
    side_px
        Pixels a side given to both networks.
    key_network
        Name of the VQ-VAE size; ``""`` for no keys: postings are then only spread over shards.
    embedder
        Name of the network that embeds, unless another is asked for.
    field_um
        Side of a patch's field of view, um.
    selector
        How a mosaic is chosen, unless said otherwise.
    """

    name: str
    side_px: int
    key_network: str
    embedder: str = "densenet121"
    field_um: float = PATCH_FIELD_UM
    selector: str = "sish"

    @property
    def mpp(self) -> float:
        """Micrometres per pixel as the networks see it."""
        return self.field_um / self.side_px


PUBLISHED = Profile("published", 1024, "vqvae-large")
"""1024 px at 0.5 mpp; about 4 s a patch on one CPU core."""

COMPACT = Profile("compact", 512, "vqvae-compact")
"""512 px at 1.0 mpp; about 0.45 s a patch on one CPU core."""

RETCCL = Profile("retccl", 256, "", embedder="retccl", field_um=256.0, selector="retccl")
"""256 px at 1.0 mpp through the CCL ResNet-50, mosaics by its features, no keys."""

PROFILES = {profile.name: profile for profile in (PUBLISHED, COMPACT, RETCCL)}
"""Every profile by name."""


def profile_of(name: str) -> Profile:
    """Return the profile called ``name``.

    Raises
    ------
    BadRequest
        If there is none.

    Examples
    --------
    >>> profile_of("compact").mpp
    1.0
    """
    if name not in PROFILES:
        raise BadRequest(
            f"no encoder profile is called {name!r}; there are {', '.join(sorted(PROFILES))}",
            field="profile",
        )
    return PROFILES[name]


def own_profile(*, side_px: int, mpp: float) -> Profile:
    """Return the profile of an embedder of one's own: its input's side, px, and um per px; no keys.

    Raises
    ------
    BadRequest
        If a number is out of bounds.
    """
    if not 16 <= side_px <= 4096 or not 0.05 <= mpp <= 20:
        raise BadRequest(
            f"an embedder sees 16..4096 px a side at 0.05..20 um per px; got {side_px} and {mpp}",
            field="embedder",
        )
    return Profile("own", side_px, "", embedder="", field_um=side_px * mpp)
