"""Weights files: read without running anything in them, and refused by name when they do not fit.

Two formats: safetensors, and torch files read with ``weights_only=True`` (the published
``model_9.pt`` and ``codebook_semantic.pt`` among them). Digests are recorded, because weights decide
keys and codes.

Source
------
The published checkpoints' layout: ``torch.load(...)["model"]``, names possibly prefixed ``module.``.
"""

from __future__ import annotations

import dataclasses
import io
import pickle
import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.torch
import torch
from torch import nn

from sish_cluster.core.errors import BadWeights
from sish_cluster.core.slide import digest_of
from sish_cluster.encoder.networks.codeword_order import checked_ranks

State = Mapping[str, torch.Tensor]
"""Parameters and buffers by name."""

WRAPPERS = ("model", "state_dict")
"""Entries of a torch file under which the state may lie."""

PREFIX = "module."
"""What training on several GPUs puts before every name."""

UNUSED = "num_batches_tracked"
"""Counters of batch normalisation: they change nothing at inference and many files lack them."""

FORBIDDEN_OBJECT = re.compile(r"GLOBAL (\S+)")
"""Where torch's message names what a file asks to build."""

MOST_NAMED = 6
"""Differing names an error lists; more are counted."""


@dataclasses.dataclass(frozen=True, slots=True)
class WeightsFile:
    """A weights file that was read.

    Parameters
    ----------
    name
        The file's name.
    digest
        Hex digest of its bytes.
    state
        Its tensors, prefix stripped.
    """

    name: str
    digest: str
    state: State


def read_weights(path: Path) -> WeightsFile:
    """Return the state in a ``.safetensors`` file or a torch file.

    Raises
    ------
    BadWeights
        If the file is missing, is no weights file, or holds more than tensors.
    """
    content = _content_of(path)
    is_safe = path.suffix == ".safetensors"
    state = (
        _parsed(path, content, safetensors.torch.load) if is_safe else _torch_state(path, content)
    )
    return WeightsFile(path.name, digest_of(content), _without_prefix(state))


def read_ranks(path: Path) -> npt.NDArray[np.int64]:
    """Return the codeword ranks, int64 (128,), of a ``codebook_semantic.pt``.

    The file maps codeword to rank, as a mapping, a list or a tensor.

    Raises
    ------
    BadWeights
        If it is none of these, or no permutation of 0..127.
    """
    found = _parsed(path, _content_of(path), _loaded)
    if isinstance(found, Mapping):
        try:
            found = [found[codeword] for codeword in sorted(found, key=int)]
        except (TypeError, ValueError) as error:
            raise BadWeights(f"{path}: codewords are whole numbers; {error}") from error
    try:
        ranks = np.asarray([int(rank) for rank in found])
    except (TypeError, ValueError) as error:
        raise BadWeights(f"{path}: holds no codeword order but {type(found).__name__}") from error
    return checked_ranks(ranks, source=str(path))


def fill(network: nn.Module, weights: WeightsFile, *, optional: str = "\0") -> None:
    """Load weights into a network.

    Parameters
    ----------
    network
        Its names and shapes are what is wanted.
    weights
        What is given, any float type; computed with in float32.
    optional
        Names that start so may be missing or differ; they are then left as they are.

    Raises
    ------
    BadWeights
        Naming what is missing, unexpected or of another shape.
    """
    wanted = {k: tuple(v.shape) for k, v in network.state_dict().items() if not k.endswith(UNUSED)}
    given = {k: tuple(v.shape) for k, v in weights.state.items() if not k.endswith(UNUSED)}
    wrong = _differences(wanted, given)
    needed = [line for name, line in wrong.items() if not name.startswith(optional)]
    if needed:
        more = f" and {len(needed) - MOST_NAMED} more" if len(needed) > MOST_NAMED else ""
        raise BadWeights(
            f"{weights.name}: does not fit {type(network).__name__}: "
            f"{'; '.join(needed[:MOST_NAMED])}{more}. Give the weights of this network, or choose the"
            " profile whose network these weights belong to",
            metadata={"file": weights.name, "digest": weights.digest},
        )
    _check_finite(weights)
    skipped = optional if wrong else "\0"
    fitting = {k: v.float() for k, v in weights.state.items() if k in wanted}
    network.load_state_dict(
        {k: v for k, v in fitting.items() if not k.startswith(skipped)}, strict=False
    )


def digest_of_state(network: nn.Module, *, prefixes: tuple[str, ...] = ("",)) -> str:
    """Return the hex digest of the float32 values of the tensors whose names start with a prefix."""
    parts: list[bytes] = []
    for name, tensor in sorted(network.state_dict().items()):
        if name.startswith(prefixes) and not name.endswith(UNUSED):
            values = tensor.detach().cpu().float().contiguous().numpy().astype("<f4")
            parts += [name.encode(), repr(values.shape).encode(), values.tobytes()]
    return digest_of(*parts)


def _differences(
    wanted: Mapping[str, tuple[int, ...]], given: Mapping[str, tuple[int, ...]]
) -> dict[str, str]:
    lines = {name: f"missing {name}" for name in wanted if name not in given}
    lines |= {name: f"unexpected {name}" for name in given if name not in wanted}
    lines |= {
        name: f"{name} has shape {given[name]}, wanted {shape}"
        for name, shape in wanted.items()
        if name in given and given[name] != shape
    }
    return lines


def _check_finite(weights: WeightsFile) -> None:
    for name, tensor in weights.state.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise BadWeights(
                f"{weights.name}: {name} holds numbers that are not finite, and so would every key"
                " and code. Give a checkpoint from before the training went wrong"
            )


def _content_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadWeights(f"{path}: cannot be read: {error.strerror or error}") from error


def _loaded(content: bytes) -> Any:
    with warnings.catch_warnings(action="ignore"):  # What matters in a warning fails below anyway.
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


def _parsed(path: Path, content: bytes, parse: Callable[[bytes], Any]) -> Any:
    try:
        return parse(content)
    except (
        safetensors.SafetensorError,
        pickle.UnpicklingError,
        RuntimeError,
        EOFError,
        ValueError,
        KeyError,
        AttributeError,
        IndexError,
        TypeError,
    ) as error:
        raise BadWeights(
            f"{path}: is no weights file this project reads (safetensors, or a torch file holding"
            f" only tensors, numbers, lists and mappings): {_reason_of(error)}"
        ) from error


def _reason_of(error: Exception) -> str:
    """Say what was wrong; torch's own advice, to run what is in the file, is not passed on."""
    asked = FORBIDDEN_OBJECT.search(str(error))
    if asked:
        return (
            f"it asks to build {asked[1]}, which could run anything. Save the network's"
            " state_dict() alone, where you trust the file"
        )
    if isinstance(error, pickle.UnpicklingError | KeyError):
        return "its content is damaged, or of another kind. Fetch it again, or give another file"
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__


def _torch_state(path: Path, content: bytes) -> State:
    found = _parsed(path, content, _loaded)
    for wrapper in WRAPPERS:
        if isinstance(found, Mapping) and isinstance(found.get(wrapper), Mapping):
            found = found[wrapper]
    if not isinstance(found, Mapping) or not found:
        raise BadWeights(
            f"{path}: holds no state, but {type(found).__name__}. Give a file that maps names to"
            " tensors, as torch.save(network.state_dict()) writes it"
        )
    if not all(isinstance(v, torch.Tensor) for v in found.values()):
        wrong = next(k for k, v in found.items() if not isinstance(v, torch.Tensor))
        raise BadWeights(f"{path}: {wrong!r} is no tensor; a state holds only tensors")
    return found


def _without_prefix(state: State) -> State:
    return {name.removeprefix(PREFIX): tensor for name, tensor in state.items()}
