"""EncoderService over gRPC: slides of one folder, or patches callers cut, become keys and codes.

The event loop only moves messages; actors do the work, and the desk bounds who waits for them. A path
names a slide below the service's folder; nothing outside it can be read, through links neither.
"""

from __future__ import annotations

import asyncio
import functools
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

from sish_cluster.core.errors import BadRequest, BadSlide, NotPermitted
from sish_cluster.core.posting import EncodedSlide
from sish_cluster.core.seams import Pixels
from sish_cluster.encoder.catalogue import CatalogueEntry
from sish_cluster.encoder.desk import Desk, Loan
from sish_cluster.encoder.encoders import AHEAD
from sish_cluster.encoder.lane import Stage
from sish_cluster.encoder.networks.inputs import device_of
from sish_cluster.encoder.patch_image import pixels_of
from sish_cluster.encoder.pipeline import description_of
from sish_cluster.encoder.pool import Actor
from sish_cluster.encoder.region import parsed_region
from sish_cluster.encoder.settings import ActorSettings, EncoderSettings, ServiceSettings
from sish_cluster.encoder.stain import stain_of
from sish_cluster.wire.serving import Server, ServingSettings
from sish_cluster.wire.sish.v1 import encoder_pb2 as pb
from sish_cluster.wire.sish.v1 import encoder_pb2_grpc
from sish_cluster.wire.values import slide_parts, unpack_slide

Context = Any
"""A gRPC aio servicer context."""

Answer = TypeVar("Answer")


class EncoderServicer(encoder_pb2_grpc.EncoderServiceServicer):
    """The rpcs of encoder.proto.

    Parameters
    ----------
    desk
        Lends the actors to slides, one at a time each.
    patch_desk
        Lends them to patches, several at a time each: those that come together share a batch.
    settings
        What the actors encode with.
    allowed
        What the service allows.
    poll_s
        Seconds between two looks at a slide's progress.
    """

    def __init__(
        self,
        desk: Desk,
        patch_desk: Desk,
        settings: EncoderSettings,
        allowed: ServiceSettings,
        *,
        poll_s: float,
    ) -> None:
        self._desk = desk
        self._patch_desk = patch_desk
        self._settings = settings
        self._allowed = allowed
        self._poll_s = poll_s
        self._started_s = time.monotonic()

    async def EncodeSlide(
        self, request: pb.EncodeSlideRequest, context: Context
    ) -> AsyncIterator[pb.EncodeSlideResponse]:
        """Encode a slide of the service's folder; progress, then its parts."""
        entry = await asyncio.to_thread(self._entry_of, request)
        actor, ticket = await self._desk.taken(), uuid.uuid4().hex
        loan = self._begun(actor, lambda: actor.encode(entry, ticket))
        try:
            async for stage in self._stages(actor, ticket, loan):
                yield pb.EncodeSlideResponse(
                    progress=pb.EncodeProgress(stage=stage.name, done=stage.done, total=stage.total)
                )
        finally:
            loan.abandon(ticket)
        outcome = loan.answer()
        if not isinstance(outcome, EncodedSlide):
            raise outcome.error
        if not request.wants_embeddings:
            patches = outcome.patches.without_embeddings()
            outcome = EncodedSlide.whole(outcome.slide, patches, outcome.fingerprint)
        for part in slide_parts(outcome):
            yield pb.EncodeSlideResponse(slide=part)

    async def EncodePatches(
        self, requests: AsyncIterator[pb.EncodePatchesRequest], context: Context
    ) -> AsyncIterator[pb.EncodePatchesResponse]:
        """Encode patches, as many at once as fill the actors, answered in the requests' order."""
        asked: asyncio.Queue[asyncio.Task[pb.EncodePatchesResponse] | None]
        asked = asyncio.Queue(maxsize=self._patch_desk.n_actors)
        tasks: set[asyncio.Task[Any]] = set()

        async def read() -> None:
            async for request in requests:
                task = asyncio.create_task(self._patch(request.image))
                tasks.add(task)
                await asked.put(task)
            await asked.put(None)

        reader = asyncio.create_task(read())
        try:
            while (task := await asked.get()) is not None:
                yield await task
                tasks.discard(task)
        finally:
            for task in (reader, *tasks):
                task.cancel()
            await asyncio.gather(reader, *tasks, return_exceptions=True)

    async def DescribeEncoder(
        self, request: pb.DescribeEncoderRequest, context: Context
    ) -> pb.DescribeEncoderResponse:
        """Describe the encoder; says so when a network is untrained."""
        found = await asyncio.to_thread(description_of, self._settings)
        return pb.DescribeEncoderResponse(
            profile=found.profile,
            fingerprint=found.fingerprint,
            code_bits=found.code_bits,
            key_weights=found.key_weights,
            texture_weights=found.texture_weights,
            actors=self._desk.n_actors,
            queued=self._desk.n_waiting + self._patch_desk.n_waiting,
            uptime_s=time.monotonic() - self._started_s,
            version=metadata.version("sish-cluster"),
            dimensions=found.dimensions,
            lacks_keys=not found.has_keys,
            mosaic=found.mosaic,
        )

    def _entry_of(self, request: pb.EncodeSlideRequest) -> CatalogueEntry:
        path = permitted_path(self._allowed.slides_dir, request.path)
        if not request.slide.slide_id:
            raise BadRequest("slide.slide_id is empty: name the slide", field="slide.slide_id")
        slide = unpack_slide(request.slide)
        region = parsed_region(request.region, source="region") if request.region else None
        return CatalogueEntry(path, slide, slide.mpp or None, region)

    def _in_stain(self, patches: Pixels) -> Pixels:
        """Return patches that belong to no slide known here, normalised on their own."""
        return stain_of(self._settings.stain, patches).applied(patches)

    async def _patch(self, image: bytes) -> pb.EncodePatchesResponse:
        side_px = self._settings.profile.side_px
        pixels = await asyncio.to_thread(pixels_of, image, side_px=side_px, settings=self._allowed)
        patches = await asyncio.to_thread(self._in_stain, pixels[None])
        actor = await self._patch_desk.taken()
        try:
            # Cancelled with the call: a patch that nobody wants is left out of its batch.
            patch = await asyncio.wrap_future(actor.encode_patches(patches))
        finally:
            self._patch_desk.given_back(actor)
        return pb.EncodePatchesResponse(
            key=int(patch.keys[0]),
            code=patch.codes[0].tobytes(),
            embedding=patch.embeddings[0].astype("<f2").tobytes(),
        )

    def _begun(self, actor: Actor, begin: Callable[[], Future[Answer]]) -> Loan[Answer]:
        """Begin a job; the actor goes back when it cannot even be begun."""
        try:
            return self._desk.lent(actor, begin())
        except BaseException:
            self._desk.given_back(actor)
            raise

    async def _stages(self, actor: Actor, ticket: str, loan: Loan[Any]) -> AsyncIterator[Stage]:
        """Yield every new stage until the job ends."""
        last = Stage(ticket)
        yield last
        while not await loan.awaited(self._poll_s):
            stage = await asyncio.to_thread(actor.stage)
            if stage is not None and stage.ticket == ticket and stage != last:
                last = stage
                yield stage


def permitted_path(slides_dir: Path | None, path: str) -> Path:
    """Return the file that ``path`` names below ``slides_dir``.

    Raises
    ------
    NotPermitted
        If there is no such folder, or the path leaves it, directly or through a link.
    BadSlide
        If nothing is there.
    """
    if slides_dir is None:
        raise NotPermitted(
            "this encoder service reads no files: start it with --slides-dir, or send patches",
            field="path",
        )
    top = slides_dir.resolve()
    named = Path(path)
    if not path or "\0" in path or named.is_absolute() or ".." in named.parts:
        raise NotPermitted(
            f"path {path!r} must be relative to the service's slide folder, without '..'",
            field="path",
        )
    found = (top / named).resolve()
    if not found.is_relative_to(top):
        raise NotPermitted(f"path {path!r} leads out of the service's slide folder", field="path")
    if not found.exists():
        raise BadSlide(f"path {path!r}: no such file in the service's slide folder", field="path")
    return found


def encoder_server(
    actors: Sequence[Actor],
    settings: EncoderSettings,
    allowed: ServiceSettings,
    serving: ServingSettings,
    *,
    actor_settings: ActorSettings = ActorSettings(),  # noqa: B008
) -> Server:
    """Return a server over started actors, not started itself; call it inside the event loop."""
    has_gpu = device_of(settings.device).type != "cpu"
    together = AHEAD * actor_settings.batch_of(has_gpu=has_gpu)
    desk, patch_desk = (
        Desk(
            [*actors] * each,
            max_waiting=allowed.max_waiting * each,
            retry_after_s=allowed.retry_after_s,
            stall_timeout_s=actor_settings.stall_timeout_s,
        )
        for each in (1, together)
    )
    servicer = EncoderServicer(desk, patch_desk, settings, allowed, poll_s=actor_settings.poll_s)
    service = pb.DESCRIPTOR.services_by_name["EncoderService"].full_name
    add = functools.partial(encoder_pb2_grpc.add_EncoderServiceServicer_to_server, servicer)
    return Server(serving, [service], add)
