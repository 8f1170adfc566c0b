"""Patch searches and slides read back: the same rows and bytes for every cut, in memory and over the wire."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from sish_cluster.core.clock import Deadline
from sish_cluster.core.collection import Collection
from sish_cluster.core.errors import (
    BadMessage,
    BadRequest,
    ShardUnavailable,
    Unavailable,
    UnknownSlide,
)
from sish_cluster.core.posting import PatchColumns
from sish_cluster.core.query import Mode, Query, SearchSettings
from sish_cluster.core.topology import KeyRange, Selector, ShardSpec
from sish_cluster.router.catalogue import check_patches, check_query
from sish_cluster.router.router import Router
from sish_cluster.router.shares import joined_slide

ALL = ShardSpec("all", "")
LOW = ShardSpec("low", "", Selector(), KeyRange(0, 100))
HIGH = ShardSpec("high", "", Selector(), KeyRange(100))


def soon():
    return Deadline.after(30)


async def filled(model, *specs):
    topology, shards = model.memory_cluster(*specs)
    router = Router(topology, shards)
    for number in range(4):
        patches = [(number * 50 + step, (number << 4) + step) for step in range(3)]
        await router.ingest("demo", model.slide_of(f"s{number}", patches), deadline=soon())
    return router, shards


def plain(result):
    found = result.candidates
    return [
        [
            (result.slides[slide].slide_id, number, distance)
            for slide, number, distance in zip(
                found.slides[rows].tolist(),
                found.numbers[rows].tolist(),
                found.distances[rows].tolist(),
                strict=True,
            )
        ]
        for rows in map(found.rows_of, range(found.n_query_patches))
    ]


@pytest.mark.parametrize("mode", [Mode.AUTO, Mode.SISH, Mode.GUIDED, Mode.EXACT])
async def test_every_cut_finds_the_same_patches(model, mode):
    query = model.query_of([(60, 16), (101, 34)], mode=mode, max_distance=2, max_steps=4)
    found = []
    for specs in [[ALL], [LOW, HIGH]]:
        router, _ = await filled(model, *specs)
        found.append(
            await router.search_patches("demo", query, allow_partial=False, deadline=soon())
        )
    assert any(plain(found[0]))
    assert plain(found[0]) == plain(found[1])
    assert found[0].examined_counts.tolist() == found[1].examined_counts.tolist()
    assert (found[0].mode, found[0].coverage) == (found[1].mode, found[1].coverage)


async def test_at_most_max_candidates_of_each_patch_are_handed_over(model):
    query = model.query_of([(0, 0), (100, 33)], mode=Mode.EXACT, max_candidates=2)
    router, _ = await filled(model, LOW, HIGH)
    result = await router.search_patches("demo", query, allow_partial=False, deadline=soon())
    assert plain(result) == [
        [("s0", 0, 0), ("s0", 1, 1)],
        [("s2", 1, 0), ("s0", 1, 1)],
    ]
    assert [slide.slide_id for slide in result.slides] == ["s0", "s2"]
    assert result.mode_reason == "exact: asked for"


async def test_a_partial_patch_search_names_the_missing_shards(model):
    router, shards = await filled(model, LOW, HIGH)
    query = model.query_of([(0, 0)])
    await router.search_patches("demo", query, allow_partial=False, deadline=soon())
    shards["high"].is_down = True
    with pytest.raises(ShardUnavailable, match=r"high is down.*allow_partial"):
        await router.search_patches("demo", query, allow_partial=False, deadline=soon())
    result = await router.search_patches("demo", query, allow_partial=True, deadline=soon())
    assert (result.missing_shards, result.eligible) == (("high",), 6)


async def test_a_query_without_patches_is_refused(model):
    router, _ = await filled(model, ALL)
    query = model.query_of([(0, 0)])
    empty = dataclasses.replace(query, patches=query.patches.taken(query.patches.keys > 0))
    with pytest.raises(BadRequest, match="at least one patch"):
        await router.search_patches("demo", empty, allow_partial=False, deadline=soon())


@pytest.mark.parametrize("specs", [[ALL], [LOW, HIGH]])
async def test_a_slide_is_read_back_as_it_was_ingested(model, specs):
    router, _ = await filled(model, *specs)
    slide = model.slide_of("new", [(150, 1), (3, 2), (120, 3), (99, 4)], site="lung")
    await router.ingest("demo", slide, deadline=soon())
    found = await router.encoded_slide("demo", "new", deadline=soon())
    assert (found.slide, found.version, found.fingerprint) == (slide.slide, slide.version, "f")
    for name in ("keys", "codes", "corners", "numbers", "embeddings"):
        np.testing.assert_array_equal(getattr(found.patches, name), getattr(slide.patches, name))


async def test_a_slide_nobody_has_is_named(model):
    router, shards = await filled(model, LOW, HIGH)
    with pytest.raises(UnknownSlide, match="no slide 'none'"):
        await router.encoded_slide("demo", "none", deadline=soon())
    shards["low"].is_down = True
    with pytest.raises(ShardUnavailable, match="reading slide 's3'"):
        await router.encoded_slide("demo", "s3", deadline=soon())


def test_shares_of_different_versions_or_with_gaps_are_no_slide(model):
    slide = model.slide_of("s", [(150, 1), (3, 2)])
    newer = model.slide_of("s", [(150, 1), (3, 7)])
    low, high = (slide.part(slide.patches.keys < 100), slide.part(slide.patches.keys >= 100))
    assert joined_slide("demo", "s", [low, None, high]).version == slide.version
    for shares in ([low], [low, newer.part(newer.patches.keys >= 100)], [slide, high]):
        with pytest.raises(Unavailable, match="not whole now"):
            joined_slide("demo", "s", shares)


def columns(code_bytes, dimensions):
    return PatchColumns.of(
        [1, 2], np.zeros((2, code_bytes)), embeddings=np.ones((2, dimensions), np.float16)
    )


BOTH = Collection("both", "f", 64, dimensions=3)
CODES = Collection("codes", "f", 64)
EMBEDDINGS = Collection("features", "f", 0, dimensions=3)
KEYLESS = Collection("keyless", "f", 64, has_keys=False)


@pytest.mark.parametrize(
    ("collection", "code_bytes", "dimensions"), [(BOTH, 8, 3), (CODES, 8, 0), (EMBEDDINGS, 0, 3)]
)
def test_stored_patches_have_exactly_what_the_collection_keeps(collection, code_bytes, dimensions):
    check_patches(collection, columns(code_bytes, dimensions), "f")
    for wrong in [(16, dimensions), (code_bytes, 5)]:
        with pytest.raises(BadMessage, match=f"collection '{collection.name}' holds"):
            check_patches(collection, columns(*wrong), "f")


def query(mode, code_bytes, dimensions):
    return Query(columns(code_bytes, dimensions), "f", SearchSettings(mode))


def test_a_query_needs_only_what_its_mode_compares():
    check_query(BOTH, query(Mode.EXACT, 8, 0))
    check_query(BOTH, query(Mode.AUTO, 8, 0))
    check_query(BOTH, query(Mode.DIRECT, 0, 3))
    check_query(EMBEDDINGS, query(Mode.AUTO, 0, 3))
    with pytest.raises(BadMessage, match="holds embeddings of 3 numbers; found 0"):
        check_query(BOTH, query(Mode.DIRECT, 8, 0))
    with pytest.raises(BadMessage, match="holds codes of 8 bytes; found codes of 0"):
        check_query(BOTH, query(Mode.AUTO, 0, 3))


@pytest.mark.parametrize(
    ("collection", "mode", "said"),
    [
        (CODES, Mode.DIRECT, "keeps no embeddings.*use sish or guided or exact"),
        (EMBEDDINGS, Mode.EXACT, "keeps no codes.*use direct"),
        (KEYLESS, Mode.GUIDED, "has no keys of a key encoder.*use exact"),
        (KEYLESS, Mode.SISH, "has no keys of a key encoder"),
    ],
)
def test_a_mode_the_collection_lacks_is_refused_with_those_it_has(collection, mode, said):
    with pytest.raises(BadRequest, match=said):
        check_query(collection, query(mode, 8, 3))


async def test_auto_names_the_only_mode_a_collection_has(model):
    router, shards = await filled(model, LOW, HIGH)
    for shard in shards.values():
        shard.collections["keyless"] = KEYLESS
    asked = model.query_of([(0, 0)])
    result = await router.search_patches("keyless", asked, allow_partial=False, deadline=soon())
    assert result.mode is Mode.EXACT
    assert "no keys of a key encoder" in result.mode_reason
