"""Encoded slides without an encoder: clustered keys, codes that resemble each other, drawn by a seed."""

from __future__ import annotations

import dataclasses

import numpy as np

from sish_cluster.core.collection import Collection
from sish_cluster.core.key import COARSE_UNIT
from sish_cluster.core.posting import EncodedSlide, PatchColumns
from sish_cluster.core.slide import Slide

SYNTHETIC_FINGERPRINT = "synthetic"
"""Fingerprint of drawn postings: no encoder has it."""

KEYS_BELOW = 8 * 10**14
"""Drawn keys stay below this: real keys end at 8.13e14."""


@dataclasses.dataclass(frozen=True)
class SyntheticSlides:
    """Draws encoded slides without an encoder: clustered keys, codes that resemble each other.

    Parameters
    ----------
    rng_seed
        The same seed draws the same slides.
    patches
        Patches of a slide.
    code_bits
        Bits of a code.
    sites
        Sites, taken in turn; the diagnosis is ``site`` and a parity.
    """

    rng_seed: int = 0
    patches: int = 12
    code_bits: int = 1024
    sites: tuple[str, ...] = ("lung", "liver", "brain")

    @property
    def collection(self) -> Collection:
        """A collection these slides belong to."""
        return Collection("synthetic", SYNTHETIC_FINGERPRINT, self.code_bits)

    def slide(self, number: int) -> EncodedSlide:
        """Return slide ``number``; two slides of one site share their neighbourhoods of keys."""
        rng = np.random.default_rng((self.rng_seed, number))
        site = self.sites[number % len(self.sites)]
        slide = Slide(
            f"slide-{number:04}",
            patient=f"patient-{number // 2}",
            site=site,
            diagnosis=f"{site}-{number // len(self.sites) % 2}",
            institution=f"hospital-{number % 2}",
            labels={"stain": "HE" if number % 5 else "PAS"},
        )
        return EncodedSlide.whole(slide, self._columns(site, rng), SYNTHETIC_FINGERPRINT)

    def slides(self, count: int, *, first: int = 0) -> list[EncodedSlide]:
        """Return ``count`` slides from number ``first``."""
        return [self.slide(number) for number in range(first, first + count)]

    def _columns(self, site: str, rng: np.random.Generator) -> PatchColumns:
        """Return patches near the site's centres: keys within 200 coarse units, few bits flipped."""
        centres = np.random.default_rng((self.rng_seed, 1 << 20, self.sites.index(site)))
        keys = centres.integers(0, KEYS_BELOW, self.patches)
        codes = centres.integers(0, 256, (self.patches, self.code_bits // 8), dtype=np.uint8)
        near = rng.integers(-200, 201, self.patches) * COARSE_UNIT
        flips = rng.random((self.patches, self.code_bits)) < 0.03
        return PatchColumns.of(
            np.clip(keys + near, 0, KEYS_BELOW - 1),
            codes ^ np.packbits(flips, axis=1),
            rng.integers(0, 10_000, (self.patches, 2)),
        )
