"""Train RetCCL's encoder: three views of each patch, two heads, a momentum encoder and a queue.

Views q1 and q2 go through the network, view k through a slow copy of it. The instance embeddings of q1 and q2
should match k's and differ from those in the queue, less so from queued keys of their own cluster; the
group embeddings of q1 should match the clusters of q2's and the other way round. What is kept is the
backbone, under torchvision's names.

Source
------
RetCCL, "Clustering-guided contrastive learning"; its training code was never released. The recipe follows its
parent (cross-level discrimination over momentum contrast); `docs/papers/retccl.md` numbers the differences.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from sish_cluster.core.errors import BadRequest
from sish_cluster.encoder.networks.inputs import placed
from sish_cluster.encoder.networks.resnet import ResNet
from sish_cluster.encoder.networks.retccl import ContrastiveNetwork, TwoHeads
from sish_cluster.encoder.training.clustering import Clusters, clusters_of, nearest_of
from sish_cluster.encoder.training.passes import Passes, cosine_rate, generator_at, set_rate
from sish_cluster.encoder.training.places import PlacedPatches
from sish_cluster.encoder.training.queue import KeyQueue
from sish_cluster.encoder.training.retccl_losses import (
    cluster_weights,
    cross_level_loss,
    weighted_infonce,
)
from sish_cluster.encoder.training.team import ALONE, Team, share_of
from sish_cluster.encoder.training.views import ViewSettings, views_of


@dataclasses.dataclass(frozen=True, slots=True)
class RetCclSettings:
    """How RetCCL is trained."""

    depth: int = 50
    """Layers of the ResNet (published: 50); 18 for trials on a CPU."""
    width: int = 64
    """Channels of the ResNet's first stage (published); fewer for trials."""
    dimensions: int = 128
    """Length of either head's embedding (published)."""
    queue: int = 65_536
    """Keys remembered as negatives (published)."""
    momentum: float = 0.999
    """Share of itself the momentum encoder keeps at each step (published)."""
    temperature: float = 0.2
    """T of the InfoNCE: its parents use 0.07 to 0.2."""
    same_cluster_weight: float = 0.5
    """Weight of a negative of the anchor's own cluster; others weigh 1. Lowered as published, to a value
    that was not: as likely the same tissue as not."""
    group_weight: float = 0.25
    """Lambda: weight of the cluster term (published)."""
    group_temperature: float = 0.4
    """T of the cluster term (published)."""
    clusters: int = 120
    """Clusters of each view's group embeddings (published); at most half the batch."""
    kmeans_iterations: int = 5
    """Rounds of that k-means (published)."""
    key_chunks: int = 2
    """Parts of a batch that the momentum encoder normalises apart, shuffled: with one, q finds its k by
    their common batch statistics."""
    batch: int = 256
    """Patches per step (its parents' value)."""
    passes: int = 100
    """Passes over the training set."""
    learning_rate: float = 0.03
    """Highest rate for 256 patches a step, in proportion for other batches (momentum contrast)."""
    weight_decay: float = 1e-4
    """Of SGD with momentum 0.9 (momentum contrast)."""
    views: ViewSettings = dataclasses.field(default_factory=ViewSettings)
    """How far the three views differ."""
    rng_seed: int = 0
    """Draws weights, orders, views and clusters."""

    def __post_init__(self) -> None:
        if not 0 < self.same_cluster_weight <= 1 or not 0 <= self.momentum < 1:
            raise BadRequest(
                "RetCCL needs 0 < same_cluster_weight <= 1 and 0 <= momentum < 1; got"
                f" {self.same_cluster_weight} and {self.momentum}"
            )
        _check_chunks(self.key_chunks, self.batch)


def _check_chunks(key_chunks: int, patches: int) -> None:
    if patches < 2 * key_chunks or key_chunks < 1:
        raise BadRequest(
            f"each of {key_chunks} key chunks needs two patches of a batch or of a worker's share of it;"
            f" got {patches} patches",
            field="batch",
        )


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class ThreeViews:
    """A batch: rows of the training set (n,), and views q1, k, q2 (n, 3, side, side) of each."""

    rows: torch.Tensor
    q1: torch.Tensor
    k: torch.Tensor
    q2: torch.Tensor


class RetCclTask:
    """RetCCL as a `TrainingTask`.

    Parameters
    ----------
    patches
        What is trained on.
    settings
        How.
    device
        Where.
    team
        The workers that share every batch. The queue and the clusters are those of the whole batch;
        batch norms, and the key chunks with them, are of each worker's share.
    """

    def __init__(
        self,
        patches: PlacedPatches,
        settings: RetCclSettings,
        *,
        device: torch.device,
        team: Team = ALONE,
    ) -> None:
        self.settings = settings
        self.passes = Passes(len(patches), settings.batch, settings.rng_seed)
        self._team = team
        self._own = share_of(team, settings.batch)
        _check_chunks(settings.key_chunks, settings.batch // team.size)
        self._pixels = patches.pixels
        self._device = device
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.rng_seed)
            query = ContrastiveNetwork(
                ResNet(settings.depth, width=settings.width), dimensions=settings.dimensions
            )
        self.query = placed(query, device)
        self.key = copy.deepcopy(self.query).requires_grad_(False)
        self.queue = KeyQueue(max(settings.batch, settings.queue), settings.dimensions).to(device)
        self._module = nn.ModuleDict({"query": self.query, "key": self.key, "queue": self.queue})
        self._optimizer = torch.optim.SGD(
            self.query.parameters(),
            lr=settings.learning_rate,
            momentum=0.9,
            weight_decay=settings.weight_decay,
        )
        self._fresh: tuple[torch.Tensor, TwoHeads] | None = None

    @property
    def module(self) -> nn.Module:
        """Network, momentum encoder and queue."""
        return self._module

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """Of the network alone: the momentum encoder follows."""
        return self._optimizer

    @property
    def n_steps(self) -> int:
        """Steps of the whole training."""
        return self.passes.steps * self.settings.passes

    def batch_at(self, step: int, generator: torch.Generator) -> ThreeViews:
        """Return this worker's patches of a step in three views."""
        rows = np.sort(self.passes.rows_at(step))[self._own]
        patches = torch.from_numpy(np.asarray(self._pixels[rows])).to(self._device)
        among = (self._own.start, self.settings.batch)
        q1, k, q2 = (
            views_of(patches, self.settings.views, generator, among=among) for _ in range(3)
        )
        return ThreeViews(torch.from_numpy(rows).to(self._device), q1, k, q2)

    def losses_of(self, batch: ThreeViews, step: int) -> Mapping[str, torch.Tensor]:
        """Return 1/2 NCE(q1, k) + 1/2 NCE(q2, k) + lambda CLD, and its parts."""
        chosen = self.settings
        rate = chosen.learning_rate * chosen.batch / 256
        set_rate(self._optimizer, cosine_rate(step, self.n_steps, base=rate))
        first, second = self.query(batch.q1), self.query(batch.q2)
        keys = self._keys(batch.k, step)
        draws = generator_at(chosen.rng_seed, "clusters", step)
        clusters = (self._clusters(first, draws), self._clusters(second, draws))
        contrast = (
            self._contrast(first, keys, clusters[0], batch.rows)
            + self._contrast(second, keys, clusters[1], batch.rows)
        ) / 2
        groups = cross_level_loss(
            first.groups, second.groups, clusters, temperature=chosen.group_temperature
        )
        self._fresh = (batch.rows, keys)
        loss = contrast + chosen.group_weight * groups
        return {"loss": loss, "contrast": contrast, "groups": groups}

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Let the momentum encoder follow, and put the keys of all workers into the queue."""
        keep = self.settings.momentum
        pairs = zip(self.key.parameters(), self.query.parameters(), strict=True)
        for slow, fast in pairs:
            slow.mul_(keep).add_(fast, alpha=1.0 - keep)
        if self._fresh is not None:
            rows, keys = self._fresh
            self.queue.add(*map(self._team.gathered, (keys.instances, keys.groups, rows)))

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: all state is in the module."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take nothing back."""

    @torch.no_grad()
    def _keys(self, views: torch.Tensor, step: int) -> TwoHeads:
        """Return the momentum encoder's embeddings, computed in shuffled chunks."""
        draws = generator_at(self.settings.rng_seed, "chunks", step)
        order = torch.randperm(len(views), generator=draws).to(views.device)
        parts = [self.key(views[chunk]) for chunk in order.chunk(self.settings.key_chunks)]
        back = order.argsort()
        return TwoHeads(
            torch.cat([part.instances for part in parts])[back],
            torch.cat([part.groups for part in parts])[back],
        )

    def _clusters(self, heads: TwoHeads, draws: torch.Generator) -> Clusters:
        """Return the whole batch's centres, and the labels of this worker's share."""
        groups = self._team.gathered(heads.groups.detach())
        found = clusters_of(
            groups,
            count=min(self.settings.clusters, max(1, len(groups) // 2)),
            iterations=self.settings.kmeans_iterations,
            generator=draws,
        )
        # A GPU adds in no fixed order: one worker's clusters hold for all.
        centres = self._team.from_first(found.centres)
        return Clusters(
            self._team.from_first(found.labels)[share_of(self._team, len(groups))], centres
        )

    def _contrast(
        self, heads: TwoHeads, keys: TwoHeads, clusters: Clusters, rows: torch.Tensor
    ) -> torch.Tensor:
        """Return the weighted InfoNCE of a view; a patch's own older keys are no negatives of it."""
        instances, groups, patches = self.queue.held()
        weights = cluster_weights(
            clusters.labels,
            nearest_of(groups, clusters.centres),
            same_cluster_weight=self.settings.same_cluster_weight,
        )
        weights = weights.masked_fill(rows[:, None] == patches[None], 0.0)
        return weighted_infonce(
            heads.instances,
            keys.instances,
            instances,
            weights,
            temperature=self.settings.temperature,
        )
