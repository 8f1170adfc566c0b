"""An embedder of one's own: a network saved as TorchScript or with torch.export.

The file is asked for one patch at a time, float32 (1, 3, side, side), scaled as its settings say, and
answers with one vector (1, dimensions). What it expects may stand in a JSON file beside it, named as the
file with ``.json`` after it: ``{"side_px": 224, "mpp": 0.5, "mean": [...], "deviation": [...]}``.

Notes
-----
A TorchScript file is a program: loading it runs what is in it. It is refused unless the caller says that
the code may run (``--trust-embedder-code``). A torch.export file (``.pt2``) is a graph of known operators,
but torch reads it with pickle in places, so the same word is asked for.
"""

from __future__ import annotations

import dataclasses
import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from sish_cluster.core.embedding import MAX_DIMENSIONS
from sish_cluster.core.errors import BadRequest, BadWeights
from sish_cluster.core.seams import Pixels
from sish_cluster.core.slide import digest_of
from sish_cluster.encoder.networks.inputs import (
    Normalisation,
    checked_patches,
    device_of,
    repeatable,
)
from sish_cluster.encoder.profile import Profile, own_profile
from sish_cluster.encoder.settings import EmbedderFileSettings

EXPORTED = ".pt2"
"""Suffix of torch.export files."""

DEFAULT_SIDE_PX = 224
"""Side of the input when nothing is said, px: what most published encoders take."""

DEFAULT_MPP = 0.5
"""Scale of the input when nothing is said, um per px: 20x, what most published encoders saw."""


@dataclasses.dataclass(frozen=True, slots=True)
class OwnEmbedder:
    """A file of one's own with the profile it brings."""

    settings: EmbedderFileSettings
    profile: Profile


class FileEmbedder:
    """A TorchScript or torch.export file as an `Embedder`.

    Parameters
    ----------
    settings
        The file, its normalisation, and whether its code may run.
    side_px
        Side of its input, px.
    device
        ``auto``, ``cpu`` or ``cuda``.

    Raises
    ------
    BadRequest
        If its code may not run.
    BadWeights
        If it cannot be loaded, or answers with anything but one finite vector.
    """

    def __init__(
        self, settings: EmbedderFileSettings, *, side_px: int, device: str = "auto"
    ) -> None:
        if not settings.trusts_code:
            raise BadRequest(
                f"{settings.path}: loading an embedder file runs the code in it. If you trust where it"
                " comes from, say so with --trust-embedder-code; or give --embedder a name and --weights"
                " a file of weights, which runs nothing",
                field="embedder",
            )
        content = _content_of(settings.path)
        self._settings = settings
        self._side_px = side_px
        self._device = device_of(device)
        self._network = _loaded(settings.path, self._device)
        self.weights_digest = digest_of(content)
        self._normalisation = Normalisation("own", settings.mean, settings.deviation)
        self.dimensions = self._tried()
        self.description = f"{settings.path.name} (own file, digest {self.weights_digest[:12]})"

    @property
    def parts(self) -> Mapping[str, object]:
        """Everything that changes an embedding, as plain values for the fingerprint."""
        return {
            "network": "own file",
            "weights": self.weights_digest,
            "normalisation": [list(self._settings.mean), list(self._settings.deviation)],
            "side_px": self._side_px,
            "bits": self.dimensions,
        }

    def embeddings_of(self, patches: Pixels) -> npt.NDArray[np.float32]:
        """Return the embeddings (n, dimensions) of patches uint8 (n, side, side, 3), each on its own."""
        checked_patches(patches)
        if len(patches) and patches.shape[1] != self._side_px:
            raise BadRequest(
                f"{self._settings.path.name} takes patches of {self._side_px} px a side; found"
                f" {patches.shape[1]}",
                field="patches",
            )
        embeddings = np.empty((len(patches), self.dimensions), dtype=np.float32)
        for row, patch in zip(embeddings, patches, strict=True):
            row[:] = self._answer(patch)[0]
        return embeddings

    def _answer(self, patch: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        pixels = self._normalisation.tensor_of(patch, self._device).contiguous()
        with repeatable():
            answer = self._network(pixels)
        if not isinstance(answer, torch.Tensor):
            raise self._refused(f"answers with {type(answer).__name__}")
        return answer.float().cpu().numpy()

    def _tried(self) -> int:
        """Return the length of the answer to one grey patch."""
        patch = np.full((self._side_px, self._side_px, 3), 200, np.uint8)
        try:
            answer = self._answer(patch)
        except (RuntimeError, ValueError, TypeError, AssertionError) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
            raise self._refused(
                f"fails on a patch of {self._side_px} px: {reason[:200]}"
            ) from error
        if answer.ndim != 2 or len(answer) != 1 or not 1 < answer.shape[1] <= MAX_DIMENSIONS:
            raise self._refused(f"answers with shape {answer.shape}")
        if not np.isfinite(answer).all():
            raise self._refused("answers with numbers that are not finite")
        return int(answer.shape[1])

    def _refused(self, what: str) -> BadWeights:
        return BadWeights(
            f"{self._settings.path}: {what}; an embedder takes float32 (1, 3, {self._side_px},"
            f" {self._side_px}) and answers with one vector (1, 2..{MAX_DIMENSIONS})"
        )


def read_own(
    path: Path,
    *,
    side_px: int | None = None,
    mpp: float | None = None,
    trusts_code: bool = False,
) -> OwnEmbedder:
    """Return an embedder file with what it expects: as given, else from the JSON beside it, else usual.

    Raises
    ------
    BadRequest
        If there is no such file, or what stands beside it is no such JSON or out of bounds.
    """
    if not path.is_file():
        raise BadRequest(f"{path}: there is no such embedder file", field="embedder")
    beside = _beside(path)
    settings = EmbedderFileSettings(
        path,
        **{
            name: _three(path, name, beside[name])
            for name in ("mean", "deviation")
            if name in beside
        },
        trusts_code=trusts_code,
    )
    profile = own_profile(
        side_px=side_px or int(beside.get("side_px", DEFAULT_SIDE_PX)),
        mpp=mpp or float(beside.get("mpp", DEFAULT_MPP)),
    )
    return OwnEmbedder(settings, profile)


def _beside(path: Path) -> dict[str, Any]:
    file = path.with_name(path.name + ".json")
    if not file.exists():
        return {}
    known = {"side_px", "mpp", "mean", "deviation"}
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadRequest(
            f"{file}: is no JSON that can be read: {error}", field="embedder"
        ) from error
    if not isinstance(found, dict) or set(found) - known:
        raise BadRequest(
            f"{file}: holds an object with any of {', '.join(sorted(known))}; found"
            f" {sorted(set(found) - known) if isinstance(found, dict) else type(found).__name__}",
            field="embedder",
        )
    numbers = [found[name] for name in ("side_px", "mpp") if name in found]
    if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in numbers):
        raise BadRequest(f"{file}: side_px and mpp are numbers; found {numbers}", field="embedder")
    return found


def _three(path: Path, name: str, values: object) -> tuple[float, float, float]:
    good = isinstance(values, list) and len(values) == 3
    if not good or not all(isinstance(v, int | float) for v in values):  # type: ignore[attr-defined]
        raise BadRequest(
            f"{path.name}.json: {name} is three numbers (red, green, blue, of pixels in 0..1);"
            f" found {values}",
            field="embedder",
        )
    red, green, blue = (float(v) for v in values)  # type: ignore[attr-defined]
    if name == "deviation" and min(red, green, blue) <= 0:
        raise BadRequest(
            f"{path.name}.json: deviations are above 0; found {values}", field="embedder"
        )
    return red, green, blue


def _content_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadWeights(f"{path}: cannot be read: {error.strerror or error}") from error


def _loaded(path: Path, device: torch.device) -> Callable[[torch.Tensor], Any]:
    try:
        with warnings.catch_warnings(action="ignore"):  # torch calls TorchScript deprecated.
            if path.suffix == EXPORTED:
                exported: Any = torch.export.load(path).module()
                return exported.to(device)  # type: ignore[no-any-return]
            scripted: Any = torch.jit.load(path, map_location=device)  # type: ignore[no-untyped-call]
            return scripted.eval()  # type: ignore[no-any-return]
    except Exception as error:  # Loaders raise whatever the bytes make them.
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise BadWeights(
            f"{path}: is no embedder file: {reason[:200]}. Save the network with torch.jit.save or, as"
            f" {EXPORTED}, with torch.export.save"
        ) from error
