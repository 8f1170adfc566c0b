"""A shard behind a socket: `core.seams.ShardCalls` over gRPC.

Every call carries a timeout: what is left of the caller's deadline less the time the router needs
itself, and never more than a cap. Reads are retried by the channel when the shard cannot be reached;
writes are not, because whoever began them knows how to repeat them (they are idempotent by version).
What goes wrong comes out as the project's own errors, and names the shard.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import grpc
import grpc.aio

from sish_cluster.core.candidate import ShardAnswer
from sish_cluster.core.clock import Deadline
from sish_cluster.core.collection import Collection, CollectionState
from sish_cluster.core.errors import (
    BadMessage,
    Corrupt,
    DeadlineExceeded,
    ShardUnavailable,
    SishError,
    Unavailable,
)
from sish_cluster.core.posting import EncodedSlide
from sish_cluster.core.query import Query
from sish_cluster.core.seams import (
    ForgetOutcome,
    IngestOutcome,
    PendingSlide,
    ShardStatus,
    SlideState,
    StoredSlide,
)
from sish_cluster.core.topology import KeyRange, Selector, ShardSpec
from sish_cluster.router.settings import RouterSettings
from sish_cluster.wire.answers import AnswerAssembler
from sish_cluster.wire.channel import open_channel
from sish_cluster.wire.sish.v1 import common_pb2
from sish_cluster.wire.sish.v1 import shard_pb2 as pb
from sish_cluster.wire.sish.v1.shard_pb2_grpc import ShardServiceStub
from sish_cluster.wire.status import error_from_bytes, error_from_rpc
from sish_cluster.wire.values import (
    SlideAssembler,
    pack_collection,
    pack_query,
    slide_parts,
    unpack_collection,
    unpack_collection_state,
    unpack_slide,
)

_STATES = {
    SlideState.PENDING: common_pb2.SLIDE_STATE_PENDING,
    SlideState.COMMITTED: common_pb2.SLIDE_STATE_COMMITTED,
}


class GrpcShard:
    """One shard server.

    Parameters
    ----------
    spec
        Its name, for messages, and its address.
    epoch
        The topology epoch sent with searches and ingests; shards do not compare it yet, they
        check the range and the labels of what they are sent.
    settings
        Slack and cap of timeouts.
    """

    def __init__(
        self, spec: ShardSpec, *, epoch: int = 0, settings: RouterSettings | None = None
    ) -> None:
        self.spec = spec
        self._epoch = epoch
        self._settings = settings or RouterSettings()
        self._channel = open_channel(spec.address)
        self._stub: Any = ShardServiceStub(self._channel)  # type: ignore[no-untyped-call]

    async def search(
        self, collection: str, query: Query, *, wants_examined: bool, deadline: Deadline
    ) -> ShardAnswer:
        """Return the candidates of a slide query."""
        request = pb.SearchRequest(
            collection=collection,
            query=pack_query(query),
            wants_examined=wants_examined,
            epoch=self._epoch,
        )
        assembler = AnswerAssembler()
        with self._errors():
            call = self._stub.Search(request, timeout=self._timeout_s(deadline))
            with _never_outlived(call):
                async for part in call:
                    assembler.add(part)
            return assembler.answer(len(query.patches))

    async def encoded_slide(
        self, collection: str, slide_id: str, *, deadline: Deadline
    ) -> EncodedSlide | None:
        """Return the shard's share of a committed slide as it was ingested; None when it has none."""
        request = pb.EncodedSlideRequest(collection=collection, slide_id=slide_id)
        assembler, found, is_whole = SlideAssembler(), None, True
        with self._errors():
            call = self._stub.EncodedSlide(request, timeout=self._timeout_s(deadline))
            with _never_outlived(call):
                async for response in call:
                    found = assembler.add(response.part)
                    is_whole = found is not None
            if not is_whole:
                raise BadMessage(f"slide {slide_id!r} ended before its last part: ask again")
        return found

    async def ingest(
        self,
        collection: str,
        slide: EncodedSlide,
        *,
        state: SlideState,
        is_home: bool,
        home: str,
        deadline: Deadline,
    ) -> IngestOutcome:
        """Store a slide (or a share of it) durably."""
        requests = (
            pb.IngestRequest(
                collection=collection,
                part=part,
                state=_STATES[state],
                is_home=is_home,
                home=home,
                epoch=self._epoch,
            )
            for part in slide_parts(slide)
        )
        with self._errors():
            call = self._stub.Ingest(_sent(requests), timeout=self._timeout_s(deadline))
            with _never_outlived(call):
                outcomes = [_ingest_outcome(response) async for response in call]
        if not outcomes:
            raise self._unreachable("the stream ended before the slide was acknowledged")
        return outcomes[0]

    async def commit_slide(
        self, collection: str, slide_id: str, version: str, *, deadline: Deadline
    ) -> None:
        """Make a pending slide eligible, dropping its older version; idempotent."""
        request = pb.CommitSlideRequest(collection=collection, slide_id=slide_id, version=version)
        await self._asked(self._stub.CommitSlide, request, deadline)

    async def forget(
        self, collection: str, slide_id: str, *, pending_version: str = "", deadline: Deadline
    ) -> ForgetOutcome:
        """Remove a slide, or only a pending version of it."""
        request = pb.ForgetRequest(
            collection=collection, slide_id=slide_id, pending_version=pending_version
        )
        response = await self._asked(self._stub.Forget, request, deadline)
        return ForgetOutcome(response.postings, response.was_stored)

    async def list_pending(self, collection: str, *, deadline: Deadline) -> Sequence[PendingSlide]:
        """Return the pending slides in slide id order."""
        request = pb.ListPendingRequest(collection=collection)
        response = await self._asked(self._stub.ListPending, request, deadline)
        return [
            PendingSlide(slide.slide_id, slide.version, slide.home, slide.age_s)
            for slide in response.pending
        ]

    async def list_slides(
        self, collection: str, *, slide_id: str = "", deadline: Deadline
    ) -> AsyncIterator[StoredSlide]:
        """Yield the committed slides at home, in slide id order."""
        request = pb.ListSlidesRequest(collection=collection, slide_id=slide_id)
        with self._errors():
            call = self._stub.ListSlides(request, timeout=self._timeout_s(deadline))
            with _never_outlived(call):
                async for page in call:
                    for slide in _stored_slides(page):
                        yield slide

    async def create_collection(self, collection: Collection, *, deadline: Deadline) -> bool:
        """Create a collection; return whether this call did."""
        request = pb.CreateCollectionRequest(collection=pack_collection(collection))
        response = await self._asked(self._stub.CreateCollection, request, deadline)
        return bool(response.was_created)

    async def list_collections(self, *, deadline: Deadline) -> Sequence[Collection]:
        """Return the collections in name order."""
        request = pb.ListCollectionsRequest()
        response = await self._asked(self._stub.ListCollections, request, deadline)
        return [unpack_collection(collection) for collection in response.collections]

    async def describe_collection(self, name: str, *, deadline: Deadline) -> CollectionState:
        """Return what the shard holds of a collection."""
        request = pb.DescribeCollectionRequest(collection=name)
        response = await self._asked(self._stub.DescribeCollection, request, deadline)
        return unpack_collection_state(response.state)

    async def status(self, *, deadline: Deadline) -> ShardStatus:
        """Return how the shard is."""
        response = await self._asked(self._stub.Status, pb.StatusRequest(), deadline)
        return ShardStatus(
            version=response.version,
            uptime_s=response.uptime_s,
            selector=Selector.of(response.selector),
            range=KeyRange(response.range_start, response.range_end),
            collections=[unpack_collection_state(state) for state in response.collections],
            store_used_bytes=response.store_used_bytes,
            store_map_bytes=response.store_map_bytes,
            resident_bytes=response.resident_bytes,
        )

    async def close(self) -> None:
        """Release the connection."""
        await self._channel.close(None)

    async def _asked(self, method: Any, request: Any, deadline: Deadline) -> Any:
        with self._errors():
            return await method(request, timeout=self._timeout_s(deadline))

    def _timeout_s(self, deadline: Deadline) -> float:
        timeout_s = min(deadline.remaining_s() - self._settings.slack_s, self._settings.call_cap_s)
        if timeout_s <= 0:
            raise DeadlineExceeded(
                f"no time was left to ask shard {self.spec.name!r}: allow more (timeout_s)",
                metadata={"shard": self.spec.name},
            )
        return timeout_s

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn what gRPC raises, and damaged answers, into errors that name this shard."""
        try:
            yield
        except grpc.RpcError as error:
            raise self._named(error_from_rpc(error)) from error
        except BadMessage as error:
            raise Corrupt(
                f"the answer of shard {self.spec.name!r} is damaged: {error.message}",
                metadata={"shard": self.spec.name},
            ) from error

    def _named(self, error: SishError) -> SishError:
        if type(error) is Unavailable:
            return self._unreachable(error.message)
        error.metadata.setdefault("shard", self.spec.name)
        return error

    def _unreachable(self, why: str) -> ShardUnavailable:
        return ShardUnavailable(
            f"shard {self.spec.name!r} at {self.spec.address} cannot be reached ({why}): start it,"
            " or correct its address in the topology",
            metadata={"shards": self.spec.name, "shard": self.spec.name},
        )


@contextlib.contextmanager
def _never_outlived(call: Any) -> Iterator[None]:
    """Cancel a streaming call whose reader leaves before its end."""
    try:
        yield
    finally:
        call.cancel()


async def _sent(requests: Iterator[Any]) -> AsyncIterator[Any]:
    for request in requests:
        yield request


def _ingest_outcome(response: pb.IngestResponse) -> IngestOutcome:
    if response.error:
        raise error_from_bytes(response.error)
    return IngestOutcome(response.slide_id, response.version, response.was_stored)


def _stored_slides(page: pb.ListSlidesResponse) -> Iterator[StoredSlide]:
    for slide, version, postings in zip(page.slides, page.versions, page.postings, strict=True):
        yield StoredSlide(unpack_slide(slide), version, postings)
