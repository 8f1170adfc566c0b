import asyncio

import pytest

from sish_cluster.core.collection import Collection, CollectionState
from sish_cluster.core.errors import BadSlide, Unavailable
from sish_cluster.core.seams import ForgetOutcome, IngestOutcome, StoredSlide
from sish_cluster.testing.synthetic import SyntheticSlides


class MemoryCluster:
    """`ClusterCalls` over a dict: counts what is on its way, and fails as it is told."""

    def __init__(self):
        self.collection = SyntheticSlides().collection
        self.held = {}
        self.calls = []
        self.on_their_way = self.most_on_their_way = 0
        self.failures_left = 0
        self.refused_ids = set()
        self.is_closed = False

    async def ingest(self, collection, slide, *, deadline):
        self.on_their_way += 1
        self.most_on_their_way = max(self.most_on_their_way, self.on_their_way)
        try:
            await asyncio.sleep(0)
            return self._stored(slide)
        finally:
            self.on_their_way -= 1

    def _stored(self, slide):
        slide_id = slide.slide.slide_id
        if slide_id in self.refused_ids:
            raise BadSlide(f"{slide_id} is refused")
        self._fail()
        was_stored = self.held.get(slide_id) == slide.version
        self.held[slide_id] = slide.version
        return IngestOutcome(slide_id, slide.version, was_stored)

    def _fail(self):
        if self.failures_left:
            self.failures_left -= 1
            raise Unavailable("restarting", retry_after_s=0.001)

    async def search(self, collection, query, **asked):
        self._fail()
        self.calls.append((collection, query, asked))
        return "the answer"

    async def search_patches(self, collection, query, **asked):
        self._fail()
        self.calls.append((collection, query, asked))
        return "the patches"

    async def encoded_slide(self, collection, slide_id, *, deadline):
        return SyntheticSlides().slide(int(slide_id[-4:]))

    async def forget(self, collection, slide_id, *, deadline):
        return ForgetOutcome(3, self.held.pop(slide_id, None) is not None)

    async def list_slides(self, collection, *, slide_id="", deadline):
        for held, version in sorted(self.held.items()):
            yield StoredSlide(SyntheticSlides().slide(int(held[-4:])).slide, version, 0)

    async def describe_collection(self, name, *, deadline):
        return CollectionState(self.collection, len(self.held), 0, 0, {})

    async def create_collection(self, collection, *, deadline):
        return isinstance(collection, Collection)

    async def list_collections(self, *, deadline):
        self.calls.append("list")
        return (self.collection,)

    async def status(self, *, deadline):
        raise Unavailable("nobody there", retry_after_s=0.001)

    async def close(self):
        self.is_closed = True


@pytest.fixture
def cluster():
    return MemoryCluster()
