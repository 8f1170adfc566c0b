"""The texture code's test vector, packing and distances."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sish_cluster.core.code import code_bytes_of, codes_of, distances_between, unpacked
from sish_cluster.core.errors import BadMessage

embeddings = st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=200)


def test_the_published_vector_3_1_1_2_gives_0011():
    bits = unpacked(codes_of(np.array([[3, 1, 1, 2]], np.float32)), code_bits=4)
    assert "".join(map(str, bits[0])) == "0011"


@given(embeddings)
def test_a_bit_is_zero_exactly_where_the_embedding_falls(values):
    bits = unpacked(codes_of(np.array([values], np.float32)), code_bits=len(values))[0]
    before = float("inf")
    for bit, value in zip(bits, np.array(values, np.float32), strict=True):
        assert bit == (0 if value < before else 1)
        before = value


@given(embeddings)
def test_pad_bits_are_zero_and_codes_are_whole_words(values):
    code = codes_of(np.array([values], np.float32))
    assert code.shape == (1, code_bytes_of(len(values)))
    assert code.shape[1] % 8 == 0
    assert not np.unpackbits(code, axis=1)[0, len(values) :].any()


def test_distances_count_differing_bits():
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 256, (50, 128), dtype=np.uint8)
    expected = [np.unpackbits(codes[0] ^ code).sum() for code in codes]
    assert distances_between(codes[0], codes).tolist() == expected


def test_a_code_has_at_least_one_bit():
    with pytest.raises(BadMessage, match="at least 1 bit; found 0"):
        code_bytes_of(0)
