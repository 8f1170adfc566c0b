"""WSISum's network: a masked autoencoder whose tokens are the embeddings of a slide's patches.

The encoder sees a class token and a few of the patches; the decoder, from these alone, gives back all
patches and, at the class token, a vector of the whole slide. Patches from which a slide can be told well
are a summary of it.

Shapes: n slides, p patches of d numbers each, v of them visible.

Source
------
WSISum, "Masked reconstruction"; He et al., "Masked autoencoders" (layers, positions).
"""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import nn
from torch.nn import functional

from sish_cluster.core.errors import BadRequest

MLP_RATIO = 4
"""Width of a block's perceptron, in multiples of the block's."""

POSITION_BASE = 10_000.0
"""Longest wavelength of the positions, in patches."""

TOKEN_DEVIATION = 0.02
"""Standard deviation of the class and mask tokens at the start (masked autoencoders)."""


@dataclasses.dataclass(frozen=True, slots=True)
class SummaryShape:
    """Sizes of the network; `width` is the length of an embedding (published: 768)."""

    width: int = 768
    """Numbers per patch, and width of the encoder."""
    depth: int = 12
    """Blocks of the encoder (published)."""
    heads: int = 12
    """Attention heads of the encoder (published); divides the width."""
    decoder_width: int = 384
    """Width of the decoder (published)."""
    decoder_depth: int = 4
    """Blocks of the decoder (published)."""
    decoder_heads: int = 6
    """Attention heads of the decoder (published)."""

    def __post_init__(self) -> None:
        for width, heads in ((self.width, self.heads), (self.decoder_width, self.decoder_heads)):
            if width % 2 or heads < 1 or width % heads:
                raise BadRequest(
                    f"a width is even and a multiple of its heads; got {width} and {heads}: for"
                    f" embeddings of {self.width} choose heads that divide it"
                )


def shape_for(width: int, **others: int) -> SummaryShape:
    """Return the published shape for embeddings of another length: 64 numbers a head.

    Examples
    --------
    >>> shape_for(768).heads, shape_for(1024).heads, shape_for(2048, depth=2).heads
    (12, 16, 32)
    """
    return SummaryShape(width, **{"heads": max(1, width // 64), **others})


def visible_count(patches: int, mask_ratio: float) -> int:
    """Return how many of some patches stay visible, at least 1.

    Examples
    --------
    >>> visible_count(500, 0.875)
    63
    """
    return max(1, math.ceil(round(patches * (1.0 - mask_ratio), 6)))


class Block(nn.Module):
    """Attention, then a perceptron, each added to what it was given after a layer norm."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, MLP_RATIO * width), nn.GELU(), nn.Linear(MLP_RATIO * width, width)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return tokens (n, t, width) of tokens (n, t, width)."""
        count, tokens, width = x.shape
        qkv = self.qkv(self.norm1(x)).view(count, tokens, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(q, k, v)
        x = x + self.proj(seen.transpose(1, 2).reshape(count, tokens, width))
        added: torch.Tensor = x + self.mlp(self.norm2(x))
        return added


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Decoded:
    """What the decoder gives back.

    Parameters
    ----------
    slides
        (n, d): the vector at the class token.
    patches
        (n, p, d): all patches in their order, visible ones too.
    """

    slides: torch.Tensor
    patches: torch.Tensor


class SummaryNetwork(nn.Module):
    """Visible patches -> all patches and the slide.

    Parameters
    ----------
    shape
        Its sizes.
    """

    def __init__(self, shape: SummaryShape = SummaryShape()) -> None:
        super().__init__()
        self.shape = shape
        self.cls_token = nn.Parameter(torch.randn(1, 1, shape.width) * TOKEN_DEVIATION)
        self.blocks = nn.Sequential(*(Block(shape.width, shape.heads) for _ in range(shape.depth)))
        self.norm = nn.LayerNorm(shape.width)
        inner = shape.decoder_width
        self.decoder_embed = nn.Linear(shape.width, inner)
        self.mask_token = nn.Parameter(torch.randn(1, 1, inner) * TOKEN_DEVIATION)
        self.decoder_blocks = nn.Sequential(
            *(Block(inner, shape.decoder_heads) for _ in range(shape.decoder_depth))
        )
        self.decoder_norm = nn.LayerNorm(inner)
        self.decoder_pred = nn.Linear(inner, shape.width)
        self.apply(_initialise)

    def forward(self, patches: torch.Tensor, visible: torch.Tensor) -> Decoded:
        """Return what can be told from the visible patches alone.

        Parameters
        ----------
        patches
            (n, p, d).
        visible
            int64 (n, v): the patches seen, distinct; the class token is always seen.
        """
        return self.decoded(self.encoded(patches, visible), visible, patches.shape[1])

    def encoded(self, patches: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
        """Return the tokens (n, 1 + v, d) of the class and the visible patches."""
        places = sinusoids(patches.shape[1] + 1, patches.shape[2], patches.device)
        placed = patches + places[1:]
        seen = placed.gather(1, visible[..., None].expand(-1, -1, placed.shape[2]))
        first = (self.cls_token + places[:1]).expand(len(patches), -1, -1)
        tokens: torch.Tensor = self.norm(self.blocks(torch.cat([first, seen], dim=1)))
        return tokens

    def decoded(self, tokens: torch.Tensor, visible: torch.Tensor, count: int) -> Decoded:
        """Return all ``count`` patches and the slide from tokens (n, 1 + v, d)."""
        given = self.decoder_embed(tokens)
        inner = given.shape[2]
        places = sinusoids(count + 1, inner, tokens.device)
        unseen = self.mask_token.expand(len(tokens), count, inner)
        filled = unseen.scatter(1, visible[..., None].expand(-1, -1, inner), given[:, 1:])
        all_tokens = torch.cat([given[:, :1], filled], dim=1) + places
        out = self.decoder_pred(self.decoder_norm(self.decoder_blocks(all_tokens)))
        return Decoded(out[:, 0], out[:, 1:])


def sinusoids(count: int, width: int, device: torch.device | None = None) -> torch.Tensor:
    """Return fixed positions (count, width): sines, then cosines, of wavelengths up to 10,000."""
    frequencies = POSITION_BASE ** -(torch.arange(width // 2, device=device) / (width / 2))
    angles = torch.arange(count, device=device)[:, None] * frequencies[None]
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)
