"""Checkpoints of a training: everything it needs to go on as if nobody had stopped it.

A checkpoint is one file, written beside its place and moved there, so that a kill at any moment leaves
the old one or the new one. It holds tensors, numbers, texts, lists and mappings only, and is read with
``weights_only=True``: reading one runs nothing.

Source
------
Ours.
"""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import torch

from sish_cluster.core.errors import BadWeights, CheckpointMismatch

CHECKPOINT_FILE = "checkpoint.pt"
"""Name of the checkpoint in a run's folder."""

FORMAT = 1
"""Layout of the file; a file of another layout is refused."""


def write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Replace the checkpoint at ``path`` by ``state``; durable when it returns."""
    new = path.with_suffix(".new")
    with new.open("wb") as file:
        torch.save({"format": FORMAT, **state}, file)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def read_checkpoint(path: Path, *, identity: str) -> dict[str, Any] | None:
    """Return the state at ``path``, or None where there is none.

    Parameters
    ----------
    path
        The checkpoint.
    identity
        What is trained, on what, how; a checkpoint of anything else is refused.

    Raises
    ------
    BadWeights
        If the file is no checkpoint.
    CheckpointMismatch
        If it belongs to another training.
    """
    if not path.exists():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        raise BadWeights(
            f"{path}: is no checkpoint of a training: {str(error).partition(chr(10))[0][:200]}."
            " Remove it to begin again"
        ) from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise BadWeights(f"{path}: is no checkpoint of format {FORMAT}; remove it to begin again")
    if state["identity"] != identity:
        raise CheckpointMismatch(
            f"{path}: belongs to the training {state['identity']!r}, asked for {identity!r}; give"
            " another --out, or the options it was begun with"
        )
    return state


def devices_in_use() -> list[int]:
    """Return the number of the GPU that this process trains on, or nothing without one."""
    return [torch.cuda.current_device()] if torch.cuda.is_available() else []


def random_states() -> dict[str, Any]:
    """Return the states of torch's generators, on the CPU and on the GPU in use."""
    gpus = [torch.cuda.get_rng_state(number) for number in devices_in_use()]
    return {"cpu": torch.get_rng_state(), "gpus": gpus}


def restore_random_states(states: dict[str, Any]) -> None:
    """Set torch's generators to what `random_states` returned."""
    torch.set_rng_state(states["cpu"])
    for number, state in zip(devices_in_use(), states["gpus"], strict=False):
        torch.cuda.set_rng_state(state, number)
