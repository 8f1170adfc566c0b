"""How many threads a training computes with: the command line asks here, because it knows no torch."""

from __future__ import annotations

import torch


def use_threads(count: int) -> None:
    """Let torch compute with ``count`` >= 1 threads from now on.

    Notes
    -----
    A resumed training repeats to the bit only with as many threads: several add in an order of their own.
    """
    torch.set_num_threads(count)
