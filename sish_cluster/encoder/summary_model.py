"""A trained summary network as a file: weights, sizes, and the teacher it was measured by.

One safetensors file; the sizes stand in its header, and the principal components of the slide vectors,
where it was trained against some, beside the weights.

Source
------
WSISum; the file is ours.
"""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import safetensors
import safetensors.torch
import torch

from sish_cluster.core.errors import BadWeights
from sish_cluster.core.slide import digest_of
from sish_cluster.encoder.checkpoint import WeightsFile, fill
from sish_cluster.encoder.networks.wsisum import SummaryNetwork, SummaryShape
from sish_cluster.encoder.summary_teacher import Projection

KIND = "sish summary network 1"
"""Entry of such a file's header; its value is the sizes."""

MEAN, AXES = "teacher.mean", "teacher.axes"
"""Names of the principal components beside the weights."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class SummaryModel:
    """A summary network, ready to select.

    Parameters
    ----------
    network
        In inference mode, on `device`.
    device
        Where it is.
    projection
        Of the slide vectors it was trained against; None for the mean embedding.
    digest
        Hex digest of its file; ``""`` for one that has none.
    """

    network: SummaryNetwork
    device: torch.device
    projection: Projection | None = None
    digest: str = ""


def write_summary_model(path: Path, network: SummaryNetwork, projection: Projection | None) -> None:
    """Write a network and its teacher's components, replacing the file at once."""
    tensors = {name: t.detach().cpu().contiguous() for name, t in network.state_dict().items()}
    if projection is not None:
        tensors[MEAN] = torch.from_numpy(projection.mean)
        tensors[AXES] = torch.from_numpy(np.ascontiguousarray(projection.axes))
    # One entry only: safetensors writes several in an order of chance, and the digest with them.
    header = {KIND: json.dumps(dataclasses.asdict(network.shape))}
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(path.name + ".new")
    new.write_bytes(safetensors.torch.save(tensors, metadata=header))
    os.replace(new, path)


def read_summary_model(path: Path, *, device: torch.device | None = None) -> SummaryModel:
    """Return the summary network in a file, on a device (the CPU by default).

    Raises
    ------
    BadWeights
        If it is missing, damaged, or something else.
    """
    try:
        content = path.read_bytes()
        tensors = safetensors.torch.load(content)
        with safetensors.safe_open(path, "pt") as file:
            header = file.metadata() or {}
    except (OSError, safetensors.SafetensorError) as error:
        raise BadWeights(f"{path}: is no summary model that can be read: {error}") from error
    if KIND not in header:
        raise BadWeights(
            f"{path}: is no summary model: its header has {', '.join(header) or 'nothing'}, wanted"
            f" {KIND!r}; `sish train wsisum` writes one"
        )
    projection = _taken_projection(tensors)
    with torch.random.fork_rng(devices=[]):
        network = SummaryNetwork(SummaryShape(**json.loads(header[KIND])))
    digest = digest_of(content)
    fill(network, WeightsFile(path.name, digest, tensors))
    where = device or torch.device("cpu")
    return SummaryModel(network.eval().requires_grad_(False).to(where), where, projection, digest)


def _taken_projection(tensors: dict[str, torch.Tensor]) -> Projection | None:
    if MEAN not in tensors or AXES not in tensors:
        return None
    return Projection(tensors.pop(MEAN).numpy(), tensors.pop(AXES).numpy())
