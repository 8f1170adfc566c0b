"""A slide's way through the encoder: open, cut the mosaic, read each patch once, key, embed and code it.

`Encoder` holds both networks and does all of it in the calling thread. It always makes key, code and
embedding; which of them a collection keeps is decided later (`sish_cluster.core`). Whatever is wrong
with one slide becomes an `EncodeFailure` and stops no other slide.

Source
------
SISH, Methods: mosaic generation, index generation, texture features.
"""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import numpy as np

from sish_cluster.core.code import codes_of
from sish_cluster.core.embedding import checked_embeddings
from sish_cluster.core.errors import BadRequest, EncoderUnavailable
from sish_cluster.core.posting import EncodedSlide
from sish_cluster.core.seams import Pixels
from sish_cluster.core.slide import Slide
from sish_cluster.encoder.catalogue import CatalogueEntry
from sish_cluster.encoder.embedder_file import FileEmbedder
from sish_cluster.encoder.embedders import LoadedEmbedder, NetworkEmbedder
from sish_cluster.encoder.fingerprint import fingerprint_of
from sish_cluster.encoder.keying import KeyNetwork
from sish_cluster.encoder.networks.engine import EngineSettings, Plan, plan_of
from sish_cluster.encoder.networks.inputs import device_of
from sish_cluster.encoder.outcome import EncoderDescription
from sish_cluster.encoder.reading import (
    ENCODING,
    Cut,
    EncodedPatches,
    Progress,
    assembled,
    read_slide,
)
from sish_cluster.encoder.region import Region
from sish_cluster.encoder.selectors import selector_of
from sish_cluster.encoder.settings import EmbedderFileSettings, EncoderSettings


def embedder_of(settings: EncoderSettings, *, at_once: int = 1) -> LoadedEmbedder:
    """Return the embedder that settings name, its weights read, for ``at_once`` threads at the same time.

    Raises
    ------
    BadRequest
        If no embedder has that name, or a file that runs code is not trusted.
    BadWeights
        If its file does not fit.
    """
    if isinstance(settings.embedder, EmbedderFileSettings):
        return FileEmbedder(
            settings.embedder, side_px=settings.profile.side_px, device=settings.device
        )
    name = settings.embedder or settings.profile.embedder
    running = _running(settings, at_once)
    return NetworkEmbedder(name, settings.weights, device=settings.device, running=running)


def key_network_of(settings: EncoderSettings, *, at_once: int = 1) -> KeyNetwork | None:
    """Return the profile's key network, or None where it has none; see `embedder_of`."""
    if not settings.profile.key_network:
        return None
    return KeyNetwork(
        settings.profile.key_network,
        settings.key_weights,
        codeword_order=settings.codeword_order,
        device=settings.device,
        running=_running(settings, at_once),
    )


def _running(settings: EncoderSettings, at_once: int) -> EngineSettings:
    return EngineSettings(settings.engine, settings.precision, at_once)


class Encoder:
    """Both networks of a profile, ready to encode.

    Parameters
    ----------
    settings
        Everything that decides the result.
    at_once
        Threads that may encode at the same time; more wait for each other.

    Raises
    ------
    BadWeights
        If a weights file does not fit its network.
    """

    def __init__(self, settings: EncoderSettings, *, at_once: int = 1) -> None:
        self.settings = settings
        self.keying = key_network_of(settings, at_once=at_once)
        self.embedder = embedder_of(settings, at_once=at_once)
        selector_of(settings.cutting, self.embedder, device=settings.device)  # or its error, now
        self.description = EncoderDescription(
            settings.profile.name,
            fingerprint_of(settings.profile, self.keying, self.embedder, extras=settings.extras),
            self.embedder.dimensions,
            self.keying.description if self.keying else "none",
            self.embedder.description,
            self.embedder.dimensions,
            self.keying is not None,
            _told(settings),
            _runs(settings),
        )

    @property
    def fingerprint(self) -> str:
        """Digest of everything that changes a key or a code."""
        return self.description.fingerprint

    @property
    def code_bits(self) -> int:
        """Bits of a texture code."""
        return self.description.code_bits

    def encode_patches(self, pixels: Pixels) -> EncodedPatches:
        """Return keys, codes and embeddings of patches uint8 (n, side, side, 3).

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
        embeddings = self.embedder.embeddings_of(pixels)
        keys = (
            np.zeros(len(pixels), np.uint64) if self.keying is None else self.keying.keys_of(pixels)
        )
        return EncodedPatches(
            keys, codes_of(embeddings), checked_embeddings(embeddings, n=len(pixels))
        )

    def encode_slide(
        self,
        path: Path,
        slide: Slide,
        *,
        mpp: float | None = None,
        region: Region | None = None,
        digest: str = "",
        progress: Progress | None = None,
    ) -> EncodedSlide:
        """Return the encoded mosaic of a slide file, or the encoded patches of a region of it.

        Parameters
        ----------
        path
            The slide's file.
        slide
            Identity and labels; mpp, sizes and digest are filled in.
        mpp
            Used where the file states none.
        region
            Whose patches are wanted; None for the mosaic.
        digest
            Digest of the file's content where it is known; else it is read for that too.
        progress
            Told about every stage and patch; an error it raises stops the work.

        Raises
        ------
        BadSlide
            If the slide cannot be read, has no tissue or no mpp.
        """
        entry = CatalogueEntry(path, slide, mpp, region, digest)
        tell = progress or _ignored
        items = read_slide(entry, self.settings, self.embedder, tell=tell)
        cut, parts = next(items), []
        assert isinstance(cut, Cut)
        for pixels in items:
            assert not isinstance(pixels, Cut)
            parts.append(self.encode_patches(pixels))
        tell(ENCODING, len(parts), len(parts))
        has_keys = self.keying is not None
        return assembled(cut, parts, fingerprint=self.fingerprint, has_keys=has_keys)


def description_of(settings: EncoderSettings) -> EncoderDescription:
    """Return what an encoder of these settings is; reads the weights, then lets go of them."""
    return _described(settings)


@functools.lru_cache(maxsize=8)
def _described(settings: EncoderSettings) -> EncoderDescription:
    # The fingerprint depends on neither device nor engine, so a machine without a GPU can work it out.
    anywhere = dataclasses.replace(settings, device="cpu", engine="torch")
    return dataclasses.replace(Encoder(anywhere).description, runs=_runs(settings))


def _runs(settings: EncoderSettings) -> str:
    """Return engine, device and numbers of each network on this machine."""
    try:
        device = device_of(settings.device)
    except EncoderUnavailable:
        return f"not on this machine: it has no {settings.device}"
    running = _running(settings, 1)
    is_own = isinstance(settings.embedder, EmbedderFileSettings)
    codes = Plan("torch", "float32", device) if is_own else plan_of(running, device)
    if not settings.profile.key_network:
        return f"codes {codes}"
    return f"keys {plan_of(running, device, keeps_float32=True)}; codes {codes}"


def _told(settings: EncoderSettings) -> str:
    """Return what differs from the default mosaic and reading, in words."""
    mosaic = settings.cutting
    parts = [f"stain {settings.stain}"] if settings.stain else []
    if mosaic.selector != "sish":
        parts.append(f"mosaic {mosaic.selector}")
    if mosaic.patches_per_slide:
        parts.append(f"at most {mosaic.patches_per_slide} patches a slide")
    return ", ".join(parts)


def _ignored(stage: str, done: int, total: int) -> None:
    """Take no notice of progress."""
