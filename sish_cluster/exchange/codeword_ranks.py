"""The semantic order of codewords as a plain file: 128 ranks, as JSON or ``.npy``.

The published order is a torch file; ``sish import`` reads that through the encoder's own reader where it is
installed.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sish_cluster.core.errors import BadFile
from sish_cluster.core.key import CODEBOOK_SIZE

Ranks = npt.NDArray[np.int64]
"""Rank of each codeword, shape (128,), a permutation of 0..127."""


def read_codeword_ranks(path: Path) -> Ranks:
    """Return the ranks in a JSON file (a list, or a mapping codeword -> rank) or an ``.npy`` array.

    Raises
    ------
    BadFile
        If the file cannot be read or does not give each codeword a rank of its own.
    """
    try:
        found = _npy(path) if path.suffix.lower() == ".npy" else _json(path)
    except (OSError, ValueError, TypeError, KeyError, MemoryError) as error:
        raise BadFile(
            f"{path}: is no codeword order ({error}): give JSON or .npy with the rank of each of"
            f" {CODEBOOK_SIZE} codewords"
        ) from error
    return checked_codeword_ranks(found, source=str(path))


def _npy(path: Path) -> npt.NDArray[np.generic]:
    return np.asarray(np.load(path, allow_pickle=False))


def _json(path: Path) -> npt.NDArray[np.generic]:
    found = json.loads(path.read_text())
    if isinstance(found, dict):
        found = [found[str(codeword)] for codeword in range(len(found))]
    return np.asarray(found)


def checked_codeword_ranks(ranks: npt.NDArray[np.generic], *, source: str) -> Ranks:
    """Return ranks as int64 (128,), or raise `BadFile` unless they are a permutation of 0..127."""
    whole = np.issubdtype(ranks.dtype, np.integer)
    if not whole or not np.array_equal(np.sort(ranks.ravel()), np.arange(CODEBOOK_SIZE)):
        raise BadFile(
            f"{source}: found {ranks.size} values of type {ranks.dtype}, expected each rank"
            f" 0..{CODEBOOK_SIZE - 1} once: give the order the codebook was published with"
        )
    return ranks.ravel().astype(np.int64)
