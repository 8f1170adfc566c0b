"""Texture codes: the signs of successive differences of an embedding, packed eight to a byte.

Source
------
SISH, "Texture features": bit i is 0 where the embedding falls from i-1 to i, else 1; barcodes after
Tizhoosh's MinMax barcodes.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sish_cluster.core.errors import BadMessage

PUBLISHED_CODE_BITS = 1024
"""Bits of a published texture code (DenseNet-121)."""

WORD_BYTES = 8
"""Codes are padded to whole 64-bit words so that kernels compare words."""

Codes = npt.NDArray[np.uint8]
"""Packed codes, shape (n, code_bytes), most significant bit first; pad bits are 0."""


def code_bytes_of(code_bits: int) -> int:
    """Return the bytes of a packed code: whole 64-bit words.

    Examples
    --------
    >>> code_bytes_of(1024), code_bytes_of(1280), code_bytes_of(1)
    (128, 160, 8)
    """
    if code_bits < 1:
        raise BadMessage(f"a code has at least 1 bit; found {code_bits}")
    return -(-code_bits // (8 * WORD_BYTES)) * WORD_BYTES


def codes_of(embeddings: npt.NDArray[np.floating]) -> Codes:
    """Return the packed texture codes of embeddings.

    Parameters
    ----------
    embeddings
        Shape (n, code_bits), float. Bit i is 0 where ``v[i] < v[i-1]``, else 1; ``v[-1]`` is
        +infinity, so bit 0 is 0 and ties give 1.

    Returns
    -------
    Codes
        Shape (n, code_bytes_of(code_bits)).

    Examples
    --------
    >>> unpacked(codes_of(np.array([[3.0, 1.0, 1.0, 2.0]])), code_bits=4).tolist()
    [[0, 0, 1, 1]]
    """
    values = np.asarray(embeddings)
    bits = np.zeros(values.shape, dtype=np.uint8)
    bits[:, 1:] = ~(values[:, 1:] < values[:, :-1])
    return packed(bits)


def packed(bits: npt.NDArray[np.integer]) -> Codes:
    """Return bits (n, code_bits) of 0 and 1 packed into (n, code_bytes)."""
    codes = np.zeros((len(bits), code_bytes_of(bits.shape[1])), dtype=np.uint8)
    dense = np.packbits(bits.astype(np.uint8), axis=1)
    codes[:, : dense.shape[1]] = dense
    return codes


def unpacked(codes: Codes, *, code_bits: int) -> npt.NDArray[np.uint8]:
    """Return packed codes as bits, shape (n, code_bits), values 0 and 1."""
    return np.unpackbits(codes, axis=1, count=code_bits)


def distances_between(code: Codes, codes: Codes) -> npt.NDArray[np.int64]:
    """Return the Hamming distances, in bits, of one code (code_bytes,) to codes (n, code_bytes)."""
    differing = np.bitwise_xor(codes.view(np.uint64), np.ascontiguousarray(code).view(np.uint64))
    return np.asarray(np.bitwise_count(differing).sum(axis=1, dtype=np.int64))
