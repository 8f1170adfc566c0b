"""Who is like whom in SSLP: spatial neighbours, their kind elsewhere, and negatives worth the trouble.

*Neighbours* (S) lie on the same slide, nearer than three grid steps: tissue changes slowly. *Kin* (U) are the
patches anywhere that are nearest, in the memory bank, to the anchor or to its most similar neighbour and
that all k-means runs put into its cluster. *Negatives* are everything else, but only the most similar fifth of
it, drawn by rank from a Beta distribution: the hardest are likely mistakes, the easy ones teach nothing.

Source
------
SSLP, "Intra-image invariance", "Inter-image invariance" and "Hard negative mining".
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from scipy.spatial import cKDTree  # type: ignore[import-untyped]

from sish_cluster.core.errors import BadRequest
from sish_cluster.encoder.training.memory_bank import MemoryBank

Places = npt.NDArray[np.float64]
"""Where patches lie on their slides, (n, 2) in patch sides (column, row); NaN where nobody knows."""


class Neighbours:
    """The spatial neighbours of every patch, found once.

    Parameters
    ----------
    slides
        int64 (n,): number of each patch's slide.
    places
        float64 (n, 2), patch sides.
    reach
        Grid distance below which two patches of a slide are neighbours (published: 3).
    """

    def __init__(self, slides: npt.NDArray[np.int64], places: Places, *, reach: float) -> None:
        if len(slides) != len(places):
            raise BadRequest(
                f"each patch has a slide and a place; got {len(slides)} slides and {len(places)}"
                " places"
            )
        found: list[npt.NDArray[np.int64]] = [np.empty(0, np.int64)] * len(slides)
        for slide in np.unique(slides):
            rows = np.flatnonzero(slides == slide)
            for row, near in zip(rows.tolist(), _near(places[rows], reach), strict=True):
                found[row] = rows[near]
        widest = max((len(near) for near in found), default=0)
        self._rows = np.full((len(slides), widest), -1, np.int64)
        for number, near in enumerate(found):
            self._rows[number, : len(near)] = near

    @property
    def share(self) -> float:
        """Share of patches that have at least one."""
        return float((self._rows >= 0).any(axis=1).mean())

    def of(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return the neighbours (b, k) of patches (b,), ascending, -1 where there are no more."""
        return self._rows[rows]


def _near(places: Places, reach: float) -> list[npt.NDArray[np.int64]]:
    """Return, for each place of one slide, the others at ``0 < distance < reach``."""
    is_known = np.isfinite(places).all(axis=1)
    known = np.flatnonzero(is_known)
    near: list[npt.NDArray[np.int64]] = [np.empty(0, np.int64)] * len(places)
    if not len(known):
        return near
    tree = cKDTree(places[known])
    for row, others in zip(known, tree.query_ball_point(places[known], reach), strict=True):
        others = known[np.sort(np.asarray(others, np.int64))]
        distances = np.hypot(*(places[others] - places[row]).T)
        near[row] = others[(distances > 0) & (distances < reach)]
    return near


def kin_of(
    bank: MemoryBank, rows: torch.Tensor, neighbours: torch.Tensor, *, nearest: int
) -> torch.Tensor:
    """Return which patches of the bank are kin of each anchor, bool (b, N).

    Parameters
    ----------
    bank
        Embeddings and clusters of all patches.
    rows
        int64 (b,): the anchors.
    neighbours
        int64 (b, k): their spatial neighbours, -1 where there are no more.
    nearest
        How many of the bank's nearest are looked at, for the anchor and for its most similar neighbour
        each (published: 4096).

    Notes
    -----
    The anchor itself is not its kin: that is the self term.
    """
    kin = _alike(bank, rows, nearest)
    if neighbours.shape[1]:
        similar = torch.einsum(
            "bd,bkd->bk", bank.embeddings[rows], bank.embeddings[neighbours.clamp(min=0)]
        ).masked_fill(neighbours < 0, -math.inf)
        most_similar = neighbours.gather(1, similar.argmax(dim=1, keepdim=True))[:, 0]
        has_neighbours = (neighbours >= 0).any(dim=1)
        kin |= _alike(bank, most_similar.clamp(min=0), nearest) & has_neighbours[:, None]
    return kin.scatter_(1, rows[:, None], False)


def _alike(bank: MemoryBank, rows: torch.Tensor, nearest: int) -> torch.Tensor:
    """Return which of each row's nearest patches share its cluster in every run, bool (b, N)."""
    similar = bank.embeddings[rows] @ bank.embeddings.t()
    near = similar.topk(min(nearest, len(bank)), dim=1).indices
    alike = torch.zeros_like(similar, dtype=torch.bool)
    return alike.scatter_(1, near, bank.agree(rows, near))


def drawn_negatives(
    similarities: torch.Tensor,
    is_excluded: torch.Tensor,
    *,
    share: float,
    count: int,
    generator: torch.Generator,
    beta: tuple[float, float] = (5.0, 15.0),
) -> torch.Tensor:
    """Return the rows of negatives, int64 (b, count).

    Parameters
    ----------
    similarities
        (b, N): of each anchor with the whole bank.
    is_excluded
        bool (b, N): the anchor itself, its neighbours and its kin.
    share
        Share of the bank, most similar first, that is drawn from (published: 0.2).
    count
        Draws per anchor, with repetition.
    generator
        On the CPU.
    beta
        Parameters of the distribution of ranks within that share, 0 the most similar (published: 5, 15).

    Raises
    ------
    BadRequest
        If an anchor has no negatives at all.
    """
    left = (~is_excluded).sum(dim=1)
    if int(left.min()) < 1:
        raise BadRequest(
            f"a patch has no negatives: all {similarities.shape[1]} patches are itself, its"
            " neighbours or its kin; train on more slides"
        )
    pool = max(1, math.ceil(share * similarities.shape[1]))
    hardest = similarities.masked_fill(is_excluded, -math.inf).topk(pool, dim=1).indices
    sizes = left.clamp(max=pool)[:, None]
    drawn = torch.from_numpy(_generator_of(generator).beta(*beta, (len(sizes), count)))
    ranks = (drawn.to(sizes.device) * sizes).long()
    return hardest.gather(1, ranks.clamp(max=sizes - 1))


def _generator_of(generator: torch.Generator) -> np.random.Generator:
    """Return numpy's generator, seeded by torch's: torch draws no Beta from a given generator."""
    seed = int(torch.randint(2**62, (), generator=generator))
    return np.random.Generator(np.random.Philox(seed))
