"""Encoder profiles: how many pixels the networks see of a patch's one field of view.

A patch always covers 512 um (1024 px at 0.5 mpp, as published). The ``published`` profile shows both
networks all 1024 pixels a side; ``compact`` shows 512 and uses a smaller key network, which is about
ten times cheaper and is what a machine without a GPU runs. A profile is part of the fingerprint.

Source
------
SISH, Methods (field of view, 1024 px); the compact profile is ours.
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
        ``compact`` or ``published``.
    side_px
        Pixels a side given to both networks.
    key_network
        Name of the VQ-VAE size.
    texture_network
        Name of the texture network.
    """

    name: str
    side_px: int
    key_network: str
    texture_network: str = "densenet121"

    @property
    def mpp(self) -> float:
        """Micrometres per pixel as the networks see it."""
        return PATCH_FIELD_UM / self.side_px


PUBLISHED = Profile("published", 1024, "vqvae-large")
"""1024 px at 0.5 mpp; about 4 s a patch on one CPU core."""

COMPACT = Profile("compact", 512, "vqvae-compact")
"""512 px at 1.0 mpp; about 0.45 s a patch on one CPU core."""

PROFILES = {profile.name: profile for profile in (PUBLISHED, COMPACT)}
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


def default_profile(*, has_gpu: bool = False) -> Profile:
    """Return the profile a machine runs unless told otherwise: compact without a GPU."""
    return PUBLISHED if has_gpu else COMPACT
