"""The key network's training: loss, codebook care, schedule.

The loss is the published one. Three numbered differences keep all 128 codewords alive, which the
published recipe leaves to luck: (1) at a few early steps the codebook becomes the k-means centres of
the encoder's output, and its learning rate is ten times that of the rest, (2) a codeword that hardly
any place takes is moved onto a drawn place of the batch, until the last part of the training, and (3)
the learning rate warms up and then falls along a cosine.

Where crops have positions on a similarity line (`similarity_line`), a fourth term is added: (4) the mean
rank of a crop's codewords, ranked by their first channel, is drawn to the crop's position. The key adds
up just these ranks, so that look-alike patches get keys that lie near each other; the published order
is not known, and the codebook's main direction follows brightness.

Source
------
SISH, Methods, "VQ-VAE"; van den Oord et al., "Neural discrete representation learning", section 3.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from torch.nn import functional

from sish_cluster.core.errors import BadRequest
from sish_cluster.core.key import CODEBOOK_SIZE
from sish_cluster.encoder.networks.codeword_order import line_ranks
from sish_cluster.encoder.networks.inputs import placed
from sish_cluster.encoder.networks.vqvae import VqVae, VqVaeTerms
from sish_cluster.encoder.training.crops import CROP_PX, Crops
from sish_cluster.encoder.training.similarity_line import Positions
from sish_cluster.encoder.training.team import ALONE, Team, share_of
from sish_cluster.encoder.training.vqvae_codebook import centres_of, perplexity_of

FINE_BELOW = 0.75
"""A crop finer than this share of the wanted um per px is a tile's: it is shown shrunk to half, as it is, or
twice as large, as tiles are indexed (a tile is enlarged to a patch)."""

Bytes = np.ndarray[Any, np.dtype[np.uint8]]


class Squares(NamedTuple):
    """A batch."""

    pixels: torch.Tensor
    """float32 (n, 3, side, side) in [-1, 1]; squares of one crop follow each other."""
    positions: torch.Tensor
    """float32 (n / squares_per_crop,): the crops' places on the similarity line; NaN for none."""


@dataclasses.dataclass(frozen=True, slots=True)
class VqVaeTrainingSettings:
    """How a key network is trained."""

    n_steps: int = 5000
    """Optimiser steps; 5000 of 32 squares take about an hour and a half on one idle core."""
    batch_crops: int = 8
    """Crops a step: larger batches are no faster on a CPU."""
    squares_per_crop: int = 4
    """Squares drawn of a crop: more show the crop's position better than one does."""
    line_weight: float = 1.0
    """Weight of the term that draws mean ranks to positions on the similarity line; 0: none, as
    published."""
    crop_px: int = 128
    """Side of a training crop, px: the network is convolutional, its reach is shorter."""
    learning_rate: float = 1e-3
    """Adam's, at its highest."""
    codebook_rate_ratio: float = 10.0
    """Codewords' learning rate over the others': nothing bounds the encoder's output, and codewords that
    follow it too slowly let the commitment grow without end."""
    last_rate_share: float = 0.03
    """Share of the learning rate that is left at the last step."""
    warm_up_steps: int = 100
    """Steps over which the learning rate rises: the batch statistics settle first."""
    refit_steps: tuple[int, ...] = (0, 50, 150, 300)
    """Steps at which the codebook becomes the k-means centres of the batch: early, while the encoder
    moves fast."""
    revive_every: int = 25
    """Steps between looks for codewords nobody takes."""
    revive_until: float = 0.8
    """Share of the training after which the codebook is left alone."""
    dead_share: float = 0.35
    """A codeword is dead when it takes less than this share of an even share of places."""
    usage_memory: float = 0.95
    """Weight of the past in a codeword's running share of places: about 20 steps."""

    def __post_init__(self) -> None:
        if not 16 <= self.crop_px <= CROP_PX or self.crop_px % 16:
            raise BadRequest(
                f"a training crop has 16..{CROP_PX} px a side, a multiple of 16; got {self.crop_px}",
                field="crop_px",
            )

    def learning_rate_at(self, step: int) -> float:
        """Return Adam's learning rate of a step, counted from 0."""
        if step < self.warm_up_steps:
            return self.learning_rate * (step + 1) / self.warm_up_steps
        done = (step - self.warm_up_steps) / max(1, self.n_steps - self.warm_up_steps)
        fall = 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
        return self.learning_rate * (self.last_rate_share + (1 - self.last_rate_share) * fall)


class VqVaeTask:
    """A VQ-VAE in training: a `TrainingTask` of `Squares`.

    Parameters
    ----------
    network
        Changed in place.
    settings
        Steps, rates, codebook care.
    device
        Where it is trained.
    begins_codebook
        Whether early steps replace the codebook by k-means centres; not for trained weights.
    team
        The workers that share every batch; codewords are counted, refitted and revived for all at once.
    """

    def __init__(
        self,
        network: VqVae,
        settings: VqVaeTrainingSettings,
        *,
        device: str = "cpu",
        begins_codebook: bool = True,
        team: Team = ALONE,
    ) -> None:
        self._network = placed(network, torch.device(device)).train()
        words = list(self._network.codebook.parameters())
        others = [*self._network.encoder.parameters(), *self._network.decoder.parameters()]
        self._optimizer = torch.optim.Adam([{"params": others}, {"params": words}])
        self._settings = settings
        self._device = device
        self._begins_codebook = begins_codebook
        self._team = team
        self._shares = torch.full((CODEBOOK_SIZE,), 1.0 / CODEBOOK_SIZE, device=device)
        self._places = torch.zeros(0, device=device)
        self._n_revived = 0

    @property
    def module(self) -> VqVae:
        """The network."""
        return self._network

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """Adam, over encoder, codebook and decoder."""
        return self._optimizer

    def losses_of(self, batch: Squares, step: int) -> Mapping[str, torch.Tensor]:
        """Return ``loss``, its terms, and the codebook's perplexity in this batch."""
        x = batch.pixels.to(self._device).to(memory_format=torch.channels_last)
        self._set_rates(step)
        if step in self._settings.refit_steps and self._begins_codebook:
            self._refit_codebook(x)
        terms = self._network.terms_of(x)
        shares = torch.bincount(terms.codewords.flatten(), minlength=CODEBOOK_SIZE).float()
        shares = self._team.summed(shares)
        shares /= shares.sum()
        self._shares.lerp_(shares, 1 - self._settings.usage_memory)
        self._places = _places_of(terms.z.detach())
        losses = {
            "loss": terms.loss,
            "mse": terms.mse,
            "commitment": terms.commitment,
            "batch_perplexity": perplexity_of(shares),
            "codewords_revived": torch.tensor(float(self._n_revived)),
        }
        if self._settings.line_weight:
            line = self._line_loss(terms, batch.positions.to(self._device))
            losses |= {"line": line, "loss": terms.loss + self._settings.line_weight * line}
        return losses

    def _line_loss(self, terms: VqVaeTerms, positions: torch.Tensor) -> torch.Tensor:
        """Return the mean distance on the line between crops' mean ranks and their positions."""
        found = mean_rank_of(terms, self._network.codebook.embedding.weight)
        return functional.l1_loss(found.view(len(positions), -1).mean(1), positions)

    def after_step(self, step: int) -> None:
        """Move dead codewords, where it is time."""
        settings = self._settings
        if (step + 1) % settings.revive_every == 0 and step < (
            settings.revive_until * settings.n_steps
        ):
            self._revive()

    def state_dict(self) -> dict[str, Any]:
        """Return the running shares of the codewords."""
        return {"shares": self._shares.cpu(), "n_revived": self._n_revived}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        self._shares = state["shares"].to(self._device)
        self._n_revived = state["n_revived"]

    def _set_rates(self, step: int) -> None:
        others, words = self._optimizer.param_groups
        others["lr"] = self._settings.learning_rate_at(step)
        words["lr"] = others["lr"] * self._settings.codebook_rate_ratio

    @torch.no_grad()
    def _refit_codebook(self, x: torch.Tensor) -> None:
        places = self._team.gathered(_places_of(self._network.encoder(x)))
        centres = self._team.from_first(centres_of(places))
        self._replace_codewords(torch.arange(CODEBOOK_SIZE), centres)

    @torch.no_grad()
    def _revive(self) -> None:
        dead = (self._shares * CODEBOOK_SIZE < self._settings.dead_share).nonzero().flatten()
        if not len(dead):
            return
        drawn = torch.randint(len(self._places), (len(dead),)).to(self._places.device)
        self._replace_codewords(dead, self._team.from_first(self._places[drawn]))
        self._n_revived += len(dead)

    def _replace_codewords(self, rows: torch.Tensor, vectors: torch.Tensor) -> None:
        """Put vectors in the place of codewords, and forget their momentum and their use."""
        weight = self._network.codebook.embedding.weight
        weight[rows] = vectors
        for moment in ("exp_avg", "exp_avg_sq"):
            if moment in self._optimizer.state[weight]:
                self._optimizer.state[weight][moment][rows] = 0.0
        self._shares[rows] = 1.0 / CODEBOOK_SIZE


def mean_rank_of(terms: VqVaeTerms, words: torch.Tensor) -> torch.Tensor:
    """Return the mean rank of the codewords of each picture, (n,), scaled to [-1, 1].

    Parameters
    ----------
    terms
        Of n pictures.
    words
        (128, channels): the codebook.

    Notes
    -----
    Forwards these are the ranks that keys add up. Backwards a rank follows the first channel of z as if
    ranks were spread evenly over that channel's values in the batch.
    """
    ranks = torch.from_numpy(line_ranks(words)).to(words)
    found = (ranks[terms.codewords] * (2 / (CODEBOOK_SIZE - 1)) - 1).mean((1, 2))
    first = terms.z[:, 0]
    # Evenly spread values over [-1, 1] deviate by 1 / sqrt(3).
    slope = 1 / (math.sqrt(3) * first.detach().std().clamp(min=1e-6))
    moved = first.mean((1, 2)) * slope
    return found + moved - moved.detach()


def batches_of(
    crops: Crops,
    rows: np.ndarray[Any, np.dtype[np.int64]],
    settings: VqVaeTrainingSettings,
    mpp: float,
    positions: Positions | None = None,
    *,
    team: Team = ALONE,
) -> Callable[[int, torch.Generator], Squares]:
    """Return the ``batch_at`` of a training: turned and mirrored squares drawn from ``rows``.

    Parameters
    ----------
    crops
        Stored squares.
    rows
        int64 (n,): the crops that may be drawn, each as often.
    settings
        Crops a batch, squares a crop, their side.
    mpp
        The network's um per px; finer crops are seen at several scales.
    positions
        Where each crop lies on the similarity line; None for nowhere.
    team
        The workers that share every batch.

    Returns
    -------
    (step, generator) -> `Squares` of batch_crops * squares_per_crop, or of this worker's share of them.
    """
    per_crop, own = settings.squares_per_crop, share_of(team, settings.batch_crops)
    known = np.full(len(crops), np.nan, np.float32) if positions is None else positions

    def batch_at(step: int, generator: torch.Generator) -> Squares:
        drawn = torch.randint(2**31, (settings.batch_crops, per_crop, 5), generator=generator)[own]
        chosen = rows[drawn[:, 0, 0].numpy() % len(rows)]
        squares = [
            _square(crops, int(row), place[1:], settings.crop_px, mpp)
            for row, places in zip(chosen, drawn.numpy(), strict=True)
            for place in places
        ]
        stacked = torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2)
        return Squares(stacked.float().div_(127.5).sub_(1.0), torch.from_numpy(known[chosen]))

    return batch_at


def _square(
    crops: Crops, row: int, draws: np.ndarray[Any, np.dtype[np.int64]], side: int, mpp: float
) -> Bytes:
    """Return one training square (side, side, 3), scaled, placed, turned and mirrored by the draws."""
    pixels, window = crops.pixels[row], side
    scale = int(draws[3] >> 5) % 3 if crops.mpps[row] < FINE_BELOW * mpp else 1
    if scale == 0:
        pixels = halved(pixels)
    elif scale == 2:
        window = side // 2
    top, left = (int(d) % (pixels.shape[0] - window + 1) for d in draws[:2])
    square = np.rot90(pixels[top : top + window, left : left + window], int(draws[2]) % 4)
    square = np.ascontiguousarray(square[::-1] if draws[3] & 16 else square)
    if window == side:
        return square
    return np.asarray(cv2.resize(square, (side, side), interpolation=cv2.INTER_CUBIC), np.uint8)


def halved(pixels: Bytes) -> Bytes:
    """Return a picture (2h, 2w, 3) at half its scale, (h, w, 3): means of 2 x 2."""
    height, width = pixels.shape[0] // 2, pixels.shape[1] // 2
    blocks = pixels[: 2 * height, : 2 * width].reshape(height, 2, width, 2, 3)
    return np.asarray(blocks.mean(axis=(1, 3)).round(), dtype=np.uint8)


def _places_of(z: torch.Tensor) -> torch.Tensor:
    """Return the vectors (n * h * w, channels) of z (n, channels, h, w)."""
    return z.permute(0, 2, 3, 1).reshape(-1, z.shape[1])
