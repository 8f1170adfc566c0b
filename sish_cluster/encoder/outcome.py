"""What becomes of a slide, and what an encoder is: the words of it that need no network.

A reader of slides and the driver of a cluster speak of outcomes all day and encode nothing themselves:
neither should hold torch in memory for that.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from sish_cluster.core.errors import Internal, SishError
from sish_cluster.core.posting import EncodedSlide


@dataclasses.dataclass(frozen=True, slots=True)
class EncodeFailure:
    """A slide that could not be encoded, and why."""

    slide_id: str
    path: Path
    error: SishError


Outcome = EncodedSlide | EncodeFailure
"""What becomes of an entry."""


@dataclasses.dataclass(frozen=True, slots=True)
class EncoderDescription:
    """What an encoder is, for people and for collections.

    Parameters
    ----------
    profile
        Name of the profile.
    fingerprint
        Encoder fingerprint.
    code_bits
        Bits of a texture code.
    key_weights, texture_weights
        Where each network's weights come from; says so when they are untrained.
    dimensions
        Numbers of an embedding.
    has_keys
        Whether a key network makes the keys; else they only spread postings over shards.
    mosaic
        Which selector chooses patches, where it is not the published one; stain normalisation too.
    runs
        Engine, device and numbers of both networks, on the machine that was asked; no part of the
        fingerprint.
    """

    profile: str
    fingerprint: str
    code_bits: int
    key_weights: str
    texture_weights: str
    dimensions: int = 0
    has_keys: bool = True
    mosaic: str = ""
    runs: str = ""

    def __str__(self) -> str:
        more = f", {self.mosaic}" if self.mosaic else ""
        return f"{self.profile}: keys {self.key_weights}, codes {self.texture_weights}{more}"


def unexpected(what: str, error: BaseException) -> Internal:
    """Return the `Internal` error of something nobody foresaw while ``what`` was encoded."""
    return Internal(
        f"{what}: encoding stopped with {type(error).__name__}: {error}. Try it alone,"
        " and report it with what `sish encoder describe` shows"
    )
