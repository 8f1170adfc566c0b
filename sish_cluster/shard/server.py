"""ShardService over gRPC: messages in, calls of `DirectShard`, messages out.

Health never waits for a search: reads run in the shard's pool and changes on its writer, the event
loop only moves messages. An ingest stream keeps many slides in flight, so that they share durable
commits; each is acknowledged, or refused with a status of its own, in the order they came.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
from collections.abc import AsyncIterator, Callable
from typing import Any

from sish_cluster.core.clock import Deadline
from sish_cluster.core.errors import SishError
from sish_cluster.core.seams import IngestOutcome
from sish_cluster.shard.direct import DirectShard
from sish_cluster.shard.packing import pack_status, page_parts, unpack_state
from sish_cluster.shard.shard import Shard
from sish_cluster.wire.answers import answer_parts
from sish_cluster.wire.columns import bytes_of
from sish_cluster.wire.interceptors import deadline_of
from sish_cluster.wire.serving import Server, ServingSettings
from sish_cluster.wire.sish.v1 import shard_pb2, shard_pb2_grpc
from sish_cluster.wire.status import status_bytes_of
from sish_cluster.wire.values import (
    SlideAssembler,
    pack_collection,
    pack_collection_state,
    pack_slide,
    slide_parts,
    unpack_collection,
    unpack_filter,
    unpack_query,
)

IN_FLIGHT_SLIDES = 256
"""Slides of one ingest stream between receipt and acknowledgement: four durable commits' worth."""

LISTED_SLIDES = 500
"""Slides of one message of a listing: about 100 kB."""

Context = Any
"""A gRPC aio servicer context."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Begun:
    """A slide of an ingest stream on its way to disk, or refused."""

    slide_id: str
    version: str
    outcome: asyncio.Future[IngestOutcome] | None = None
    refusal: SishError | None = None

    async def response(self) -> shard_pb2.IngestResponse:
        """Return the slide's fate once it is known."""
        was_stored, error = False, self.refusal
        if self.outcome is not None:
            try:
                was_stored = (await self.outcome).was_stored
            except SishError as found:
                error = found
        return shard_pb2.IngestResponse(
            slide_id=self.slide_id,
            version=self.version,
            was_stored=was_stored,
            error=status_bytes_of(error) if error is not None else b"",
        )

    def cancel(self) -> None:
        """Take the slide back unless its commit has begun."""
        if self.outcome is not None:
            self.outcome.cancel()


class ShardServicer(shard_pb2_grpc.ShardServiceServicer):
    """The rpcs of shard.proto.

    Parameters
    ----------
    direct
        The shard.
    """

    def __init__(self, direct: DirectShard) -> None:
        self._direct = direct
        self._shard = direct.shard

    async def Search(
        self, request: shard_pb2.SearchRequest, context: Context
    ) -> AsyncIterator[shard_pb2.SearchResponse]:
        """Answer one slide query in parts."""

        def work(cancellation: Any) -> list[shard_pb2.SearchResponse]:
            answer = self._shard.search(
                request.collection,
                unpack_query(request.query),
                wants_examined=request.wants_examined,
                cancellation=cancellation,
            )
            return list(answer_parts(answer))

        for part in await self._direct.read(work, deadline_of(context)):
            yield part

    async def EncodedSlide(
        self, request: shard_pb2.EncodedSlideRequest, context: Context
    ) -> AsyncIterator[shard_pb2.EncodedSlideResponse]:
        """Send one slide in parts; none when it is not here."""

        def work(_: object) -> list[shard_pb2.EncodedSlideResponse]:
            found = self._shard.encoded_slide(request.collection, request.slide_id)
            parts = slide_parts(found) if found is not None else ()
            return [shard_pb2.EncodedSlideResponse(part=part) for part in parts]

        for response in await self._direct.read(work, deadline_of(context)):
            yield response

    async def RangeLookup(
        self, request: shard_pb2.RangeLookupRequest, context: Context
    ) -> AsyncIterator[shard_pb2.RangeLookupResponse]:
        """Send one page in chunks of about 1 MiB."""

        def work(_: object) -> list[shard_pb2.RangeLookupResponse]:
            page = self._shard.range_lookup(
                request.collection,
                request.start,
                request.end,
                where=unpack_filter(request.where),
                page_size=request.page_size,
                page_token=request.page_token,
            )
            return page_parts(page)

        for part in await self._direct.read(work, deadline_of(context)):
            yield part

    async def Neighbours(
        self, request: shard_pb2.NeighboursRequest, context: Context
    ) -> shard_pb2.NeighboursResponse:
        """Return the occupied keys around a key."""
        found = await self._direct.read(
            lambda _: self._shard.neighbours(
                request.collection,
                request.key,
                predecessors=request.predecessors,
                successors=request.successors,
                where=unpack_filter(request.where),
            ),
            deadline_of(context),
        )
        return shard_pb2.NeighboursResponse(
            predecessors=bytes_of(found.predecessors, "<u8"),
            successors=bytes_of(found.successors, "<u8"),
            is_occupied=found.is_occupied,
        )

    async def Ingest(
        self, requests: AsyncIterator[shard_pb2.IngestRequest], context: Context
    ) -> AsyncIterator[shard_pb2.IngestResponse]:
        """Store the slides of a stream; acknowledge each in its turn."""
        begun: asyncio.Queue[_Begun | None] = asyncio.Queue(IN_FLIGHT_SLIDES)
        reading = asyncio.ensure_future(self._begin_all(requests, begun, deadline_of(context)))
        try:
            while (slide := await begun.get()) is not None:
                yield await slide.response()
            await reading
        finally:
            reading.cancel()
            while not begun.empty():
                if (left := begun.get_nowait()) is not None:
                    left.cancel()

    async def _begin_all(
        self,
        requests: AsyncIterator[shard_pb2.IngestRequest],
        begun: asyncio.Queue[_Begun | None],
        deadline: Deadline,
    ) -> None:
        """Begin every slide as it comes; the queue's length bounds how many are in flight."""
        assembler = SlideAssembler()
        try:
            async for request in requests:
                slide = await self._begin(request, assembler, deadline)
                if slide is not None:
                    await begun.put(slide)
        finally:
            await begun.put(None)

    async def _begin(
        self, request: shard_pb2.IngestRequest, assembler: SlideAssembler, deadline: Deadline
    ) -> _Begun | None:
        """Take one message; queue its slide when it is the last of it."""
        part = request.part
        try:
            encoded = assembler.add(part)
            if encoded is None:
                return None
            submit = functools.partial(
                self._shard.begin_ingest,
                request.collection,
                encoded,
                state=unpack_state(request.state),
                is_home=request.is_home,
                home=request.home,
            )
            queued = await self._direct.queued(lambda s: submit(timeout_s=s), deadline)
        except SishError as error:
            return _Begun(part.slide.slide_id, part.version, refusal=error)
        return _Begun(part.slide.slide_id, part.version, asyncio.wrap_future(queued))

    async def CommitSlide(
        self, request: shard_pb2.CommitSlideRequest, context: Context
    ) -> shard_pb2.CommitSlideResponse:
        """Make a pending slide eligible."""
        await self._direct.commit_slide(
            request.collection, request.slide_id, request.version, deadline=deadline_of(context)
        )
        return shard_pb2.CommitSlideResponse()

    async def Forget(
        self, request: shard_pb2.ForgetRequest, context: Context
    ) -> shard_pb2.ForgetResponse:
        """Remove a slide."""
        outcome = await self._direct.forget(
            request.collection,
            request.slide_id,
            pending_version=request.pending_version,
            deadline=deadline_of(context),
        )
        return shard_pb2.ForgetResponse(postings=outcome.postings, was_stored=outcome.was_stored)

    async def ListPending(
        self, request: shard_pb2.ListPendingRequest, context: Context
    ) -> shard_pb2.ListPendingResponse:
        """List pending slides."""
        found = await self._direct.list_pending(request.collection, deadline=deadline_of(context))
        pending = [
            shard_pb2.PendingSlide(
                slide_id=p.slide_id, version=p.version, home=p.home, age_s=p.age_s
            )
            for p in found
        ]
        return shard_pb2.ListPendingResponse(pending=pending)

    async def ListSlides(
        self, request: shard_pb2.ListSlidesRequest, context: Context
    ) -> AsyncIterator[shard_pb2.ListSlidesResponse]:
        """List the committed slides at home, some to a message."""
        batch = shard_pb2.ListSlidesResponse()
        async for stored in self._direct.list_slides(
            request.collection, slide_id=request.slide_id, deadline=deadline_of(context)
        ):
            batch.slides.append(pack_slide(stored.slide))
            batch.versions.append(stored.version)
            batch.postings.append(stored.postings)
            if len(batch.slides) == LISTED_SLIDES:
                yield batch
                batch = shard_pb2.ListSlidesResponse()
        if batch.slides:
            yield batch

    async def CreateCollection(
        self, request: shard_pb2.CreateCollectionRequest, context: Context
    ) -> shard_pb2.CreateCollectionResponse:
        """Create a collection."""
        was_created = await self._direct.create_collection(
            unpack_collection(request.collection), deadline=deadline_of(context)
        )
        return shard_pb2.CreateCollectionResponse(was_created=was_created)

    async def ListCollections(
        self, request: shard_pb2.ListCollectionsRequest, context: Context
    ) -> shard_pb2.ListCollectionsResponse:
        """List the collections."""
        found = await self._direct.list_collections(deadline=deadline_of(context))
        return shard_pb2.ListCollectionsResponse(collections=map(pack_collection, found))

    async def DescribeCollection(
        self, request: shard_pb2.DescribeCollectionRequest, context: Context
    ) -> shard_pb2.DescribeCollectionResponse:
        """Describe one collection."""
        state = await self._direct.describe_collection(
            request.collection, deadline=deadline_of(context)
        )
        return shard_pb2.DescribeCollectionResponse(state=pack_collection_state(state))

    async def Status(
        self, request: shard_pb2.StatusRequest, context: Context
    ) -> shard_pb2.StatusResponse:
        """Report how the shard is."""
        status = await self._direct.status(deadline=deadline_of(context))
        return pack_status(status)


def shard_server(shard: Shard, serving: ServingSettings) -> tuple[Server, DirectShard]:
    """Return a server for a shard, not started, and the calls to close after it stopped."""
    direct = DirectShard(shard)
    service = shard_pb2.DESCRIPTOR.services_by_name["ShardService"].full_name
    servicer = ShardServicer(direct)
    add: Callable[..., None] = shard_pb2_grpc.add_ShardServiceServicer_to_server
    return Server(serving, [service], functools.partial(add, servicer)), direct
