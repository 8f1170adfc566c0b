"""Train SSLP's encoder: a memory bank, and what lies beside a patch as its positive.

Each step compares one view of each patch of a batch with the whole bank: its own memory, its spatial
neighbours, its kin on other slides, and mined negatives. The spatial terms grow over the first ten
passes, when the bank means little. What is kept is the backbone, under torchvision's names.

Source
------
SSLP, "Spatially guided self-supervised learning"; `docs/papers/sslp.md` numbers the differences.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from sish_cluster.core.errors import BadRequest
from sish_cluster.encoder.networks.inputs import placed
from sish_cluster.encoder.networks.resnet import ResNet
from sish_cluster.encoder.networks.sslp import TEMPERATURES, SpatialNetwork
from sish_cluster.encoder.training.memory_bank import MemoryBank
from sish_cluster.encoder.training.passes import Passes, cosine_rate, generator_at, set_rate
from sish_cluster.encoder.training.places import PlacedPatches
from sish_cluster.encoder.training.sslp_losses import self_loss, share_loss, spatial_weight
from sish_cluster.encoder.training.sslp_positives import Neighbours, drawn_negatives, kin_of
from sish_cluster.encoder.training.team import ALONE, Team, share_of
from sish_cluster.encoder.training.views import ViewSettings, views_of


@dataclasses.dataclass(frozen=True, slots=True)
class SslpSettings:
    """How SSLP is trained."""

    depth: int = 18
    """Layers of the ResNet (published)."""
    width: int = 64
    """Channels of the ResNet's first stage (published); fewer for trials."""
    dimensions: int = 128
    """Length of an embedding (published)."""
    head: str = "linear"
    """``linear`` (T 0.07) or ``mlp`` (T 0.2), as published."""
    memory_kept: float = 0.5
    """Share of a patch's memory that an update keeps (published)."""
    reach: float = 3.0
    """Grid distance below which patches of a slide are neighbours (published)."""
    nearest: int = 4096
    """Nearest of the bank among which kin are looked for (published)."""
    clusters: int = 1000
    """Clusters of each k-means run (published); at most a tenth of the patches."""
    runs: int = 3
    """K-means runs that must agree (published)."""
    negative_share: float = 0.2
    """Most similar share of the bank that negatives are drawn from (published)."""
    negative_beta: tuple[float, float] = (5.0, 15.0)
    """Beta distribution of their ranks (published)."""
    negatives: int = 4096
    """Negatives per patch; at most as many as that share holds. The number was not published."""
    batch: int = 128
    """Patches per step (not published)."""
    passes: int = 100
    """Passes over the training set (published)."""
    learning_rate: float = 0.015
    """Highest rate of SGD, on a cosine (published)."""
    weight_decay: float = 1e-4
    """Of SGD with momentum 0.9 (published)."""
    views: ViewSettings = dataclasses.field(default_factory=ViewSettings)
    """How far a view differs from its patch."""
    rng_seed: int = 0
    """Draws weights, orders, views, the bank, clusters and negatives."""

    def __post_init__(self) -> None:
        if not 0 <= self.memory_kept < 1 or not 0 < self.negative_share <= 1 or self.reach <= 0:
            raise BadRequest(
                "SSLP needs 0 <= memory_kept < 1, 0 < negative_share <= 1 and reach > 0; got"
                f" {self.memory_kept}, {self.negative_share} and {self.reach}"
            )


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class OneView:
    """A batch: rows of the training set (n,), and a view (n, 3, side, side) of each."""

    rows: torch.Tensor
    views: torch.Tensor


class SslpTask:
    """SSLP as a `TrainingTask`.

    Parameters
    ----------
    patches
        What is trained on, and where each patch lies.
    settings
        How.
    device
        Where.
    team
        The workers that share every batch; each holds the whole bank, and remembers all batches.
    """

    def __init__(
        self,
        patches: PlacedPatches,
        settings: SslpSettings,
        *,
        device: torch.device,
        team: Team = ALONE,
    ) -> None:
        self.settings = settings
        self.passes = Passes(len(patches), settings.batch, settings.rng_seed)
        self._team = team
        self._own = share_of(team, settings.batch)
        self._pixels = patches.pixels
        self._device = device
        self._neighbours = Neighbours(patches.slides, patches.places, reach=settings.reach)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.rng_seed)
            network = SpatialNetwork(
                ResNet(settings.depth, width=settings.width),
                dimensions=settings.dimensions,
                head=settings.head,
            )
        self.network = placed(network, device)
        self.bank = MemoryBank(
            len(patches), settings.dimensions, runs=settings.runs, rng_seed=settings.rng_seed
        ).to(device)
        self._module = nn.ModuleDict({"network": self.network, "bank": self.bank})
        self._optimizer = torch.optim.SGD(
            self.network.parameters(),
            lr=settings.learning_rate,
            momentum=0.9,
            weight_decay=settings.weight_decay,
        )
        self._fresh: tuple[torch.Tensor, torch.Tensor] | None = None

    @property
    def module(self) -> nn.Module:
        """Network and memory bank."""
        return self._module

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """Of the network."""
        return self._optimizer

    @property
    def share_with_neighbours(self) -> float:
        """Share of patches that have a spatial neighbour: the others teach by the other terms alone."""
        return self._neighbours.share

    @property
    def n_steps(self) -> int:
        """Steps of the whole training."""
        return self.passes.steps * self.settings.passes

    def batch_at(self, step: int, generator: torch.Generator) -> OneView:
        """Return this worker's patches of a step, one view of each."""
        rows = np.sort(self.passes.rows_at(step))[self._own]
        patches = torch.from_numpy(np.asarray(self._pixels[rows])).to(self._device)
        among = (self._own.start, self.settings.batch)
        views = views_of(patches, self.settings.views, generator, among=among)
        return OneView(torch.from_numpy(rows).to(self._device), views)

    def losses_of(self, batch: OneView, step: int) -> Mapping[str, torch.Tensor]:
        """Return L_self + w(t) (L_intra + L_inter), and its parts."""
        chosen = self.settings
        set_rate(self._optimizer, cosine_rate(step, self.n_steps, base=chosen.learning_rate))
        pass_number = self.passes.number_at(step)
        if step % self.passes.steps == 0:
            self._refit(pass_number)
        found = self.network(batch.views)
        self._fresh = (batch.rows, found.detach())
        logits = found @ self.bank.embeddings.clone().t() / TEMPERATURES[chosen.head]
        losses = self._parts(logits, batch.rows, step)
        weight = spatial_weight(pass_number)
        loss = losses["self"] + weight * (losses["intra"] + losses["inter"])
        return {"loss": loss, **losses}

    def after_step(self, step: int) -> None:
        """Let the bank remember the batch, the shares of all workers."""
        if self._fresh is not None:
            rows, found = map(self._team.gathered, self._fresh)
            self.bank.remember(rows, found, keep=self.settings.memory_kept)

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: all state is in the module."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take nothing back."""

    def _refit(self, pass_number: int) -> None:
        count = min(self.settings.clusters, max(1, len(self.bank) // 10))
        draws = generator_at(self.settings.rng_seed, "clusters", pass_number)
        if self._team.rank == 0:
            self.bank.refit(count=count, generator=draws)
        self.bank.labels.copy_(self._team.from_first(self.bank.labels))

    def _parts(
        self, logits: torch.Tensor, rows: torch.Tensor, step: int
    ) -> dict[str, torch.Tensor]:
        """Return the three terms of q.m / T (b, N) of the batch with the bank."""
        neighbours = torch.from_numpy(self._neighbours.of(rows.cpu().numpy())).to(rows.device)
        with torch.no_grad():
            kin = kin_of(self.bank, rows, neighbours, nearest=self.settings.nearest)
            negatives = self._negatives(logits, rows, neighbours, kin, step)
        on_negatives = logits.gather(1, negatives)
        beside = logits.gather(1, neighbours.clamp(min=0))
        return {
            "self": self_loss(logits.gather(1, rows[:, None])[:, 0], on_negatives),
            "intra": share_loss(beside, neighbours >= 0, on_negatives),
            "inter": share_loss(logits, kin, on_negatives),
        }

    def _negatives(
        self,
        logits: torch.Tensor,
        rows: torch.Tensor,
        neighbours: torch.Tensor,
        kin: torch.Tensor,
        step: int,
    ) -> torch.Tensor:
        excluded = kin.scatter(1, rows[:, None], True)
        # Places without a neighbour point at the anchor, which is excluded anyway.
        beside = torch.where(neighbours >= 0, neighbours, rows[:, None])
        excluded = excluded.scatter(1, beside, True)
        # In a tiny set the kin may be everything; such a patch takes all others for negatives.
        itself = torch.zeros_like(excluded).scatter(1, rows[:, None], True)
        excluded = torch.where(excluded.all(dim=1, keepdim=True), itself, excluded)
        share = self.settings.negative_share
        draw = step * self._team.size + self._team.rank
        return drawn_negatives(
            logits,
            excluded,
            share=share,
            count=min(self.settings.negatives, max(1, int(share * len(self.bank)))),
            beta=self.settings.negative_beta,
            generator=generator_at(self.settings.rng_seed, "negative", draw),
        )
