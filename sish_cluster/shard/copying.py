"""Picking the rows of some ordinals out of a segment, one posting after another, without the GIL."""

# mypy: disable-error-code="no-any-return"

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sish_cluster.shard.compiled import kernel
from sish_cluster.shard.words import byte_at, half_at, put_word


@kernel
def pick_rows(ordinals: int, n_rows: int, flags: int, n_flags: int, picked: int) -> int:
    """Write the rows whose ordinal is flagged to ``picked``, which has room for all; return how many.

    Every row is written where the next pick goes and stays if it is one: no branch to guess.
    """
    n = 0
    for row in range(n_rows):
        ordinal = half_at(ordinals, row)
        put_word(picked, n, row)
        n += byte_at(flags, min(ordinal, n_flags))
    return n


def rows_of(
    ordinals: npt.NDArray[np.uint32], flags: npt.NDArray[np.bool_]
) -> npt.NDArray[np.int64]:
    """Return the ascending rows whose ordinal is flagged; ordinals beyond the flags are not."""
    padded = np.append(flags, False)
    picked: npt.NDArray[np.int64] = np.empty(len(ordinals) + 1, np.int64)
    n = pick_rows(
        ordinals.ctypes.data, len(ordinals), padded.ctypes.data, len(flags), picked.ctypes.data
    )
    return picked[:n].copy()
