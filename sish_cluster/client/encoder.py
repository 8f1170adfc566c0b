"""A client of the encoder service: what an encoder is, and slides it encodes elsewhere."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Self

from sish_cluster.client.router_calls import checked_address, errors_of
from sish_cluster.core.errors import Internal
from sish_cluster.core.posting import EncodedSlide
from sish_cluster.core.slide import Slide
from sish_cluster.wire.channel import open_channel
from sish_cluster.wire.sish.v1 import encoder_pb2 as pb
from sish_cluster.wire.sish.v1.encoder_pb2_grpc import EncoderServiceStub
from sish_cluster.wire.values import SlideAssembler, pack_slide

DESCRIBE_TIMEOUT_S = 30.0
"""Seconds to wait for a description: an encoder may still be loading its weights."""

ENCODE_TIMEOUT_S = 3600.0
"""Seconds for one slide: a large resection has hundreds of patches of a few seconds on a CPU."""

Progress = Callable[[str, int, int], None]
"""Called with (stage, patches done, patches in all or 0)."""


@dataclasses.dataclass(frozen=True, slots=True)
class EncoderDescription:
    """What an encoder is: profile, fingerprint, and where its weights come from.

    ``dimensions`` is the length of its embeddings (0 where it gives none); ``has_keys`` is False where keys
    only spread postings over shards; ``mosaic`` says how patches are chosen and read, where not as usual.
    """

    profile: str
    fingerprint: str
    code_bits: int
    key_weights: str
    texture_weights: str
    actors: int = 0
    queued: int = 0
    dimensions: int = 0
    has_keys: bool = True
    mosaic: str = ""

    def __str__(self) -> str:
        more = f"; {self.mosaic}" if self.mosaic else ""
        return f"{self.profile}; key: {self.key_weights}; texture: {self.texture_weights}{more}"


class EncoderClient:
    """An encoder service at ``address`` (``host:port``), for asyncio programs."""

    def __init__(self, address: str) -> None:
        self._address = checked_address(address, what="encoder")
        self._channel = open_channel(address, retries_reads=False)
        self._stub = EncoderServiceStub(self._channel)  # type: ignore[no-untyped-call]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._channel.close(None)

    async def describe(self, *, timeout_s: float = DESCRIBE_TIMEOUT_S) -> EncoderDescription:
        """Return what the encoder is."""
        request = pb.DescribeEncoderRequest()
        with errors_of(self._address, what="encoder"):
            found = await self._stub.DescribeEncoder(request, timeout=timeout_s)
        return EncoderDescription(
            found.profile,
            found.fingerprint,
            found.code_bits,
            found.key_weights,
            found.texture_weights,
            found.actors,
            found.queued,
            found.dimensions,
            not found.lacks_keys,
            found.mosaic,
        )

    async def encode_slide(
        self,
        path: str,
        slide: Slide,
        *,
        region: str = "",
        wants_embeddings: bool = False,
        on_progress: Progress = lambda stage, done, total: None,
        timeout_s: float = ENCODE_TIMEOUT_S,
    ) -> EncodedSlide:
        """Return the slide the server reads at ``path``, encoded.

        Parameters
        ----------
        path
            Relative to the server's slide folder.
        slide
            Identity and labels; ``mpp`` is used where the file has none.
        region
            GeoJSON of the part whose patches are wanted, level-0 pixels; ``""`` for the mosaic.
        wants_embeddings
            Whether embeddings are wanted beside codes.

        Raises
        ------
        BadSlide
            If the server cannot read it, or it has no tissue.
        BadRequest
            If the region cannot be understood, or lies outside the slide.
        """
        request = pb.EncodeSlideRequest(
            path=path, slide=pack_slide(slide), region=region, wants_embeddings=wants_embeddings
        )
        assembler = SlideAssembler()
        with errors_of(self._address, what="encoder"):
            async for response in self._stub.EncodeSlide(request, timeout=timeout_s):
                if response.HasField("progress"):
                    progress = response.progress
                    on_progress(progress.stage, progress.done, progress.total)
                elif (encoded := assembler.add(response.slide)) is not None:
                    return encoded
        raise Internal(
            f"the encoder at {self._address} ended without the slide {slide.slide_id!r}: see its log"
        )
