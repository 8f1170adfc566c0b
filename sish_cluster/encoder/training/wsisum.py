"""Train WSISum's network: from one patch in eight, give back the others and the whole slide.

A batch is some slides, of each up to 500 patches drawn anew from its clusters at every step, and a mask over
them. Slides with fewer patches are shown whole; slides of equal counts go through the network together.

Source
------
WSISum, "Implementation details"; `docs/papers/wsisum.md` numbers the differences.
"""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from sish_cluster.core.errors import BadRequest
from sish_cluster.core.slide import canonical_bytes, digest_of
from sish_cluster.encoder.networks.wsisum import SummaryNetwork, SummaryShape, visible_count
from sish_cluster.encoder.summary import cluster_labels, drawn_in_proportion
from sish_cluster.encoder.summary_files import SlideFeatures, read_features
from sish_cluster.encoder.training.passes import Passes, cosine_rate, set_rate
from sish_cluster.encoder.training.team import ALONE, Team, share_of
from sish_cluster.encoder.training.wsisum_losses import drawn_visible, summary_losses


@dataclasses.dataclass(frozen=True, slots=True)
class WsisumSettings:
    """How WSISum is trained."""

    shape: SummaryShape = dataclasses.field(default_factory=SummaryShape)
    """Sizes of the network; its width is the length of the embeddings."""
    patches: int = 500
    """Patches of a slide per step (published)."""
    clusters: int = 50
    """K-means clusters they are drawn from in proportion (published)."""
    mask_ratio: float = 0.875
    """Share of them that is masked (published)."""
    batch: int = 32
    """Slides per step (not published)."""
    passes: int = 400
    """Passes over the slides (masked autoencoders: hundreds; not published)."""
    warmup_passes: int = 10
    """Passes over which the learning rate rises."""
    learning_rate: float = 1.5e-4
    """Rate of AdamW for 256 slides a step, in proportion for other batches (published)."""
    weight_decay: float = 0.05
    """Of AdamW (masked autoencoders)."""
    rng_seed: int = 0
    """Draws weights, orders, samples and masks."""

    def __post_init__(self) -> None:
        if not 0 < self.mask_ratio < 1 or self.patches < 2 or self.learning_rate <= 0:
            raise BadRequest(
                "WSISum needs 0 < mask_ratio < 1, patches >= 2 and learning_rate > 0; got"
                f" {self.mask_ratio}, {self.patches} and {self.learning_rate}"
            )


class FeatureShelf:
    """Feature files, read when asked for; the last few stay in memory.

    Parameters
    ----------
    paths
        One file per slide.
    most_held
        Slides held at a time: 10,000 patches of 1024 numbers are 40 MB.
    """

    def __init__(self, paths: Sequence[Path], *, most_held: int = 64) -> None:
        self._paths = list(paths)
        self._most_held = most_held
        self._held: OrderedDict[int, SlideFeatures] = OrderedDict()
        self._labels: dict[int, npt.NDArray[np.int64]] = {}

    def __len__(self) -> int:
        return len(self._paths)

    @property
    def names(self) -> list[str]:
        """Slide names in order."""
        return [path.stem for path in self._paths]

    @property
    def identity(self) -> str:
        """Digest of names and sizes."""
        files = [[path.name, path.stat().st_size] for path in self._paths]
        return digest_of(canonical_bytes({"files": files}))

    def slide(self, number: int) -> SlideFeatures:
        """Return a slide's features; `BadSlide` if its file is damaged."""
        if number not in self._held:
            self._held[number] = read_features(self._paths[number])
            if len(self._held) > self._most_held:
                self._held.popitem(last=False)
        self._held.move_to_end(number)
        return self._held[number]

    def labels(self, number: int, clusters: int, *, rng_seed: int) -> npt.NDArray[np.int64]:
        """Return the k-means cluster of each of a slide's patches, computed once."""
        if number not in self._labels:
            features = self.slide(number).features
            self._labels[number] = cluster_labels(features, clusters, rng_seed=rng_seed)
        return self._labels[number]


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class SlideGroup:
    """Slides of one patch count: patches (n, p, d), visible int64 (n, v), teachers (n, d)."""

    patches: torch.Tensor
    visible: torch.Tensor
    teachers: torch.Tensor


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class _Shown:
    """One slide of a step: its number, the patches drawn of it (p, d), those visible int64 (1, v)."""

    number: int
    sample: npt.NDArray[np.float32]
    visible: torch.Tensor


class WsisumTask:
    """WSISum as a `TrainingTask`.

    Parameters
    ----------
    shelf
        The slides' features.
    teachers
        float32 (n, width): a vector of each slide.
    settings
        How.
    device
        Where.
    team
        The workers that share every batch.
    """

    def __init__(
        self,
        shelf: FeatureShelf,
        teachers: npt.NDArray[np.float32],
        settings: WsisumSettings,
        *,
        device: torch.device,
        team: Team = ALONE,
    ) -> None:
        if teachers.shape != (len(shelf), settings.shape.width):
            raise BadRequest(
                f"each of {len(shelf)} slides needs a teacher of {settings.shape.width} numbers;"
                f" got {teachers.shape}"
            )
        self.settings = settings
        self.passes = Passes(len(shelf), settings.batch, settings.rng_seed)
        self._own = share_of(team, settings.batch)
        self._shelf = shelf
        self._teachers = torch.from_numpy(teachers)
        self._device = device
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.rng_seed)
            self.network = SummaryNetwork(settings.shape).to(device)
        self._optimizer = torch.optim.AdamW(
            self.network.parameters(),
            lr=self.rate,
            betas=(0.9, 0.95),
            weight_decay=settings.weight_decay,
        )

    @property
    def rate(self) -> float:
        """Highest learning rate: 1.5e-4 x batch / 256."""
        return self.settings.learning_rate * self.settings.batch / 256

    @property
    def module(self) -> nn.Module:
        """The network."""
        return self.network

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """AdamW."""
        return self._optimizer

    @property
    def n_steps(self) -> int:
        """Steps of the whole training."""
        return self.passes.steps * self.settings.passes

    def batch_at(self, step: int, generator: torch.Generator) -> list[SlideGroup]:
        """Return this worker's slides of a step, sampled and masked, in groups of as many patches."""
        rows = self.passes.rows_at(step)
        seeds = torch.randint(2**62, (len(rows),), generator=generator)
        groups: dict[int, list[_Shown]] = {}
        for number, seed in zip(rows[self._own].tolist(), seeds[self._own].tolist(), strict=True):
            shown = self._shown(number, torch.Generator().manual_seed(seed))
            groups.setdefault(len(shown.sample), []).append(shown)
        return [self._group(members) for _, members in sorted(groups.items())]

    def losses_of(self, batch: list[SlideGroup], step: int) -> Mapping[str, torch.Tensor]:
        """Return MSE(masked) + MSE(decoded cls, teacher), averaged over slides, and its parts."""
        warmup = self.settings.warmup_passes * self.passes.steps
        set_rate(self._optimizer, cosine_rate(step, self.n_steps, base=self.rate, warmup=warmup))
        slides = sum(len(group.patches) for group in batch)
        totals: dict[str, torch.Tensor] = {}
        for group in batch:
            decoded = self.network(group.patches, group.visible)
            losses = summary_losses(decoded, group.patches, group.visible, group.teachers)
            for name, loss in losses.items():
                share = loss * (len(group.patches) / slides)
                totals[name] = totals[name] + share if name in totals else share
        return totals

    def after_step(self, step: int) -> None:
        """Nothing follows a step."""

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: all state is in the module."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take nothing back."""

    def _shown(self, number: int, generator: torch.Generator) -> _Shown:
        sample = self._sample(number, generator)
        count = visible_count(len(sample), self.settings.mask_ratio)
        return _Shown(number, sample, drawn_visible(1, len(sample), count, generator))

    def _sample(self, number: int, generator: torch.Generator) -> npt.NDArray[np.float32]:
        """Return up to ``patches`` of a slide's embeddings, in the order of its file."""
        features = self._shelf.slide(number).features
        if features.shape[1] != self.settings.shape.width:
            raise BadRequest(
                f"{self._shelf.names[number]}: has features of {features.shape[1]} numbers, where"
                f" the others have {self.settings.shape.width}; use one encoder for all slides"
            )
        if len(features) <= self.settings.patches:
            return features
        chosen = self.settings
        labels = self._shelf.labels(number, chosen.clusters, rng_seed=chosen.rng_seed)
        seed = int(torch.randint(2**62, (), generator=generator))
        rng = np.random.Generator(np.random.Philox(seed))
        return features[drawn_in_proportion(labels, chosen.patches, rng)]

    def _group(self, members: list[_Shown]) -> SlideGroup:
        patches = torch.from_numpy(np.stack([shown.sample for shown in members]))
        visible = torch.cat([shown.visible for shown in members])
        teachers = self._teachers[[shown.number for shown in members]]
        parts = (part.to(self._device) for part in (patches, visible, teachers))
        return SlideGroup(*parts)
