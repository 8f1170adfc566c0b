"""Which patches a step sees, and how fast it learns: pure functions of the step and the seed.

A pass shows every patch once, in an order of its own; what does not fill a last batch waits for another
pass. Nothing here is remembered, so a training resumed at any step goes on with the same patches.
"""

from __future__ import annotations

import dataclasses
import functools
import math

import numpy as np
import numpy.typing as npt
import torch

from sish_cluster.core.errors import BadRequest


@dataclasses.dataclass(frozen=True)
class Passes:
    """Passes over a training set.

    Parameters
    ----------
    count
        Patches (or slides) in the set.
    batch
        Of them per step, 1..count.
    rng_seed
        Decides the order of every pass.
    """

    count: int
    batch: int
    rng_seed: int

    def __post_init__(self) -> None:
        if not 1 <= self.batch <= self.count:
            raise BadRequest(
                f"a batch takes 1..{self.count} of the {self.count} examples; got {self.batch}:"
                " choose a smaller batch or give more data",
                field="batch",
            )

    @property
    def steps(self) -> int:
        """Steps of one pass."""
        return self.count // self.batch

    def number_at(self, step: int) -> int:
        """Return the pass that a step belongs to, the first is 0."""
        return step // self.steps

    def rows_at(self, step: int) -> npt.NDArray[np.int64]:
        """Return the rows (batch,) that a step sees.

        Examples
        --------
        >>> passes = Passes(7, 3, rng_seed=0)
        >>> len(set(passes.rows_at(0)) | set(passes.rows_at(1))), passes.number_at(2)
        (6, 1)
        """
        number, place = divmod(step, self.steps)
        order = _order(self.count, self.rng_seed, number)
        return order[place * self.batch : (place + 1) * self.batch]


@functools.lru_cache(maxsize=4)
def _order(count: int, rng_seed: int, number: int) -> npt.NDArray[np.int64]:
    rng = np.random.Generator(np.random.Philox(key=[rng_seed, number]))
    return rng.permutation(count)


def generator_at(rng_seed: int, purpose: str, number: int) -> torch.Generator:
    """Return a generator that depends on nothing but the seed, a purpose and a step or pass."""
    words = np.frombuffer(purpose.encode().ljust(8)[:8], np.uint32)
    state = np.random.SeedSequence([rng_seed, number, *map(int, words)]).generate_state(
        1, np.uint64
    )
    return torch.Generator().manual_seed(int(state[0] >> np.uint64(1)))


def cosine_rate(step: int, n_steps: int, *, base: float, warmup: int = 0) -> float:
    """Return the learning rate of a step: a straight rise, then half a cosine down to 0.

    Parameters
    ----------
    step
        From 0.
    n_steps
        Steps in all.
    base
        Highest rate.
    warmup
        Steps of the rise.

    Examples
    --------
    >>> [round(cosine_rate(s, 4, base=1.0), 3) for s in range(4)]
    [1.0, 0.854, 0.5, 0.146]
    """
    if step < warmup:
        return base * (step + 1) / warmup
    share = (step - warmup) / max(1, n_steps - warmup)
    return base * 0.5 * (1.0 + math.cos(math.pi * min(1.0, share)))


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every group of parameters a learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate
