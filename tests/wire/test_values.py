"""Values survive the wire, and damaged messages are named."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sish_cluster.core.candidate import Candidates, Examined, ShardAnswer
from sish_cluster.core.collection import Collection, CollectionState
from sish_cluster.core.errors import BadKey, BadMessage, SishError
from sish_cluster.core.key import UNIVERSE
from sish_cluster.core.posting import EncodedSlide, PatchColumns
from sish_cluster.core.query import Filter, Mode, Query, Ranking, SearchSettings
from sish_cluster.core.slide import Slide
from sish_cluster.wire import values
from sish_cluster.wire.answers import AnswerAssembler, answer_parts
from sish_cluster.wire.columns import pack_deltas, unpack_deltas


def _patches(n: int, code_bytes: int = 16, rng_seed: int = 0) -> PatchColumns:
    rng = np.random.default_rng(rng_seed)
    return PatchColumns.of(
        rng.integers(0, UNIVERSE, n),
        rng.integers(0, 256, (n, code_bytes)),
        rng.integers(-(2**31), 2**31, (n, 2)),
    )


def _equal(a: PatchColumns, b: PatchColumns) -> bool:
    return all(
        np.array_equal(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a)
    )


SLIDE = Slide("s1", "p", "lung", "adeno", "A", {"stain": "HE"}, 0.5, 10, 20, 1024, "ab")


@given(st.integers(0, 50))
def test_patches_survive_the_wire(n):
    patches = _patches(n)
    assert _equal(values.unpack_patches(values.pack_patches(patches)), patches)


@pytest.mark.parametrize("field", ["keys", "codes", "corners", "numbers"])
def test_a_column_of_the_wrong_length_is_refused_by_name(field):
    message = values.pack_patches(_patches(3))
    setattr(message, field, getattr(message, field)[:-1])
    with pytest.raises(BadMessage, match=f"patches.{field}: 3 rows"):
        values.unpack_patches(message)


@pytest.mark.parametrize("field", ["keys", "codes", "corners", "numbers"])
def test_one_flipped_bit_is_found_by_the_checksum(field):
    message = values.pack_patches(_patches(3))
    data = bytearray(getattr(message, field))
    data[1] ^= 4
    setattr(message, field, bytes(data))
    with pytest.raises(BadMessage, match="CRC-32C"):
        values.unpack_patches(message)


def test_a_key_beyond_the_universe_is_refused_with_its_bound():
    patches = _patches(2)
    patches.keys[1] = UNIVERSE
    with pytest.raises(BadKey, match=r"patches.keys\[1\] is 1125899906842624"):
        values.unpack_patches(values.pack_patches(patches))


def test_an_unknown_layout_and_a_crooked_code_width_are_refused():
    message = values.pack_patches(_patches(1))
    message.layout_version = 9
    with pytest.raises(BadMessage, match="layout 9"):
        values.unpack_patches(message)
    message = values.pack_patches(_patches(1))
    message.code_bytes = 12
    with pytest.raises(BadMessage, match="multiple of 8; found 12"):
        values.unpack_patches(message)


def test_slides_collections_and_queries_survive_the_wire():
    assert values.unpack_slide(values.pack_slide(SLIDE)) == SLIDE
    collection = Collection("demo", "fp", 1024, 100, "compact")
    assert values.unpack_collection(values.pack_collection(collection)) == collection
    state = CollectionState(collection, 3, 200, 1, {"site": {"lung": 2, "": 1}})
    assert values.unpack_collection_state(values.pack_collection_state(state)) == state
    where = Filter.of(keep={"site": ["lung", "skin"]}, leave_out={"patient": ["p"]})
    settings = SearchSettings(Mode.SISH, 100, 3, 40, 200, 17)
    query = Query(_patches(4), "fp", settings, where, "site", "p")
    back = values.unpack_query(values.pack_query(query))
    assert (back.where, back.settings, back.label_field, back.patient) == (
        where, settings, "site", "p",
    )  # fmt: skip
    assert _equal(back.patches, query.patches)


@pytest.mark.parametrize("ranking", Ranking)
def test_every_ranking_and_mode_has_its_number(ranking):
    assert values.unpack_ranking(values.pack_ranking(ranking)) is ranking
    assert {values.unpack_mode(values.pack_mode(mode)) for mode in Mode} == set(Mode)
    with pytest.raises(BadMessage, match="mode 99"):
        values.unpack_mode(99)


def test_a_large_slide_travels_in_parts_and_is_whole_again():
    encoded = EncodedSlide.whole(SLIDE, _patches(30_000, 128), "fp")
    parts = list(values.slide_parts(encoded))
    assembler = values.SlideAssembler()
    slides = [slide for part in parts if (slide := assembler.add(part))]
    assert len(parts) > 3
    assert len(slides) == 1
    assert _equal(slides[0].patches, encoded.patches)
    assert max(part.ByteSize() for part in parts) < 4 << 20


def test_a_damaged_part_refuses_its_slide_whole_and_the_next_slide_passes():
    bad = list(values.slide_parts(EncodedSlide.whole(SLIDE, _patches(30_000, 128), "fp")))
    bad[0].patches.crc32c ^= 1
    good = EncodedSlide.whole(dataclasses.replace(SLIDE, slide_id="s2"), _patches(5), "fp")
    assembler = values.SlideAssembler()
    with pytest.raises(BadMessage):
        assembler.add(bad[0])
    assert [assembler.add(part) for part in bad[1:]] == [None] * (len(bad) - 1)
    (part,) = values.slide_parts(good)
    assert assembler.add(part).slide.slide_id == "s2"


def test_a_slide_that_was_not_finished_is_refused_by_name():
    parts = list(values.slide_parts(EncodedSlide.whole(SLIDE, _patches(30_000, 128), "fp")))
    other = EncodedSlide.whole(dataclasses.replace(SLIDE, slide_id="s2"), _patches(5), "fp")
    assembler = values.SlideAssembler()
    assembler.add(parts[0])
    with pytest.raises(BadMessage, match="was not finished"):
        assembler.add(next(values.slide_parts(other)))


@given(st.lists(st.integers(0, UNIVERSE - 1), unique=True))
def test_ascending_keys_survive_delta_packing(keys):
    array = np.array(sorted(keys), np.uint64)
    assert np.array_equal(unpack_deltas(*pack_deltas(array), count=len(array)), array)


def test_deltas_that_disagree_with_their_lengths_are_refused():
    lengths, deltas = pack_deltas(np.array([1, 70_000], np.uint64))
    with pytest.raises(BadMessage, match="lengths add up"):
        unpack_deltas(lengths, deltas + b"x", count=2)


def _answer(rows: int, keys: int) -> ShardAnswer:
    rng = np.random.default_rng(1)
    counts = rng.multinomial(rows, [0.2, 0.0, 0.8])
    candidates = Candidates(
        np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        rng.integers(0, UNIVERSE, rows).astype(np.uint64),
        rng.integers(0, 128, rows).astype(np.uint16),
        rng.integers(0, 2, rows).astype(np.uint32),
        rng.integers(0, 99, rows).astype(np.uint32),
        rng.integers(-9, 9, (rows, 2)).astype(np.int32),
    )
    examined = Examined(
        np.unique(rng.integers(0, UNIVERSE, keys)).astype(np.uint64), np.ones(keys, np.uint32)
    )
    slides = [SLIDE, dataclasses.replace(SLIDE, slide_id="s2")]
    return ShardAnswer(candidates, slides, examined, np.array([1, 2, 3]), 77, {"a": 2}, Mode.SISH)


@pytest.mark.parametrize(("rows", "keys"), [(0, 0), (5, 3), (100_000, 200_000)])
def test_an_answer_of_any_size_survives_the_wire(rows, keys):
    answer, assembler = _answer(rows, keys), AnswerAssembler()
    for part in answer_parts(answer):
        assert part.ByteSize() < 4 << 20
        assembler.add(part)
    back = assembler.answer(3)
    for field in dataclasses.fields(Candidates):
        assert np.array_equal(
            getattr(back.candidates, field.name), getattr(answer.candidates, field.name)
        )
    assert np.array_equal(back.examined.keys, answer.examined.keys)
    assert (back.mode, back.eligible, back.label_counts) == (Mode.SISH, 77, {"a": 2})
    assert back.examined_counts.tolist() == [1, 2, 3]


def test_an_answer_that_lost_a_part_is_refused():
    parts = list(answer_parts(_answer(5, 3)))
    lost = [part for part in parts if part.WhichOneof("part") != "candidates"]
    assembler = AnswerAssembler()
    for part in lost:
        assembler.add(part)
    with pytest.raises(SishError, match="5 candidates were announced; 0 came"):
        assembler.answer(3)
