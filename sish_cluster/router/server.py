"""The router as a gRPC service: messages become values, the router answers, values become messages.

Deadlines, error statuses, health, reflection and draining are the wire's (`wire.interceptors`,
`wire.serving`); everything else is the router's. Nothing is decided here.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc.aio

from sish_cluster.core.cluster import DEFAULT_K, DEFAULT_MAX_MATCHES
from sish_cluster.core.errors import BadRequest, SishError
from sish_cluster.core.posting import EncodedSlide
from sish_cluster.core.seams import StoredSlide
from sish_cluster.core.topology import Topology
from sish_cluster.router.ingest_stream import Fate, IngestFailure, IngestStream
from sish_cluster.router.router import Router
from sish_cluster.router.settings import RouterSettings
from sish_cluster.router.shard_client import GrpcShard
from sish_cluster.wire.cluster import pack_cluster_status
from sish_cluster.wire.interceptors import deadline_of
from sish_cluster.wire.patches import patches_parts
from sish_cluster.wire.results import pack_search_result
from sish_cluster.wire.serving import Server, ServingSettings
from sish_cluster.wire.sish.v1 import router_pb2 as pb
from sish_cluster.wire.sish.v1.router_pb2_grpc import (
    RouterServiceServicer,
    add_RouterServiceServicer_to_server,
)
from sish_cluster.wire.status import status_bytes_of
from sish_cluster.wire.values import (
    SlideAssembler,
    pack_collection,
    pack_collection_state,
    pack_slide,
    slide_parts,
    unpack_collection,
    unpack_query,
    unpack_ranking,
)

SERVICE = "sish.v1.RouterService"
"""Full name, for health and reflection."""

_SLIDES_PER_PAGE = 500
"""Slides of one message of a list: about 100 kB."""

Context = grpc.aio.ServicerContext[Any, Any]
"""What gRPC knows of a call."""


class RouterService(RouterServiceServicer):
    """Answers calls with a router.

    Parameters
    ----------
    router
        What answers.
    """

    def __init__(self, router: Router) -> None:
        self._router = router

    async def Search(
        self, request: pb.RouterServiceSearchRequest, context: Context
    ) -> pb.RouterServiceSearchResponse:
        """Find the slides that look like the query."""
        result = await self._router.search(
            request.collection,
            unpack_query(request.query),
            ranking=unpack_ranking(request.ranking),
            k=request.k or DEFAULT_K,
            allow_partial=request.allow_partial,
            max_matches=request.max_matches or DEFAULT_MAX_MATCHES,
            deadline=deadline_of(context),
        )
        return pack_search_result(result)

    async def SearchPatches(
        self, request: pb.RouterServiceSearchPatchesRequest, context: Context
    ) -> AsyncIterator[pb.RouterServiceSearchPatchesResponse]:
        """Find the patches that look like each of the query's."""
        result = await self._router.search_patches(
            request.collection,
            unpack_query(request.query),
            allow_partial=request.allow_partial,
            deadline=deadline_of(context),
        )
        for part in patches_parts(result):
            yield part

    async def EncodedSlide(
        self, request: pb.RouterServiceEncodedSlideRequest, context: Context
    ) -> AsyncIterator[pb.RouterServiceEncodedSlideResponse]:
        """Stream one slide's patches as they were ingested."""
        slide = await self._router.encoded_slide(
            request.collection, request.slide_id, deadline=deadline_of(context)
        )
        for part in slide_parts(slide):
            yield pb.RouterServiceEncodedSlideResponse(part=part)

    async def Ingest(
        self, request_iterator: AsyncIterator[pb.RouterServiceIngestRequest], context: Context
    ) -> AsyncIterator[pb.RouterServiceIngestResponse]:
        """Place slides on their shards, telling each one's fate as it comes true."""
        incoming = _IncomingSlides(request_iterator)
        deadline = deadline_of(context)
        stream = IngestStream(
            lambda slide: self._router.ingest(incoming.collection, slide, deadline=deadline),
            incoming.slides(),
            in_flight=self._router.settings.slides_in_flight,
        )
        async with contextlib.aclosing(stream.fates()) as fates:
            async for fate in fates:
                yield _packed_fate(fate)

    async def Forget(
        self, request: pb.RouterServiceForgetRequest, context: Context
    ) -> pb.RouterServiceForgetResponse:
        """Remove a slide from every shard."""
        outcome = await self._router.forget(
            request.collection, request.slide_id, deadline=deadline_of(context)
        )
        return pb.RouterServiceForgetResponse(postings=outcome.postings)

    async def ListSlides(
        self, request: pb.RouterServiceListSlidesRequest, context: Context
    ) -> AsyncIterator[pb.RouterServiceListSlidesResponse]:
        """Stream the committed slides in pages."""
        page: list[StoredSlide] = []
        async for stored in self._router.list_slides(
            request.collection, slide_id=request.slide_id, deadline=deadline_of(context)
        ):
            page.append(stored)
            if len(page) == _SLIDES_PER_PAGE:
                yield _packed_page(page)
                page = []
        if page:
            yield _packed_page(page)

    async def CreateCollection(
        self, request: pb.RouterServiceCreateCollectionRequest, context: Context
    ) -> pb.RouterServiceCreateCollectionResponse:
        """Create a collection on every shard."""
        was_created = await self._router.create_collection(
            unpack_collection(request.collection), deadline=deadline_of(context)
        )
        return pb.RouterServiceCreateCollectionResponse(was_created=was_created)

    async def ListCollections(
        self, request: pb.RouterServiceListCollectionsRequest, context: Context
    ) -> pb.RouterServiceListCollectionsResponse:
        """List the collections."""
        held = await self._router.list_collections(deadline=deadline_of(context))
        return pb.RouterServiceListCollectionsResponse(collections=map(pack_collection, held))

    async def DescribeCollection(
        self, request: pb.RouterServiceDescribeCollectionRequest, context: Context
    ) -> pb.RouterServiceDescribeCollectionResponse:
        """Describe one collection over all shards."""
        state = await self._router.describe_collection(
            request.collection, deadline=deadline_of(context)
        )
        return pb.RouterServiceDescribeCollectionResponse(state=pack_collection_state(state))

    async def Status(
        self, request: pb.RouterServiceStatusRequest, context: Context
    ) -> pb.RouterServiceStatusResponse:
        """Report the topology and how each shard is."""
        return pack_cluster_status(await self._router.status(deadline=deadline_of(context)))


class _IncomingSlides:
    """Puts the parts of an ingest stream together, and keeps to one collection."""

    def __init__(self, requests: AsyncIterator[pb.RouterServiceIngestRequest]) -> None:
        self._requests = requests
        self._assembler = SlideAssembler()
        self.collection = ""

    async def slides(self) -> AsyncIterator[EncodedSlide | IngestFailure]:
        async for request in self._requests:
            if self.collection not in ("", request.collection):
                raise BadRequest(
                    f"one ingest stream fills one collection: it began with {self.collection!r},"
                    f" found {request.collection!r}; open another stream",
                    field="collection",
                )
            self.collection = request.collection
            slide = self._taken(request)
            if slide is not None:
                yield slide

    def _taken(self, request: pb.RouterServiceIngestRequest) -> EncodedSlide | IngestFailure | None:
        try:
            return self._assembler.add(request.part)
        except SishError as error:
            return IngestFailure(request.part.slide.slide_id, request.part.version, error)


def _packed_fate(fate: Fate) -> pb.RouterServiceIngestResponse:
    if isinstance(fate, IngestFailure):
        return pb.RouterServiceIngestResponse(
            slide_id=fate.slide_id, version=fate.version, error=status_bytes_of(fate.error)
        )
    return pb.RouterServiceIngestResponse(
        slide_id=fate.slide_id, version=fate.version, was_stored=fate.was_stored
    )


def _packed_page(page: list[StoredSlide]) -> pb.RouterServiceListSlidesResponse:
    return pb.RouterServiceListSlidesResponse(
        slides=[pack_slide(stored.slide) for stored in page],
        versions=[stored.version for stored in page],
    )


def connected_router(topology: Topology, settings: RouterSettings) -> Router:
    """Return a router over gRPC shards at the topology's addresses; they connect on first use."""
    shards = {
        spec.name: GrpcShard(spec, epoch=topology.epoch, settings=settings)
        for spec in topology.shards
    }
    return Router(topology, shards, settings)


def router_server(
    router: Router, serving: ServingSettings
) -> tuple[Server, Callable[[], Awaitable[None]]]:
    """Return the server of a router, and what to await after it has stopped.

    The router's janitor starts with this call, which needs a running event loop, and ends with the
    returned closing.
    """

    def add_services(server: Any) -> None:
        add_RouterServiceServicer_to_server(RouterService(router), server)  # type: ignore[no-untyped-call]

    server = Server(serving, [SERVICE], add_services)
    router.start_janitor()
    return server, router.close
