"""Embeddings: a patch's float vector, kept as half precision, and how far apart two of them are.

The direct search compares embeddings by cosine. So that every mode speaks of one *distance* (an integer,
smaller is nearer, 16 bits on the wire), a cosine becomes a whole number of units of 1/32768: equal
numbers on every shard and every processor, ties broken as everywhere else.

Source
------
RetCCL, "Search": patches with cosine of at least 0.7 to the query patch.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sish_cluster.core.errors import BadMessage

Embeddings = npt.NDArray[np.float16]
"""Embeddings, float16 (n, dimensions); dimensions 0 where a collection keeps none."""

COSINE_UNITS = 32768
"""Units of a cosine distance: distance = round((1 - cosine) * 32768), 0 (equal) .. 65535 (opposite)."""

MAX_DISTANCE_UNITS = (1 << 16) - 1
"""Largest distance that fits the wire's 16 bits; a cosine of -1 is one unit short of it."""

MAX_DIMENSIONS = 1 << 14
"""Most dimensions of an embedding: four times the widest networks in use."""


def distance_of(cosine: npt.ArrayLike) -> npt.NDArray[np.uint16]:
    """Return cosines as distances in units of 1/32768.

    Parameters
    ----------
    cosine
        Any shape, -1..1; rounding beyond either end is cut off.

    Examples
    --------
    >>> distance_of([1.0, 0.7, 0.0, -1.0]).tolist()
    [0, 9830, 32768, 65535]
    """
    units = np.rint((1.0 - np.asarray(cosine, dtype=np.float64)) * COSINE_UNITS)
    return np.clip(units, 0, MAX_DISTANCE_UNITS).astype(np.uint16)


def cosine_of(distance: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return the cosines of distances in units of 1/32768, float64.

    Examples
    --------
    >>> cosine_of([0, 32768]).tolist()
    [1.0, 0.0]
    """
    return 1.0 - np.asarray(distance, dtype=np.float64) / COSINE_UNITS


def no_embeddings(n: int) -> Embeddings:
    """Return the column of ``n`` patches that have no embedding: float16 (n, 0)."""
    return np.zeros((n, 0), np.float16)


def checked_embeddings(embeddings: npt.ArrayLike, *, n: int) -> Embeddings:
    """Return embeddings as a contiguous float16 array (n, dimensions).

    Raises
    ------
    BadMessage
        If the shape is wrong, a number is not finite in half precision, or a row is all zero (it has no
        direction, so no cosine); the message names the first such row.
    """
    with np.errstate(over="ignore"):
        column = np.ascontiguousarray(embeddings, dtype=np.float16)
    if column.ndim != 2 or len(column) != n or column.shape[1] > MAX_DIMENSIONS:
        raise BadMessage(
            f"embeddings are one row of at most {MAX_DIMENSIONS} numbers for each of {n} patches;"
            f" found shape {column.shape}",
            field="patches.embeddings",
        )
    if column.shape[1]:
        _check_rows(column)
    return column


def _check_rows(column: Embeddings) -> None:
    for problem, is_bad in (
        (
            "holds a number that is not finite in half precision (largest 65504)",
            ~np.isfinite(column).all(axis=1),
        ),
        ("is all zero, so it has no direction", ~column.any(axis=1)),
    ):
        if is_bad.any():
            raise BadMessage(
                f"the embedding of patch row {int(np.argmax(is_bad))} {problem}:"
                " leave the patch out, or scale the embeddings",
                field="patches.embeddings",
            )
