"""The workers of one training, as the loop and the tasks see them: shares, sums, and what all must know.

Every worker runs the same loop on its share of each batch. What is the same on all of them stays so
because it is computed from sums and from gathered rows, never from one worker's share alone: parameters
follow averaged gradients, and memories and queues take in the embeddings of all workers in the order of
the batch. A training alone is a team of one, whose sums are its own.

Source
------
Ours; gradients are averaged over the workers as in data-parallel SGD.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from sish_cluster.core.errors import BadRequest


class Team(Protocol):
    """Who trains together. Every worker calls the same methods in the same order."""

    @property
    def rank(self) -> int:
        """Number of this worker, from 0; worker 0 writes the run's files."""

    @property
    def size(self) -> int:
        """Workers in all."""

    def summed(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the sum of the workers' tensors of one shape."""

    def gathered(self, rows: torch.Tensor) -> torch.Tensor:
        """Return the workers' rows (n, ...) one behind the other, (size * n, ...), worker 0's first."""

    def from_first(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return worker 0's tensor, whatever the others pass in its shape."""


class Alone:
    """A team of one."""

    rank = 0
    size = 1

    def summed(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the tensor."""
        return tensor

    def gathered(self, rows: torch.Tensor) -> torch.Tensor:
        """Return the rows."""
        return rows

    def from_first(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the tensor."""
        return tensor


ALONE = Alone()
"""The team of a training that no other worker takes part in."""


class ProcessTeam:
    """The processes of torch's default process group, which must be up.

    Notes
    -----
    ``gloo`` sums on the CPU: tensors of a GPU go there and back. It is for CPUs, and for workers that share
    a GPU, which ``nccl`` refuses.
    """

    def __init__(self) -> None:
        self.rank = torch.distributed.get_rank()
        self.size = torch.distributed.get_world_size()
        self._is_on_cpu = torch.distributed.get_backend() == "gloo"

    def summed(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the sum over the workers, the same bits on all of them."""
        total = self._sent(tensor).clone()
        torch.distributed.all_reduce(total)
        return total.to(tensor.device)

    def gathered(self, rows: torch.Tensor) -> torch.Tensor:
        """Return the rows of all workers, worker 0's first."""
        sent = self._sent(rows)
        parts = [torch.empty_like(sent) for _ in range(self.size)]
        torch.distributed.all_gather(parts, sent)
        return torch.cat(parts).to(rows.device)

    def from_first(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return worker 0's tensor."""
        sent = self._sent(tensor).clone()
        torch.distributed.broadcast(sent, src=0)
        return sent.to(tensor.device)

    def _sent(self, tensor: torch.Tensor) -> torch.Tensor:
        tensor = tensor.detach().contiguous()
        return tensor.cpu() if self._is_on_cpu else tensor


def share_of(team: Team, count: int) -> slice:
    """Return which of a batch's ``count`` examples are this worker's: as many as every other's.

    Examples
    --------
    >>> share_of(ALONE, 5)
    slice(0, 5, None)
    """
    each = even_share(count, team.size)
    return slice(team.rank * each, (team.rank + 1) * each)


def even_share(count: int, workers: int) -> int:
    """Return how many of a batch's ``count`` examples each worker takes.

    Raises
    ------
    BadRequest
        If the workers do not divide the batch: a mean over unequal shares is not that of the batch.
    """
    if count % workers or count < workers:
        raise BadRequest(
            f"{workers} workers cannot share a batch of {count} evenly; make --batch a multiple of"
            f" {workers}, or take another number of workers",
            field="batch",
        )
    return count // workers


def averaged(
    team: Team, module: nn.Module, losses: Mapping[str, torch.Tensor]
) -> Mapping[str, torch.Tensor]:
    """Average gradients and running batch statistics over the workers in place; return mean losses.

    One sum a step, of everything laid end to end.

    Parameters
    ----------
    team
        The workers.
    module
        Its parameters' gradients and its batch normalisations' running means and variances.
    losses
        Scalars of this worker's share, the same names on all.
    """
    if team.size == 1:
        return losses
    kept = [p.grad for p in module.parameters() if p.grad is not None]
    kept += _running_statistics(module)
    told = [loss.detach().to(torch.float32).reshape(1) for loss in losses.values()]
    device = kept[0].device
    flat = torch.cat([part.detach().reshape(-1).to(device) for part in (*kept, *told)])
    flat = team.summed(flat) / team.size
    _put_back(flat, kept)
    means = flat[len(flat) - len(told) :]
    return dict(zip(losses, means.unbind(), strict=True))


def _running_statistics(module: nn.Module) -> list[torch.Tensor]:
    found = []
    for part in module.modules():
        if isinstance(part, _BatchNorm):
            found += [x for x in (part.running_mean, part.running_var) if x is not None]
    return found


def _put_back(flat: torch.Tensor, tensors: Sequence[torch.Tensor]) -> None:
    first = 0
    for tensor in tensors:
        last = first + tensor.numel()
        tensor.copy_(flat[first:last].view(tensor.shape))
        first = last
