"""Copying codes into a segment: from packed codes or from other segments, in any order, without the GIL."""

# mypy: disable-error-code="no-any-return"

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sish_cluster.shard.compiled import inner, kernel
from sish_cluster.shard.layout import HEAD, LANES
from sish_cluster.shard.words import aligned_empty, prefetch, put_word, word_at

(
    _N,
    _ROWS,
    _PLACES,
    _HEADS,
    _LANES,
    _HEAD_STRIDE,
    _N_HEAD,
    _TAILS,
    _TAIL_STRIDE,
    _N_TAIL,
    _HEADS_OUT,
    _TAILS_OUT,
    _N_JOB,
) = range(13)
"""Words of a copying job. Addresses (0 for "in order"): the source rows, their places; the source's heads
and tails; the target's. The others: rows, interleaved rows, words per row, words to copy."""

_AHEAD = 8
"""Rows ahead of the present one that are prefetched: they may lie anywhere in memory."""

Words = npt.NDArray[np.int64]


@inner
def index_at(address: int, i: int) -> int:
    """Return index number i of a list of indices, or i when there is no list."""
    return word_at(address, i) if address else i


@inner
def head_word(base: int, lanes: int, stride: int, row: int) -> int:
    """Return the address of a row's first head word; the next ones are ``lanes`` words apart."""
    return base + 8 * ((row // lanes) * lanes * stride + row % lanes)


@kernel
def copy_codes(job: int) -> None:
    """Copy the codes of a job's rows to their places."""
    lanes, stride = word_at(job, _LANES), word_at(job, _HEAD_STRIDE)
    n_head, n_tail = word_at(job, _N_HEAD), word_at(job, _N_TAIL)
    n = word_at(job, _N)
    for i in range(n):
        if i + _AHEAD < n:
            ahead = index_at(word_at(job, _ROWS), i + _AHEAD)
            prefetch(head_word(word_at(job, _HEADS), lanes, stride, ahead))
            prefetch(word_at(job, _TAILS) + 8 * word_at(job, _TAIL_STRIDE) * ahead)
        row, place = index_at(word_at(job, _ROWS), i), index_at(word_at(job, _PLACES), i)
        source = head_word(word_at(job, _HEADS), lanes, stride, row)
        target = head_word(word_at(job, _HEADS_OUT), LANES, HEAD, place)
        for w in range(n_head):
            put_word(target, LANES * w, word_at(source, lanes * w))
        source = word_at(job, _TAILS) + 8 * word_at(job, _TAIL_STRIDE) * row
        target = word_at(job, _TAILS_OUT) + 8 * n_tail * place
        for w in range(n_tail):
            put_word(target, w, word_at(source, w))


def _address(indices: Words | None) -> int:
    return 0 if indices is None else int(indices.ctypes.data)


def empty_heads(n: int) -> Words:
    """Return room for the heads of n rows; rows that pad the last four are 0."""
    heads: Words = aligned_empty((-(-n // LANES), HEAD, LANES), np.int64)
    heads[-1:] = 0
    return heads


class CodeColumns:
    """The codes of a segment to be: heads of four rows interleaved, and tails.

    Parameters
    ----------
    n
        Rows.
    n_words
        Words of a code.
    """

    def __init__(self, n: int, n_words: int) -> None:
        self.heads: Words = empty_heads(n)
        self.tails: Words = aligned_empty((n, max(n_words - HEAD, 0)), np.int64)
        if n_words < HEAD:
            self.heads[:] = 0

    def take_packed(self, words: Words, order: Words | None) -> None:
        """Take codes (n, n_words), contiguous, in ``order``."""
        n, n_words = words.shape
        self._copy(
            {
                _N: n,
                _ROWS: _address(order),
                _HEADS: words.ctypes.data,
                _LANES: 1,
                _HEAD_STRIDE: n_words,
                _N_HEAD: min(HEAD, n_words),
                _TAILS: words.ctypes.data + 8 * HEAD,
                _TAIL_STRIDE: n_words,
            }
        )

    def take_segment(self, heads: Words, tails: Words, rows: Words | None, places: Words) -> None:
        """Take ``rows`` of a segment's codes (None for all) to ``places``."""
        self._copy(
            {
                _N: len(places),
                _ROWS: _address(rows),
                _PLACES: _address(places),
                _HEADS: heads.ctypes.data,
                _LANES: LANES,
                _HEAD_STRIDE: HEAD,
                _N_HEAD: HEAD,
                _TAILS: tails.ctypes.data,
                _TAIL_STRIDE: tails.shape[1],
            }
        )

    def _copy(self, fields: dict[int, int]) -> None:
        job = np.zeros(_N_JOB, np.int64)
        for name, value in fields.items():
            job[name] = value
        job[_N_TAIL] = self.tails.shape[1]
        job[_HEADS_OUT], job[_TAILS_OUT] = self.heads.ctypes.data, self.tails.ctypes.data
        copy_codes(job.ctypes.data)
