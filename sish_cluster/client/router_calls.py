"""`ClusterCalls` over the wire: a router at an address.

The only file of the client, with `encoder`, that knows gRPC. Every call carries its deadline; every
failure becomes the error it was on the other side.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence

import grpc
import grpc.aio
from google.protobuf.message import Message

from sish_cluster.core.clock import Deadline
from sish_cluster.core.cluster import ClusterStatus
from sish_cluster.core.collection import Collection, CollectionState
from sish_cluster.core.counting import counted
from sish_cluster.core.errors import BadRequest, DeadlineExceeded, Internal, Unavailable
from sish_cluster.core.posting import EncodedSlide
from sish_cluster.core.query import Query, Ranking
from sish_cluster.core.result import PatchesResult, SearchResult
from sish_cluster.core.seams import ForgetOutcome, IngestOutcome, StoredSlide
from sish_cluster.wire.channel import MAX_MESSAGE_BYTES, open_channel
from sish_cluster.wire.cluster import unpack_cluster_status
from sish_cluster.wire.patches import PatchesAssembler
from sish_cluster.wire.results import unpack_search_result
from sish_cluster.wire.sish.v1 import router_pb2 as pb
from sish_cluster.wire.sish.v1.router_pb2_grpc import RouterServiceStub
from sish_cluster.wire.status import error_from_bytes, error_from_rpc
from sish_cluster.wire.values import (
    SlideAssembler,
    pack_collection,
    pack_query,
    pack_ranking,
    slide_parts,
    unpack_collection,
    unpack_collection_state,
    unpack_slide,
)


def checked_address(address: str, *, what: str) -> str:
    """Return ``address`` when it reads ``host:port``, or raise `BadRequest` naming ``what``."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 1 << 16:
        raise BadRequest(
            f"the {what}'s address is host:port, such as 127.0.0.1:7500; found {address!r}",
            field=what,
        )
    return address


@contextlib.contextmanager
def errors_of(address: str, *, what: str) -> Iterator[None]:
    """Turn a failed call into its error; one that never arrived names ``what`` and where."""
    try:
        yield
    except grpc.aio.AioRpcError as failed:
        error = error_from_rpc(failed)
        if type(error) is Unavailable:
            raise Unavailable(
                f"cannot reach the {what} at {address} ({failed.details()}): start it, or correct the"
                " address",
                metadata={"address": address},
            ) from failed
        raise error from failed


class RouterCalls:
    """The calls of a router at ``address`` (``host:port``); it connects on first use."""

    def __init__(self, address: str) -> None:
        self._address = checked_address(address, what="router")
        self._channel = open_channel(address, retries_reads=False)
        self._stub = RouterServiceStub(self._channel)  # type: ignore[no-untyped-call]

    async def search(
        self,
        collection: str,
        query: Query,
        *,
        ranking: Ranking,
        k: int,
        allow_partial: bool,
        max_matches: int,
        deadline: Deadline,
    ) -> SearchResult:
        """Return the slides that look like the query."""
        request = pb.RouterServiceSearchRequest(
            collection=collection,
            query=pack_query(query),
            ranking=pack_ranking(ranking),
            k=k,
            allow_partial=allow_partial,
            max_matches=max_matches,
        )
        _check_size(request, len(query.patches))
        with self._errors():
            return unpack_search_result(await self._stub.Search(request, timeout=_left_s(deadline)))

    async def search_patches(
        self, collection: str, query: Query, *, allow_partial: bool, deadline: Deadline
    ) -> PatchesResult:
        """Return each query patch's candidates."""
        request = pb.RouterServiceSearchPatchesRequest(
            collection=collection, query=pack_query(query), allow_partial=allow_partial
        )
        _check_size(request, len(query.patches))
        assembler = PatchesAssembler()
        with self._errors():
            async for part in self._stub.SearchPatches(request, timeout=_left_s(deadline)):
                assembler.add(part)
        return assembler.result(len(query.patches))

    async def encoded_slide(
        self, collection: str, slide_id: str, *, deadline: Deadline
    ) -> EncodedSlide:
        """Return a committed slide as it was ingested."""
        request = pb.RouterServiceEncodedSlideRequest(collection=collection, slide_id=slide_id)
        assembler = SlideAssembler()
        slides = []
        with self._errors():
            async for response in self._stub.EncodedSlide(request, timeout=_left_s(deadline)):
                slides.append(assembler.add(response.part))
        if not slides or slides[-1] is None:
            raise Internal(
                f"slide {slide_id!r} from {self._address} ended before its last part: ask again"
            )
        return slides[-1]

    async def ingest(
        self, collection: str, slide: EncodedSlide, *, deadline: Deadline
    ) -> IngestOutcome:
        """Store one slide: a call of its own, so that its deadline and its retries are its own."""
        requests = (
            pb.RouterServiceIngestRequest(collection=collection, part=part)
            for part in slide_parts(slide)
        )
        with self._errors():
            call = self._stub.Ingest(requests, timeout=_left_s(deadline))
            responses = [response async for response in call]
        if len(responses) != 1:
            raise Internal(
                f"one slide was sent, {len(responses)} outcomes came back from {self._address}:"
                " use matching versions of client and router"
            )
        return _outcome_from(responses[0])

    async def forget(self, collection: str, slide_id: str, *, deadline: Deadline) -> ForgetOutcome:
        """Remove a slide from every shard."""
        request = pb.RouterServiceForgetRequest(collection=collection, slide_id=slide_id)
        with self._errors():
            response = await self._stub.Forget(request, timeout=_left_s(deadline))
        return ForgetOutcome(response.postings, was_stored=response.postings > 0)

    async def list_slides(
        self, collection: str, *, slide_id: str = "", deadline: Deadline
    ) -> AsyncIterator[StoredSlide]:
        """Yield the committed slides; the router does not count their postings."""
        request = pb.RouterServiceListSlidesRequest(collection=collection, slide_id=slide_id)
        with self._errors():
            async for page in self._stub.ListSlides(request, timeout=_left_s(deadline)):
                for slide, version in zip(page.slides, page.versions, strict=True):
                    yield StoredSlide(unpack_slide(slide), version, postings=0)

    async def create_collection(self, collection: Collection, *, deadline: Deadline) -> bool:
        """Create a collection on every shard; return whether this call did."""
        request = pb.RouterServiceCreateCollectionRequest(collection=pack_collection(collection))
        with self._errors():
            response = await self._stub.CreateCollection(request, timeout=_left_s(deadline))
        return bool(response.was_created)

    async def list_collections(self, *, deadline: Deadline) -> Sequence[Collection]:
        """Return the collections in name order."""
        request = pb.RouterServiceListCollectionsRequest()
        with self._errors():
            response = await self._stub.ListCollections(request, timeout=_left_s(deadline))
        return tuple(map(unpack_collection, response.collections))

    async def describe_collection(self, name: str, *, deadline: Deadline) -> CollectionState:
        """Return what the cluster holds of a collection."""
        request = pb.RouterServiceDescribeCollectionRequest(collection=name)
        with self._errors():
            response = await self._stub.DescribeCollection(request, timeout=_left_s(deadline))
        return unpack_collection_state(response.state)

    async def status(self, *, deadline: Deadline) -> ClusterStatus:
        """Return how the cluster is."""
        request = pb.RouterServiceStatusRequest()
        with self._errors():
            response = await self._stub.Status(request, timeout=_left_s(deadline))
        return unpack_cluster_status(response)

    async def close(self) -> None:
        """Close the channel."""
        await self._channel.close(None)

    def _errors(self) -> contextlib.AbstractContextManager[None]:
        return errors_of(self._address, what="router")


def _check_size(request: Message, n_patches: int) -> None:
    """Raise `BadRequest` for a query that no server would accept, before it is sent."""
    found = request.ByteSize()
    if found > MAX_MESSAGE_BYTES:
        raise BadRequest(
            f"a query of {counted(n_patches, 'patch')} takes {found / 1e6:.1f} MB; at most"
            f" {MAX_MESSAGE_BYTES / 1e6:.1f} MB can be sent, about"
            f" {n_patches * MAX_MESSAGE_BYTES // found:,} such patches: search a part of them, or a"
            " mosaic",
            field="query.patches",
        )


def _outcome_from(response: pb.RouterServiceIngestResponse) -> IngestOutcome:
    if response.error:
        raise error_from_bytes(response.error)
    return IngestOutcome(response.slide_id, response.version, response.was_stored)


def _left_s(deadline: Deadline) -> float:
    remaining_s = deadline.remaining_s()
    if remaining_s <= 0:
        raise DeadlineExceeded(
            "the time-out passed before the call could be sent: allow more time (timeout_s)"
        )
    return remaining_s
