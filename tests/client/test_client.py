import asyncio
import itertools

import pytest

from sish_cluster import AsyncClient, Client, ClientSettings
from sish_cluster.client import Exclusion
from sish_cluster.core.collection import Collection
from sish_cluster.core.errors import (
    BadRequest,
    BadSlide,
    FingerprintMismatch,
    Unavailable,
    UnknownCollection,
    UnknownSlide,
)
from sish_cluster.core.posting import EncodedSlide
from sish_cluster.core.query import Mode, Query, SearchSettings
from sish_cluster.testing.synthetic import SyntheticSlides

SLIDES = SyntheticSlides(patches=2)
QUICK = ClientSettings(backoff_s=0.001, max_backoff_s=0.002, window=3)


def blocking(cluster):
    async def opened():
        return AsyncClient.over(cluster, settings=QUICK)

    return Client.over(opened)


@pytest.mark.parametrize("address", ["localhost", "host:port", ":70", "host:0", "host:65536", ""])
def test_an_address_that_is_none_is_refused_with_an_example(address):
    with pytest.raises(BadRequest, match=r"127\.0\.0\.1:7500"):
        Client(address)


async def test_an_encoded_slide_is_searched_with_the_collections_own_bound(cluster):
    cluster.collection = Collection("synthetic", "synthetic", 1024, max_distance=99)
    slide = SLIDES.slide(0)
    await AsyncClient.over(cluster).search("synthetic", slide, k=3, where=["site=lung"])
    _, query, asked = cluster.calls[-1]
    assert query.settings.max_distance == 99
    assert query.patient == slide.slide.patient
    assert query.where.keep["site"] == {"lung"}
    assert asked["k"] == 3


async def test_a_query_keeps_its_settings_where_nothing_else_is_asked(cluster):
    slide = SLIDES.slide(0)
    query = Query(slide.patches, slide.fingerprint, SearchSettings(Mode.SISH, 7))
    client = AsyncClient.over(cluster)
    await client.search("synthetic", query)
    await client.search("synthetic", query, mode=Mode.EXACT, exclude=Exclusion(slides=("a",)))
    kept, changed = (call[1] for call in cluster.calls)
    assert kept.settings == SearchSettings(Mode.SISH, 7)
    assert changed.settings == SearchSettings(Mode.EXACT, 7)
    assert changed.where.leave_out["slide"] == {"a"}


async def test_a_slide_of_another_encoder_is_refused_before_it_is_sent(cluster):
    slide = SLIDES.slide(0)
    foreign = EncodedSlide.whole(slide.slide, slide.patches, "other")
    with pytest.raises(FingerprintMismatch, match="other"):
        await AsyncClient.over(cluster).search("synthetic", foreign)
    assert cluster.calls == ["list"]


async def test_a_collections_definition_is_asked_for_once(cluster):
    client = AsyncClient.over(cluster)
    for _ in range(3):
        await client.search("synthetic", SLIDES.slide(0))
    assert cluster.calls.count("list") == 1


async def test_a_collection_that_is_not_there_is_named_with_those_that_are(cluster):
    with pytest.raises(UnknownCollection, match="no collection 'nowhere'; there are: synthetic"):
        await AsyncClient.over(cluster).search("nowhere", SLIDES.slide(0))


async def test_a_read_is_repeated_while_the_cluster_is_away(cluster):
    cluster.failures_left = 2
    client = AsyncClient.over(cluster, settings=QUICK)
    query = Query(SLIDES.slide(0).patches, "synthetic")
    assert await client.search("synthetic", query) == "the answer"


async def test_a_read_of_a_cluster_that_stays_away_fails_as_unavailable(cluster):
    with pytest.raises(Unavailable, match="nobody there"):
        await AsyncClient.over(cluster, settings=QUICK).status()


async def test_ingest_stores_every_slide_and_never_sends_more_than_the_window(cluster):
    cluster.failures_left = 5
    client = AsyncClient.over(cluster, settings=QUICK)
    outcomes = [o async for o in client.ingest("synthetic", iter(SLIDES.slides(20)))]
    assert {o.slide_id for o in outcomes} == cluster.held.keys()
    assert all(o.is_durable for o in outcomes)
    assert len(outcomes) == 20
    assert cluster.most_on_their_way == QUICK.window


async def test_a_refused_slide_is_an_outcome_and_stops_no_other(cluster):
    cluster.refused_ids = {"slide-0003"}
    client = AsyncClient.over(cluster, settings=QUICK)
    outcomes = [o async for o in client.ingest("synthetic", SLIDES.slides(6))]
    failed = [o for o in outcomes if not o.is_durable]
    assert [o.slide_id for o in failed] == ["slide-0003"]
    assert isinstance(failed[0].error, BadSlide)
    assert len(cluster.held) == 5


async def test_slides_may_come_from_an_asynchronous_source(cluster):
    async def source():
        for slide in SLIDES.slides(4):
            await asyncio.sleep(0)
            yield slide

    outcomes = [o async for o in AsyncClient.over(cluster).ingest("synthetic", source())]
    assert len(outcomes) == len(cluster.held) == 4


def test_the_blocking_client_draws_slides_only_as_fast_as_they_are_stored(cluster):
    drawn = []

    def endless():
        for number in itertools.count():
            drawn.append(number)
            yield SLIDES.slide(number)

    with blocking(cluster) as client:
        outcomes = list(itertools.islice(client.ingest("synthetic", endless()), 10))
    assert [o.slide_id for o in outcomes] == [f"slide-{n:04}" for n in range(10)]
    assert len(drawn) <= 10 + QUICK.window


def test_the_same_version_twice_is_one_ingest(cluster):
    with blocking(cluster) as client:
        first = client.ingest_slide("synthetic", SLIDES.slide(1))
        again = client.ingest_slide("synthetic", SLIDES.slide(1))
    assert (first.was_stored, again.was_stored) == (False, True)


def test_forgetting_a_slide_nobody_has_says_so(cluster):
    with blocking(cluster) as client:
        client.ingest_slide("synthetic", SLIDES.slide(1))
        assert client.forget("synthetic", "slide-0001").was_stored
        with pytest.raises(UnknownSlide, match="has no slide 'slide-0001'"):
            client.forget("synthetic", "slide-0001")


def test_closing_a_blocking_client_twice_closes_it_once(cluster):
    client = blocking(cluster)
    client.close()
    client.close()
    assert cluster.is_closed


def test_a_cluster_that_cannot_be_opened_leaves_no_thread_behind():
    import threading

    async def fails():
        raise BadRequest("no such home")

    before = threading.active_count()
    with pytest.raises(BadRequest, match="no such home"):
        Client.over(fails)
    assert threading.active_count() == before
