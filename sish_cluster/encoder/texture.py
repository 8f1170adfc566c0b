"""A patch's texture code: which way its embedding goes, channel by channel.

The texture network turns a patch into 1024 numbers; `sish_cluster.core.code` keeps of them only whether
each is at least as large as the one before it. The default weights ship with the project.

Source
------
SISH, Methods, "Texture features".
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from sish_cluster.core.code import Codes, codes_of
from sish_cluster.core.seams import Pixels
from sish_cluster.encoder.checkpoint import digest_of_state, fill, read_weights
from sish_cluster.encoder.networks.densenet import DenseNet121
from sish_cluster.encoder.networks.inputs import (
    IMAGENET,
    checked_patches,
    device_of,
    placed,
    repeatable,
)

IMAGENET_WEIGHTS = Path(__file__).parent / "weights" / "densenet121-imagenet-fp16.safetensors"
"""Default weights: an ImageNet DenseNet-121 without its classifier; see ``weights/NOTE.md``."""

OPTIONAL = "classifier."
"""torchvision's own checkpoints carry the classifier, which no code needs."""


class TextureNetwork:
    """DenseNet-121 as an `Embedder`, and the codes of its embeddings.

    Parameters
    ----------
    weights
        A weights file with torchvision's names, with or without the classifier.
    device
        ``auto``, ``cpu`` or ``cuda``.
    """

    def __init__(self, weights: Path = IMAGENET_WEIGHTS, *, device: str = "auto") -> None:
        file = read_weights(weights)
        with torch.random.fork_rng(devices=[]):
            network = DenseNet121().eval().requires_grad_(False)
        fill(network, file, optional=OPTIONAL)
        self._device = device_of(device)
        self._network = placed(network, self._device)
        self.description = f"densenet121 ({file.name}, digest {file.digest[:12]})"
        self.weights_digest = digest_of_state(network)

    @property
    def dimensions(self) -> int:
        """Length of one embedding, and bits of one code."""
        return DenseNet121.dimensions

    def embeddings_of(self, patches: Pixels) -> npt.NDArray[np.float32]:
        """Return the embeddings (n, 1024) of patches uint8 (n, side, side, 3), each on its own."""
        checked_patches(patches)
        embeddings = np.empty((len(patches), self.dimensions), dtype=np.float32)
        with repeatable():
            for row, patch in zip(embeddings, patches, strict=True):
                row[:] = self._network(IMAGENET.tensor_of(patch, self._device))[0].cpu().numpy()
        return embeddings

    def codes_of(self, patches: Pixels) -> Codes:
        """Return the packed texture codes (n, 128) of patches uint8 (n, side, side, 3)."""
        return codes_of(self.embeddings_of(patches))
