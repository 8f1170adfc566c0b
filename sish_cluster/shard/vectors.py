"""Vectors: the embeddings of a collection's slides in memory, by ordinal.

Each slide's embeddings are one block of halves, as they were ingested, with one single per row beside them
(one over its length). Blocks never change and are never moved, so any number of readers may share them
without a lock; a block goes when the last view that could see its slide is gone. Memory: 2 bytes times
the dimensions (rounded up to 16) plus 4 bytes a posting, and some 200 bytes a slide.

A search by embedding reads all of it, so it is kept in memory like codes, and read from the store when
the shard opens: LMDB lends its pages only as long as a reader keeps them from being used again, and moves
them when the store grows; a checkpoint would write every embedding to the disk a second time and save
neither the reading nor the check.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from sish_cluster.core.embedding import Embeddings
from sish_cluster.shard.ledger import Column
from sish_cluster.shard.vectors_kernels import measure
from sish_cluster.shard.vectors_lanes import LANES
from sish_cluster.shard.words import aligned_empty


def width_of(dimensions: int) -> int:
    """Return the numbers a row takes: whole vectors, the rest zeros, which change no cosine.

    Examples
    --------
    >>> width_of(1000), width_of(1024)
    (1008, 1024)
    """
    return -(-dimensions // LANES) * LANES


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class SlideVectors:
    """One slide's embeddings.

    Parameters
    ----------
    rows
        float16 (n, width), zeros beyond the dimensions; row i is the slide's i-th posting here in the
        order of patch numbers.
    factors
        float32 (n,): one over each row's length.
    """

    rows: npt.NDArray[np.float16]
    factors: npt.NDArray[np.float32]

    @classmethod
    def room(cls, n: int, dimensions: int) -> SlideVectors:
        """Return room for ``n`` rows to be written, then `measured`."""
        width = width_of(dimensions)
        rows = aligned_empty((n, width), np.float16)
        rows[:, dimensions:] = 0
        return cls(rows, np.empty(n, np.float32))

    @classmethod
    def of(cls, embeddings: Embeddings) -> SlideVectors:
        """Return a copy of a slide's embeddings."""
        made = cls.room(*embeddings.shape)
        made.rows[:, : embeddings.shape[1]] = embeddings
        return made.measured()

    def measured(self) -> SlideVectors:
        """Write the factors of the rows and return this."""
        n, width = self.rows.shape
        measure(self.rows.ctypes.data, n, width, self.factors.ctypes.data)
        return self

    @property
    def memory_bytes(self) -> int:
        """Bytes of rows and factors."""
        return self.rows.nbytes + self.factors.nbytes


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class VectorsView:
    """The vectors of one moment, columns by ordinal; 0 rows, or none at the end, where one has none.

    Whoever uses the addresses holds the `held.View` this belongs to, which keeps the blocks.

    Parameters
    ----------
    dimensions
        Numbers of an embedding; 0 where the collection has none.
    rows, factors
        int64 (n,): addresses of each slide's rows and factors.
    counts
        int64 (n,): rows of each slide.
    """

    dimensions: int
    rows: npt.NDArray[np.int64]
    factors: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]


class Vectors:
    """Every slide's vectors of one collection; changed by the writer's thread only.

    Parameters
    ----------
    dimensions
        Numbers of an embedding; 0 where the collection keeps none.
    """

    def __init__(self, dimensions: int) -> None:
        self.dimensions = dimensions
        self._blocks: list[SlideVectors | None] = []
        self._rows = Column(np.int64)
        self._factors = Column(np.int64)
        self._counts = Column(np.int64)

    @property
    def memory_bytes(self) -> int:
        """Bytes of all blocks held."""
        return sum(block.memory_bytes for block in self._blocks if block is not None)

    def put(self, ordinal: int, block: SlideVectors) -> None:
        """Keep a slide's vectors under its ordinal, which had none."""
        if not len(block.rows):
            return
        self._blocks += [None] * (ordinal + 1 - len(self._blocks))
        self._blocks[ordinal] = block
        self._rows.put(ordinal, block.rows.ctypes.data)
        self._factors.put(ordinal, block.factors.ctypes.data)
        self._counts.put(ordinal, len(block.rows))

    def release(self, ordinal: int) -> None:
        """Let go of an ordinal's block, once no view can see its slide."""
        if ordinal < len(self._blocks):
            self._blocks[ordinal] = None

    def view(self, n_ordinals: int) -> VectorsView:
        """Return the vectors of the first ``n_ordinals`` ordinals; O(1)."""
        columns = (self._rows, self._factors, self._counts)
        n = min(n_ordinals, len(self._blocks))
        heads = [np.asarray(column.head(n), np.int64) for column in columns]
        return VectorsView(self.dimensions, *heads)
