"""A ring of recent keys: negatives for RetCCL from batches long gone.

Each step puts its momentum encoder's embeddings in and pushes the oldest out. Beside the instance
embedding of a patch lies its group embedding, so that the queue can be sorted into the clusters of the
batch at hand: that is how a negative of the anchor's own cluster is told from the others. The patch's row
lies there too: in a small training set the queue holds older keys of the anchor itself.

Source
------
He et al., "Momentum contrast"; RetCCL, "Implementation details" (65,536 keys).
"""

from __future__ import annotations

import torch
from torch import nn

from sish_cluster.core.errors import BadRequest


class KeyQueue(nn.Module):
    """The last ``capacity`` keys; its buffers are saved with the network.

    Parameters
    ----------
    capacity
        Keys kept.
    dimensions
        Length of an embedding.
    """

    instances: torch.Tensor
    groups: torch.Tensor
    rows: torch.Tensor
    cursor: torch.Tensor
    count: torch.Tensor

    def __init__(self, capacity: int, dimensions: int) -> None:
        super().__init__()
        if capacity < 1:
            raise BadRequest(f"a queue holds at least one key; got capacity {capacity}")
        self.register_buffer("instances", torch.zeros(capacity, dimensions))
        self.register_buffer("groups", torch.zeros(capacity, dimensions))
        self.register_buffer("rows", torch.full((capacity,), -1, dtype=torch.int64))
        self.register_buffer("cursor", torch.zeros((), dtype=torch.int64))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def __len__(self) -> int:
        return int(self.count)

    @property
    def capacity(self) -> int:
        """Keys it can hold."""
        return len(self.instances)

    def held(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return instance and group embeddings (n, d) and rows (n,); n is 0 before the first `add`.

        Copies: autograd may still need them when the queue moves on.
        """
        count = len(self)
        return (
            self.instances[:count].clone(),
            self.groups[:count].clone(),
            self.rows[:count].clone(),
        )

    @torch.no_grad()
    def add(self, instances: torch.Tensor, groups: torch.Tensor, rows: torch.Tensor) -> None:
        """Put keys (n, d) of patches (n,) in, n <= capacity, over the oldest."""
        if len(instances) > self.capacity:
            raise BadRequest(
                f"a queue of {self.capacity} keys cannot take {len(instances)} at once;"
                " make the queue at least as long as a batch"
            )
        places = (torch.arange(len(instances), device=self.cursor.device) + self.cursor) % (
            self.capacity
        )
        self.instances[places] = instances
        self.groups[places] = groups
        self.rows[places] = rows
        self.cursor.copy_((self.cursor + len(instances)) % self.capacity)
        self.count.copy_((self.count + len(instances)).clamp(max=self.capacity))
