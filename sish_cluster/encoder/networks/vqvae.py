"""The key network: a vector-quantised autoencoder that turns a patch into a grid of codewords.

The encoder halves the patch several times, two residual blocks refine what is left, and every place
of the 64 x 64 grid takes the nearest of 128 codewords. Two sizes share the code: ``large`` is the
published network (256 channels, four halvings, 1024 px), ``compact`` a quarter as wide with three
halvings, so that 512 px give the same 64 x 64 grid. Parameter names are those of the published
checkpoint.

Source
------
SISH, Methods, "VQ-VAE"; van den Oord et al., "Neural discrete representation learning".
"""

from __future__ import annotations

import dataclasses

import torch
from torch import nn
from torch.nn import functional

from sish_cluster.core.key import CODEBOOK_SIZE, LATENT_SIDE


@dataclasses.dataclass(frozen=True, slots=True)
class VqVaeSize:
    """How wide and how deep a VQ-VAE is.

    Parameters
    ----------
    name
        The name fingerprints carry.
    channels
        Channels of every hidden layer, and the length of a codeword.
    halvings
        Convolutions of stride 2; a patch has ``64 * 2**halvings`` pixels a side.
    """

    name: str
    channels: int
    halvings: int

    @property
    def side_px(self) -> int:
        """Pixels a side of a patch that becomes a 64 x 64 latent."""
        return LATENT_SIDE << self.halvings


LARGE = VqVaeSize("vqvae-large", channels=256, halvings=4)
"""The published network: 4,507,136 parameters with the codebook, 8,981,763 with the decoder."""

COMPACT = VqVaeSize("vqvae-compact", channels=64, halvings=3)
"""A network a CPU can run: the same grid from a quarter of the pixels."""

SIZES = {size.name: size for size in (LARGE, COMPACT)}
"""Every size by name."""


class ResidualBlock(nn.Module):
    """``x + net(x)``, net being BN, ReLU, 3x3 convolution, BN, ReLU, 1x1 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 1),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (n, channels, h, w) refined, same shape."""
        return x + self.net(x)  # type: ignore[no-any-return]


class Codebook(nn.Module):
    """The 128 codewords; ``embedding.weight`` has shape (128, channels)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(CODEBOOK_SIZE, channels)
        bound = 1.0 / CODEBOOK_SIZE
        nn.init.uniform_(self.embedding.weight, -bound, bound)

    def nearest(self, z: torch.Tensor) -> torch.Tensor:
        """Return the nearest codeword by L2 of each place of z (n, channels, h, w): int64 (n, h, w)."""
        words = self.embedding.weight
        places = z.permute(0, 2, 3, 1).reshape(-1, z.shape[1])
        # |z - e|^2 without |z|^2, which is the same for every codeword.
        distances = torch.addmm(words.square().sum(1), places, words.t(), alpha=-2.0)
        return distances.argmin(1).reshape(z.shape[0], z.shape[2], z.shape[3])

    def looked_up(self, codewords: torch.Tensor) -> torch.Tensor:
        """Return the codeword vectors (n, channels, h, w) of codewords (n, h, w)."""
        vectors: torch.Tensor = self.embedding(codewords)
        return vectors.permute(0, 3, 1, 2).contiguous()


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class VqVaeTerms:
    """A reconstruction and what its loss is made of.

    Parameters
    ----------
    reconstruction
        (n, 3, side, side) in [-1, 1].
    z
        (n, channels, h, w): the encoder's output before quantisation.
    codewords
        int64 (n, h, w).
    mse
        Mean squared error of the reconstruction, of values in [-1, 1].
    commitment
        mean((z - sg e)^2): draws the encoder to its codewords.
    quantisation
        mean((e - sg z)^2): draws the codewords to what they stand for.
    """

    reconstruction: torch.Tensor
    z: torch.Tensor
    codewords: torch.Tensor
    mse: torch.Tensor
    commitment: torch.Tensor
    quantisation: torch.Tensor

    @property
    def loss(self) -> torch.Tensor:
        """The sum of the three terms, each with weight 1 (published)."""
        return self.mse + self.commitment + self.quantisation


class VqVae(nn.Module):
    """The whole autoencoder; inference of keys uses only `latents_of`."""

    def __init__(self, size: VqVaeSize) -> None:
        super().__init__()
        self.size = size
        self.encoder = _encoder(size)
        self.codebook = Codebook(size.channels)
        self.decoder = _decoder(size)

    def latents_of(self, x: torch.Tensor) -> torch.Tensor:
        """Return the codewords (n, side/2**halvings, ...) int64 of images (n, 3, side, side) in [-1, 1]."""
        return self.codebook.nearest(self.encoder(x))

    def decoded(self, codewords: torch.Tensor) -> torch.Tensor:
        """Return the images (n, 3, side, side) in [-1, 1] of codewords (n, h, w)."""
        images: torch.Tensor = self.decoder(self.codebook.looked_up(codewords))
        return images

    def terms_of(self, x: torch.Tensor) -> VqVaeTerms:
        """Return the reconstruction of images (n, 3, side, side) in [-1, 1] and the terms of its loss.

        Notes
        -----
        The gradient passes the quantisation straight through.
        """
        z = self.encoder(x)
        codewords = self.codebook.nearest(z)
        e = self.codebook.looked_up(codewords)
        reconstruction = self.decoder(z + (e - z).detach())
        return VqVaeTerms(
            reconstruction,
            z,
            codewords,
            functional.mse_loss(reconstruction, x),
            functional.mse_loss(z, e.detach()),
            functional.mse_loss(e, z.detach()),
        )

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (reconstruction, loss) of images in [-1, 1]; see `terms_of`."""
        terms = self.terms_of(x)
        return terms.reconstruction, terms.loss


def _encoder(size: VqVaeSize) -> nn.Sequential:
    layers: list[nn.Module] = []
    channels_in = 3
    for _ in range(size.halvings - 1):
        halving = nn.Conv2d(channels_in, size.channels, 4, stride=2, padding=1)
        layers += [halving, nn.ReLU(), nn.BatchNorm2d(size.channels)]
        channels_in = size.channels
    layers.append(nn.Conv2d(channels_in, size.channels, 4, stride=2, padding=1))
    return nn.Sequential(*layers, ResidualBlock(size.channels), ResidualBlock(size.channels))


def _decoder(size: VqVaeSize) -> nn.Sequential:
    width = size.channels
    layers: list[nn.Module] = [ResidualBlock(width), ResidualBlock(width)]
    layers += [nn.ReLU(), nn.BatchNorm2d(width)]
    for _ in range(size.halvings - 1):
        doubling = nn.ConvTranspose2d(width, width, 4, stride=2, padding=1)
        layers += [doubling, nn.ReLU(), nn.BatchNorm2d(width)]
    layers += [nn.ConvTranspose2d(width, 3, 4, stride=2, padding=1), nn.Tanh()]
    return nn.Sequential(*layers)
