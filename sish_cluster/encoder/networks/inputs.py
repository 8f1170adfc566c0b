"""Pixels on their way into a network, and the conditions under which bytes repeat.

Every patch goes through a network alone, on one thread, in channels-last order: its result then
depends on nothing but its pixels, the weights and the processor's arithmetic. At 512 px and more,
batches are no faster on a CPU, so this costs nothing there.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from sish_cluster.core.errors import BadRequest, EncoderUnavailable
from sish_cluster.core.seams import Pixels

Network = TypeVar("Network", bound=nn.Module)


WHOLE_CENTRE = 128.0
"""Taken off pixels that stay whole numbers: their magnitudes stay small."""


class Staged(Protocol):
    """A network whose first layers see pixels: torch runs those in float32 where the rest is bfloat16.

    A normalised pixel rounded to bfloat16 is wrong in its eighth bit (see `whole_of`). The stem is about 4 % of
    a network's work.
    """

    def stem(self, x: torch.Tensor) -> torch.Tensor:
        """Return the grid the first block begins with."""

    def rest(self, grid: torch.Tensor) -> torch.Tensor:
        """Return the network's answer from what `stem` gives."""


class Stem(nn.Module):
    """The first layers of a `Staged` network as a network of their own."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the grid the first block begins with."""
        return self.network.stem(x)  # type: ignore[no-any-return,operator]


class Rest(nn.Module):
    """The layers after a `Staged` network's stem as a network of their own."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, grid: torch.Tensor) -> torch.Tensor:
        """Return the network's answer."""
        return self.network.rest(grid)  # type: ignore[no-any-return,operator]


@dataclasses.dataclass(frozen=True, slots=True)
class Normalisation:
    """``(x / 255 - mean) / deviation`` per channel.

    Parameters
    ----------
    name
        What fingerprints call it.
    mean, deviation
        Red, green, blue, in [0, 1].
    """

    name: str
    mean: tuple[float, float, float]
    deviation: tuple[float, float, float]

    def tensor_of(self, patch: npt.NDArray[np.uint8], device: torch.device) -> torch.Tensor:
        """Return a patch (side, side, 3) as float32 (1, 3, side, side), channels-last."""
        return self.batch_of(patch[None], device)

    def batches_of(
        self, patches: Pixels, device: torch.device, *, whole: bool = False
    ) -> Iterator[torch.Tensor]:
        """Yield patches (n, side, side, 3) as float32 (b, 3, side, side), channels-last; see `whole_of`.

        One by one on a CPU: larger batches are slower there, and a row depends on its patch alone. All at
        once on a GPU, whose rows may then differ in their last bits with the size of the batch.
        """
        together = together_on(device, len(patches))
        for start in range(0, len(patches), together):
            batch = patches[start : start + together]
            yield whole_of(batch, device) if whole else self.batch_of(batch, device)

    def batch_of(self, patches: Pixels, device: torch.device) -> torch.Tensor:
        """Return patches (n, side, side, 3) as float32 (n, 3, side, side), channels-last."""
        x = torch.from_numpy(np.array(patches)).to(device).permute(0, 3, 1, 2)
        scale, shift = (factor.view(1, 3, 1, 1).to(device) for factor in self._line)
        return x.float().mul_(scale).add_(shift)

    def folded(self, weight: torch.Tensor) -> torch.Tensor:
        """Return the weights (out, 4, h, w) of a first convolution (out, 3, h, w) that sees `whole_of`.

        The fourth channel adds what normalisation subtracts; where a patch is padded it is 0, as the rest.
        """
        scale, shift = (factor.double().view(1, 3, 1, 1) for factor in self._line)
        wide = weight.double()
        constant = (wide * (shift + WHOLE_CENTRE * scale)).sum(1, keepdim=True)
        return torch.cat([wide * scale, constant], 1).float()

    @property
    def _line(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Factor and summand of each channel of pixels 0..255."""
        scale = torch.tensor([1.0 / (255.0 * d) for d in self.deviation])
        return scale, torch.tensor([-m / d for m, d in zip(self.mean, self.deviation, strict=True)])


SYMMETRIC = Normalisation("symmetric", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
"""2x - 1, to [-1, 1]: what the VQ-VAE was trained on."""

IMAGENET = Normalisation("imagenet", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""ImageNet's means and deviations: what the texture network was trained on."""

LITE = Normalisation("lite", (127 / 255,) * 3, (128 / 255,) * 3)
"""(x - 127) / 128: what TensorFlow's Lite networks were trained on."""


def whole_of(patches: Pixels, device: torch.device) -> torch.Tensor:
    """Return patches (n, side, side, 3) as whole numbers -128..127 and a channel of ones: (n, 4, side, side).

    bfloat16 holds these exactly, and normalised pixels only to 8 bits: that alone would change twice as many
    bits of a code as all later layers do. The first convolution's weights take the normalisation over.
    """
    n, height, width, _ = patches.shape
    x = torch.ones((n, height, width, 4), dtype=torch.float32, device=device)
    x[..., :3] = torch.from_numpy(np.array(patches)).to(device)
    x[..., :3] -= WHOLE_CENTRE
    return x.permute(0, 3, 1, 2)


def together_on(device: torch.device, n: int) -> int:
    """Return how many of n patches go through a network together on a device."""
    return 1 if device.type == "cpu" else max(1, n)


def checked_patches(patches: Pixels, *, multiple_of: int = 1) -> Pixels:
    """Return patches, or raise `BadRequest` unless they are uint8 (n, side, side, 3)."""
    square = patches.ndim == 4 and patches.shape[1] == patches.shape[2] and patches.shape[3] == 3
    if not square or patches.dtype != np.uint8 or patches.shape[1] % multiple_of:
        raise BadRequest(
            f"patches are uint8 (n, side, side, 3), side a multiple of {multiple_of}; found"
            f" {patches.dtype} {patches.shape}",
            field="patches",
        )
    return patches


def device_of(name: str) -> torch.device:
    """Return the device called ``auto``, ``cpu`` or ``cuda``; float32 stays float32 on a GPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda"):
        if not torch.cuda.is_available():
            raise EncoderUnavailable(
                f"device {name!r} was asked for, and torch sees no GPU: use --device cpu"
            )
        # TF32 would change keys and codes from one kind of GPU to the next.
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.benchmark = False
    return torch.device(name)


def placed(network: Network, device: torch.device) -> Network:
    """Return the network on a device, its weights in channels-last order."""
    return network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


@contextlib.contextmanager
def repeatable() -> Iterator[None]:
    """Run torch without gradients on one thread of the calling thread; restore the count after."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            yield
    finally:
        torch.set_num_threads(threads)
