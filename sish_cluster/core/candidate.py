"""What a search finds: candidates as columns, and the keys it examined."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from sish_cluster.core.key import Keys
from sish_cluster.core.query import Mode
from sish_cluster.core.slide import Slide


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """The candidates of a whole slide query, one row each, grouped by query patch.

    Parameters
    ----------
    offsets
        int64 (n_query_patches + 1,): rows ``offsets[i]:offsets[i+1]`` belong to query patch i.
    keys
        uint64 (n,): key of each candidate.
    distances
        uint16 (n,): Hamming bits; cosine units of 1/32768 in a DIRECT search.
    slides
        uint32 (n,): index into the answer's ``slides`` table.
    numbers
        uint32 (n,): patch number within the candidate's slide.
    corners
        int32 (n, 2): level-0 pixels.
    """

    offsets: npt.NDArray[np.int64]
    keys: Keys
    distances: npt.NDArray[np.uint16]
    slides: npt.NDArray[np.uint32]
    numbers: npt.NDArray[np.uint32]
    corners: npt.NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def n_query_patches(self) -> int:
        """How many query patches there are, those without candidates included."""
        return len(self.offsets) - 1

    def rows_of(self, patch: int) -> slice:
        """Return the rows of query patch ``patch``."""
        return slice(int(self.offsets[patch]), int(self.offsets[patch + 1]))

    @classmethod
    def empty(cls, n_query_patches: int) -> Candidates:
        """Return no candidates for ``n_query_patches`` patches."""
        return cls(
            np.zeros(n_query_patches + 1, np.int64),
            np.zeros(0, np.uint64),
            np.zeros(0, np.uint16),
            np.zeros(0, np.uint32),
            np.zeros(0, np.uint32),
            np.zeros((0, 2), np.int32),
        )


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Examined:
    """The distinct eligible keys a shard looked at for one slide query, ascending.

    Parameters
    ----------
    keys
        uint64 (m,), strictly ascending.
    counts
        uint32 (m,): eligible postings at each key on this shard.
    """

    keys: Keys
    counts: npt.NDArray[np.uint32]

    @classmethod
    def empty(cls) -> Examined:
        """Return no keys."""
        return cls(np.zeros(0, np.uint64), np.zeros(0, np.uint32))


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class ShardAnswer:
    """One shard's answer to one slide query.

    Parameters
    ----------
    candidates
        Ordered per query patch as the mode says (see `Candidates`). When the query asked for
        mergeable candidates (``wants_examined``), they are a superset the router cuts: per patch,
        every eligible posting within ``max_distance`` at a key the shard examined *for that patch*
        (mode SISH: only the nearest posting of each key), ordered by (distance, slide id, number).
    slides
        The slides candidates refer to.
    examined
        The keys examined, or None when not asked for.
    examined_counts
        int64 (n_query_patches,): postings examined per query patch on this shard.
    eligible
        Eligible postings on this shard.
    label_counts
        Label value -> eligible slides at home here, without the query's patient.
    mode
        The mode that ran.
    """

    candidates: Candidates
    slides: Sequence[Slide]
    examined: Examined | None
    examined_counts: npt.NDArray[np.int64]
    eligible: int
    label_counts: Mapping[str, int]
    mode: Mode
