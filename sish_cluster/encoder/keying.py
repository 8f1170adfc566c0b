"""A patch's key: its codewords' ranks, pooled three times.

The key network turns a patch into a 64 x 64 grid of codewords; their semantic ranks are summed by
`sish_cluster.core.key`. The compact network ships trained (its model card lies beside the weights). The
published one, without weights of one's own, is an untrained seeded initialisation: its keys follow
colour and brightness, and the description says so wherever it is shown.

Source
------
SISH, Methods, "Index generation".
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from sish_cluster.core.key import Keys, keys_of
from sish_cluster.core.seams import Pixels
from sish_cluster.core.slide import digest_of
from sish_cluster.encoder.checkpoint import (
    WeightsFile,
    digest_of_state,
    fill,
    read_ranks,
    read_weights,
)
from sish_cluster.encoder.networks.codeword_order import checked_ranks, ranks_of
from sish_cluster.encoder.networks.engine import EngineSettings, Runner, plan_of
from sish_cluster.encoder.networks.inputs import (
    SYMMETRIC,
    checked_patches,
    device_of,
    placed,
    repeatable,
)
from sish_cluster.encoder.networks.seeding import SEED, seeded
from sish_cluster.encoder.networks.vqvae import COMPACT, SIZES, VqVae, VqVaeSize

UNTRAINED = f"untrained seeded initialisation, seed {SEED}"
"""What descriptions say of a key network without weights of its own."""

SHIPPED = {COMPACT.name: Path(__file__).parent / "weights" / "vqvae-compact.safetensors"}
"""Weights that ship with the project, by size of the network."""

RANKS_NAME = "codeword_ranks"
"""Tensor of a safetensors weights file that holds the semantic order, where there is one."""


class KeyNetwork:
    """A VQ-VAE's encoder, codebook and codeword ranks.

    Parameters
    ----------
    size
        Name of the VQ-VAE size, see `sish_cluster.encoder.networks.vqvae.SIZES`.
    weights
        A checkpoint of that size; None for the weights that ship, or else the untrained seeded
        initialisation.
    codeword_order
        A ``codebook_semantic.pt``; None to take the order stored with the weights, or else to
        compute it from the codebook.
    device
        ``auto``, ``cpu`` or ``cuda``.
    running
        The engine; its precision does not count: codewords are chosen in float32 everywhere.
    """

    def __init__(
        self,
        size: str,
        weights: Path | None = None,
        *,
        codeword_order: Path | None = None,
        device: str = "auto",
        running: EngineSettings = EngineSettings(),  # noqa: B008
    ) -> None:
        self.size: VqVaeSize = SIZES[size]
        own, weights = weights, weights or SHIPPED.get(size)
        self.is_trained = weights is not None
        if weights is None:
            network, ranks = seeded(self.size)
            origin = UNTRAINED
        else:
            file = read_weights(weights)
            network, ranks = _from_file(self.size, file, wants_ranks=codeword_order is None)
            origin = f"{'' if own else 'trained, '}{file.name}, digest {file.digest[:12]}"
        self.ranks = ranks if codeword_order is None else read_ranks(codeword_order)
        self.description = f"{self.size.name} ({origin})"
        self.weights_digest = digest_of_state(network, prefixes=("encoder.", "codebook."))
        self.ranks_digest = digest_of(self.ranks.astype("<i8").tobytes())
        plan = plan_of(running, device_of(device), keeps_float32=True)
        self.codebook = placed(network.codebook, plan.device)
        self.runner = Runner(network.encoder, plan)

    def latents_of(self, patches: Pixels) -> npt.NDArray[np.int64]:
        """Return the codewords (n, side / reduction, ...) of patches uint8 (n, side, side, 3)."""
        checked_patches(patches, multiple_of=self.size.side_px)
        with repeatable():
            latents = [
                self.codebook.nearest(self.runner(batch)).cpu().numpy()
                for batch in SYMMETRIC.batches_of(patches, self.runner.plan.device)
            ]
        return np.concatenate(latents) if latents else np.zeros((0, 64, 64), np.int64)

    def keys_of(self, patches: Pixels) -> Keys:
        """Return the keys (n,) of patches uint8 (n, side, side, 3), side being `VqVaeSize.side_px`."""
        return keys_of(self.ranks[self.latents_of(patches)])


def _from_file(
    size: VqVaeSize, file: WeightsFile, *, wants_ranks: bool
) -> tuple[VqVae, npt.NDArray[np.int64]]:
    """Return the network of a checkpoint and its codeword ranks (128,).

    The decoder is needed only to compute the ranks, and may otherwise be missing.
    """
    state = dict(file.state)
    stored = state.pop(RANKS_NAME, None)
    with torch.random.fork_rng(devices=[]):
        network = VqVae(size).eval().requires_grad_(False)
    computes_ranks = wants_ranks and stored is None
    fill(
        network,
        WeightsFile(file.name, file.digest, state),
        optional="\0" if computes_ranks else "decoder.",
    )
    if stored is not None:
        return network, checked_ranks(stored.numpy(), source=file.name)
    return network, ranks_of(network) if computes_ranks else np.arange(0)
