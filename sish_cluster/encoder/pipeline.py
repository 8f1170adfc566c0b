"""A slide's way through the encoder: open, cut the mosaic, read each patch once, key and code it.

`Encoder` holds both networks and does all of it in the calling thread. Whatever is wrong with one
slide becomes an `EncodeFailure` and stops no other slide.

Source
------
SISH, Methods: mosaic generation, index generation, texture features.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np

from sish_cluster.core.code import Codes, code_bytes_of
from sish_cluster.core.errors import BadRequest, Internal, SishError
from sish_cluster.core.key import Keys
from sish_cluster.core.posting import EncodedSlide, PatchColumns
from sish_cluster.core.seams import Pixels
from sish_cluster.core.slide import Slide
from sish_cluster.encoder.catalogue import CatalogueEntry
from sish_cluster.encoder.cutting import Mosaic, cut_mosaic
from sish_cluster.encoder.fingerprint import fingerprint_of
from sish_cluster.encoder.keying import KeyNetwork
from sish_cluster.encoder.settings import EncoderSettings
from sish_cluster.encoder.slide import SlideReader, open_slide
from sish_cluster.encoder.texture import IMAGENET_WEIGHTS, TextureNetwork

READING, MOSAIC, ENCODING = "reading", "mosaic", "encoding"
"""Stages of a slide, in their order; ``done`` and ``total`` count patches, total 0 while unknown."""

Progress = Callable[[str, int, int], None]
"""Called with (stage, done, total) after each step; may raise to stop."""


@dataclasses.dataclass(frozen=True, slots=True)
class EncodeFailure:
    """A slide that could not be encoded, and why."""

    slide_id: str
    path: Path
    error: SishError


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
    """

    profile: str
    fingerprint: str
    code_bits: int
    key_weights: str
    texture_weights: str

    def __str__(self) -> str:
        return f"{self.profile}: keys {self.key_weights}, codes {self.texture_weights}"


class Encoder:
    """Both networks of a profile, ready to encode.

    Parameters
    ----------
    settings
        Everything that decides the result.

    Raises
    ------
    BadWeights
        If a weights file does not fit its network.
    """

    def __init__(self, settings: EncoderSettings) -> None:
        self.settings = settings
        profile = settings.profile
        self._keying = KeyNetwork(
            profile.key_network,
            settings.key_weights,
            codeword_order=settings.codeword_order,
            device=settings.device,
        )
        self._texture = TextureNetwork(
            settings.texture_weights or IMAGENET_WEIGHTS, device=settings.device
        )
        self.description = EncoderDescription(
            profile.name,
            fingerprint_of(profile, self._keying, self._texture),
            self._texture.dimensions,
            self._keying.description,
            self._texture.description,
        )

    @property
    def fingerprint(self) -> str:
        """Digest of everything that changes a key or a code."""
        return self.description.fingerprint

    @property
    def code_bits(self) -> int:
        """Bits of a texture code."""
        return self.description.code_bits

    def encode_patches(self, pixels: Pixels) -> tuple[Keys, Codes]:
        """Return the keys (n,) and codes (n, code_bytes) of patches uint8 (n, side, side, 3).

        Raises
        ------
        BadRequest
            If ``side`` is not the profile's.
        """
        side_px = self.settings.profile.side_px
        if pixels.ndim != 4 or pixels.shape[1:] != (side_px, side_px, 3):
            raise BadRequest(
                f"profile {self.settings.profile.name!r} encodes patches (n, {side_px}, {side_px}, 3);"
                f" found {pixels.shape}: resize them to its field of view",
                field="pixels",
            )
        return self._keying.keys_of(pixels), self._texture.codes_of(pixels)

    def encode_slide(
        self,
        path: Path,
        slide: Slide,
        *,
        mpp: float | None = None,
        progress: Progress | None = None,
    ) -> EncodedSlide:
        """Return the encoded mosaic of a slide file.

        Parameters
        ----------
        path
            The slide's file.
        slide
            Identity and labels; mpp, sizes and digest are filled in.
        mpp
            Used where the file states none.
        progress
            Told about every stage and patch; an error it raises stops the work.

        Raises
        ------
        BadSlide
            If the slide cannot be read, has no tissue or no mpp.
        """
        tell = progress or _ignored
        tell(READING, 0, 0)
        with open_slide(path, mpp=mpp) as reader:
            mosaic = cut_mosaic(
                reader, self.settings.mosaic, progress=functools.partial(tell, MOSAIC)
            )
            patches = self._encoded(reader, mosaic, tell)
            known = _known(slide, reader, mosaic)
        return EncodedSlide.whole(known, patches, self.fingerprint)

    def encode_entry(
        self, entry: CatalogueEntry, *, progress: Progress | None = None
    ) -> EncodedSlide | EncodeFailure:
        """Return the encoded slide of an entry, or its failure; never raises for a bad slide."""
        try:
            return self.encode_slide(entry.path, entry.slide, mpp=entry.mpp, progress=progress)
        except SishError as error:
            return EncodeFailure(entry.slide.slide_id, entry.path, error)
        except Exception as error:
            return EncodeFailure(
                entry.slide.slide_id, entry.path, unexpected(str(entry.path), error)
            )

    def _encoded(self, reader: SlideReader, mosaic: Mosaic, tell: Progress) -> PatchColumns:
        n = len(mosaic)
        keys = np.zeros(n, dtype=np.uint64)
        codes = np.zeros((n, code_bytes_of(self.code_bits)), dtype=np.uint8)
        for number in range(n):
            pixels = reader.region(mosaic.box(number), side_px=self.settings.profile.side_px)
            key, code = self.encode_patches(pixels[None])
            keys[number], codes[number] = key[0], code[0]
            tell(ENCODING, number + 1, n)
        return PatchColumns.of(keys, codes, mosaic.corners)


def unexpected(what: str, error: BaseException) -> Internal:
    """Return the `Internal` error of something nobody foresaw while ``what`` was encoded."""
    return Internal(
        f"{what}: encoding stopped with {type(error).__name__}: {error}. Try it alone,"
        " and report it with what `sish encoder describe` shows"
    )


def description_of(settings: EncoderSettings) -> EncoderDescription:
    """Return what an encoder of these settings is; reads the weights, then lets go of them."""
    return _described(settings)


@functools.lru_cache(maxsize=8)
def _described(settings: EncoderSettings) -> EncoderDescription:
    # The fingerprint does not depend on the device, so a machine without a GPU can work it out.
    return Encoder(dataclasses.replace(settings, device="cpu")).description


def _known(slide: Slide, reader: SlideReader, mosaic: Mosaic) -> Slide:
    return dataclasses.replace(
        slide,
        mpp=reader.mpp,
        width_px=reader.size.width,
        height_px=reader.size.height,
        patch_side_px=mosaic.side_px,
        digest=reader.digest,
    )


def _ignored(stage: str, done: int, total: int) -> None:
    """Take no notice of progress."""
