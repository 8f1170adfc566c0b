"""Queries of patches and of cases, as clients make them."""

import dataclasses

import numpy as np
import pytest

from sish_cluster import AsyncClient, Client
from sish_cluster.client import Exclusion, case_query, case_sources
from sish_cluster.client.router_calls import RouterCalls
from sish_cluster.core.clock import Deadline
from sish_cluster.core.collection import Collection
from sish_cluster.core.errors import BadFilter, BadRequest, FingerprintMismatch
from sish_cluster.core.posting import EncodedSlide, PatchColumns
from sish_cluster.core.query import Mode, Query, SearchSettings
from sish_cluster.core.slide import Slide
from sish_cluster.testing.synthetic import SyntheticSlides

SLIDES = SyntheticSlides(patches=3)
BOTH = Collection("synthetic", "synthetic", 1024, max_distance=99, dimensions=4)


def with_embeddings(slide):
    patches = dataclasses.replace(slide.patches, embeddings=np.ones((3, 4), np.float16))
    return EncodedSlide.whole(slide.slide, patches, slide.fingerprint)


async def test_plain_patches_are_searched_with_the_collections_bound_five_candidates_each(cluster):
    cluster.collection = BOTH
    slide = SLIDES.slide(0)
    client = AsyncClient.over(cluster)
    answer = await client.search_patches(
        "synthetic", slide.patches, fingerprint=slide.fingerprint, where=["site=lung"]
    )
    _, query, asked = cluster.calls[-1]
    assert answer == "the patches"
    assert query.settings == SearchSettings(max_distance=99, max_candidates=5)
    assert query.where.keep["site"] == {"lung"}
    assert asked["allow_partial"] is False


async def test_a_query_keeps_its_bound_on_candidates_unless_another_is_given(cluster):
    slide = SLIDES.slide(0)
    asked = Query(slide.patches, slide.fingerprint, SearchSettings(max_candidates=7))
    client = AsyncClient.over(cluster)
    for given in ({}, {"max_candidates": 0}, {"max_distance": 3, "min_cosine": 0.5}):
        await client.search_patches("synthetic", asked, **given)
    await client.search_patches("synthetic", slide)
    settings = [call[1].settings for call in cluster.calls if call != "list"]
    assert [found.max_candidates for found in settings] == [7, 0, 7, 5]
    assert (settings[2].max_distance, settings[2].min_cosine) == (3, 0.5)


@pytest.mark.parametrize(
    ("mode", "dimensions"),
    [(Mode.AUTO, 0), (Mode.EXACT, 0), (Mode.GUIDED, 0), (Mode.SISH, 0), (Mode.DIRECT, 4)],
)
async def test_embeddings_travel_only_where_they_are_compared(cluster, mode, dimensions):
    cluster.collection = BOTH
    slide = with_embeddings(SLIDES.slide(0))
    await AsyncClient.over(cluster).search("synthetic", slide, mode=mode)
    assert cluster.calls[-1][1].patches.dimensions == dimensions


async def test_auto_sends_embeddings_to_a_collection_without_codes(cluster):
    cluster.collection = dataclasses.replace(BOTH, code_bits=0)
    await AsyncClient.over(cluster).search("synthetic", with_embeddings(SLIDES.slide(0)))
    assert cluster.calls[-1][1].patches.dimensions == 4


async def test_a_query_no_server_would_accept_is_refused_before_it_is_sent():
    n = 20_000
    patches = PatchColumns.of(
        np.arange(n), np.zeros((n, 0)), embeddings=np.ones((n, 1024), np.float16)
    )
    query = Query(patches, "f", SearchSettings(Mode.DIRECT))
    calls = RouterCalls("127.0.0.1:1")
    with pytest.raises(BadRequest, match=r"20,000 patches takes 41\.4 MB; at most 16\.8 MB"):
        await calls.search_patches("c", query, allow_partial=False, deadline=Deadline.after(30))
    await calls.close()


async def test_a_case_is_one_query_whose_rows_lead_back_to_its_slides(cluster):
    cluster.collection = BOTH
    parts = SLIDES.slides(3)
    await AsyncClient.over(cluster).search_case("synthetic", parts, k=7, mode=Mode.EXACT)
    _, query, asked = cluster.calls[-1]
    assert (asked["k"], query.settings) == (7, SearchSettings(Mode.EXACT, max_distance=99))
    sources = case_sources(parts)
    assert len(sources) == len(query.patches) == 9
    by_id = {part.slide.slide_id: part.patches for part in parts}
    for row, (slide_id, number) in enumerate(sources):
        assert query.patches.keys[row] == by_id[slide_id].keys[number]
        np.testing.assert_array_equal(query.patches.codes[row], by_id[slide_id].codes[number])


def test_the_patient_of_a_case_is_that_of_all_its_slides_or_none():
    first, second, third = SLIDES.slides(3)
    assert case_query(BOTH, [first, second]).patient == "patient-0"
    assert case_query(BOTH, [first, third]).patient == ""


def test_a_case_needs_slides_of_the_collections_encoder():
    with pytest.raises(BadRequest, match="at least one slide"):
        case_query(BOTH, [])
    foreign = dataclasses.replace(SLIDES.slide(1), fingerprint="other")
    with pytest.raises(FingerprintMismatch, match="other"):
        case_query(BOTH, [SLIDES.slide(0), foreign])


def test_everything_of_a_cases_own_can_be_left_out():
    slides = [Slide(f"s{n}", patient=f"p{n // 2}", institution="i") for n in range(3)]
    own = Exclusion.of_case(slides, patient=True, institution=True, slide_itself=True)
    assert own == Exclusion(("p0", "p1"), ("i",), ("s0", "s1", "s2"))
    assert Exclusion.of_case(slides) == Exclusion()
    with pytest.raises(BadFilter, match="cannot leave out the patient of slide 'x'"):
        Exclusion.of_case([*slides, Slide("x")], patient=True)


def test_the_blocking_client_offers_the_same(cluster):
    cluster.collection = BOTH

    async def opened():
        return AsyncClient.over(cluster)

    parts = SLIDES.slides(2)
    with Client.over(opened) as client:
        assert client.search_case("synthetic", parts, exclude=Exclusion(patients=("a", "b")))
        assert cluster.calls[-1][1].where.leave_out["patient"] == {"a", "b"}
        assert client.search_patches("synthetic", parts[0], max_candidates=2) == "the patches"
        assert cluster.calls[-1][1].settings.max_candidates == 2
        assert client.encoded_slide("synthetic", "slide-0001").slide == parts[1].slide
