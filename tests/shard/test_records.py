"""Records: what is sealed opens unchanged, and nothing else does."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sish_cluster.core.errors import Corrupt
from sish_cluster.core.seams import SlideState
from sish_cluster.core.slide import Slide
from sish_cluster.shard import records
from sish_cluster.shard.records import Kind, SlideRecord, Totals

ADDRESS = records.chunk_address(1, 7, 0)


@given(st.binary(max_size=200), st.data())
def test_any_flipped_bit_of_a_record_is_found(payload, data):
    record = bytearray(records.sealed(Kind.KEYS, ADDRESS, payload))
    assert bytes(records.opened(Kind.KEYS, ADDRESS, record)) == payload
    bit = data.draw(st.integers(0, 8 * len(record) - 1))
    if bit // 8 in (2, 3):
        return  # the frame's two unused bytes say nothing
    record[bit // 8] ^= 1 << bit % 8
    with pytest.raises(Corrupt):
        records.opened(Kind.KEYS, ADDRESS, record)


def test_a_record_under_another_address_or_of_another_kind_is_refused():
    record = records.sealed(Kind.KEYS, ADDRESS, b"12345678")
    with pytest.raises(Corrupt, match="does not match its CRC"):
        records.opened(Kind.KEYS, records.chunk_address(1, 8, 0), record)
    with pytest.raises(Corrupt, match="kind 4"):
        records.opened(Kind.BLOB, ADDRESS, record)
    with pytest.raises(Corrupt, match="shorter than its frame"):
        records.opened(Kind.KEYS, ADDRESS, record[:5])


labels = st.dictionaries(st.text(min_size=1).filter(lambda name: name[0] == "x"), st.text())
slides = st.builds(
    Slide,
    slide_id=st.text(min_size=1),
    patient=st.text(),
    labels=labels,
    mpp=st.floats(0, 10),
    width_px=st.integers(0, 2**31),
)


@given(slides, st.sampled_from(SlideState), st.booleans(), st.integers(0, 2**20))
def test_a_header_comes_back_as_it_was(slide, state, is_home, postings):
    header = SlideRecord(slide, "v", "f", state, is_home, "home", 12.5, postings)
    address = records.slide_address(3, 4)
    record = records.sealed(Kind.SLIDE, address, records.slide_payload(header))
    assert records.slide_record_of(address, record) == header


def test_a_header_that_makes_no_sense_is_damage_even_with_a_matching_checksum():
    address = records.slide_address(3, 4)
    record = records.sealed(Kind.SLIDE, address, b'{"slide": 5}')
    with pytest.raises(Corrupt, match="cannot be understood"):
        records.slide_record_of(address, record)


def test_full_chunks_fill_sixteen_overflow_pages_and_no_more():
    for code_bytes in (16, 128, 160, 256):
        rows = records.chunk_rows_of(code_bytes)
        value = rows * (code_bytes + records.ROW_EXTRA_BYTES) + 12
        assert 15 * 4096 < value + 16 <= 16 * 4096
        assert records.chunks_of(rows, code_bytes) == 1
        assert records.chunks_of(rows + 1, code_bytes) == 2
    assert records.chunks_of(0, 128) == 0


def test_totals_come_back_as_they_were():
    record = records.sealed(Kind.TOTALS, b"1", records.totals_payload(Totals(5, 2**40)))
    assert records.totals_of(b"1", record) == Totals(5, 2**40)
