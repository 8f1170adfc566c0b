"""Reading HDF5 files nobody vouches for: the datasets that are asked for, from this file alone.

HDF5 can point into other files (external links, external and virtual storage): such datasets are refused, so
that an import reads what it was given and nothing else.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sish_cluster.core.errors import BadFile, BadRequest
from sish_cluster.core.posting import MAX_PATCHES, Corners

COORDS = "coords"
"""Dataset of corners in every published and feature file."""

FEATURES = "features"
"""Dataset of latents (published) or embeddings (feature files)."""

ATTRIBUTES = (
    "name", "patch_size", "patch_level", "patch_size_level0", "downsample", "level0_width",
    "level0_height",
)  # fmt: skip
"""Attributes of corners that are read: what CLAM, TRIDENT and the published pipeline write."""

LARGEST_CORNER = (1 << 31) - 1
"""Corners are stored in 32 bits; none lies left of or above its slide."""


def h5py_module() -> Any:
    """Return h5py, or raise `BadRequest` saying how to install it."""
    try:
        import h5py
    except ModuleNotFoundError as error:
        raise BadRequest(
            "HDF5 files need h5py, which is not installed: pip install 'sish-cluster[exchange]'"
        ) from error
    return h5py


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Open an HDF5 file for reading; a damaged or missing one is a `BadFile`."""
    h5py = h5py_module()
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, RuntimeError) as error:
        raise BadFile(f"{path}: cannot be read as HDF5 ({error}); write it again") from error


def dataset_of(file: Any, name: str) -> Any:
    """Return a dataset of the file itself.

    Raises
    ------
    BadFile
        If it is missing, no dataset, or its values lie in another file.
    """
    h5py = h5py_module()
    link = file.get(name, getlink=True)
    found = file.get(name) if isinstance(link, h5py.HardLink) else None
    if not isinstance(found, h5py.Dataset):
        names = ", ".join(sorted(file)) or "nothing"
        raise BadFile(f"{file.filename}: has no dataset {name!r} of its own; found {names[:200]}")
    if found.external or found.is_virtual:
        raise BadFile(f"{file.filename}: dataset {name!r} lies in other files, which are not read")
    return found


def row_shape(dataset: Any, *, source: str) -> tuple[int, ...]:
    """Return the shape of a dataset [n, d] or [1, n, d] without that axis of length 1; n is bounded."""
    shape = tuple(int(length) for length in dataset.shape)
    if len(shape) == 3 and shape[0] == 1:
        shape = shape[1:]
    if not shape or shape[0] > MAX_PATCHES:
        raise BadFile(
            f"{source}: dataset {dataset.name!r} has shape {shape}, expected at most {MAX_PATCHES} rows"
        )
    return shape


def rows_of(dataset: Any, start: int, end: int) -> npt.NDArray[Any]:
    """Return rows ``start:end``, a leading axis of length 1 taken off."""
    has_extra = len(dataset.shape) == 3 and dataset.shape[0] == 1
    return np.asarray(dataset[0, start:end] if has_extra else dataset[start:end])


def corners_in(file: Any) -> Corners:
    """Return the corners (n, 2), int32, of a file's ``coords``: whole level-0 pixels.

    Raises
    ------
    BadFile
        If there are none, they have another shape, or a row is no whole number of 0..`LARGEST_CORNER`.
    """
    dataset = dataset_of(file, COORDS)
    shape = row_shape(dataset, source=file.filename)
    if len(shape) != 2 or shape[1] != 2 or dataset.dtype.kind not in "iuf":
        raise BadFile(
            f"{file.filename}: {COORDS} has shape {dataset.shape} and type {dataset.dtype}, expected"
            " [n, 2] or [1, n, 2] numbers (x, y)"
        )
    found = rows_of(dataset, 0, shape[0])
    exact = found.astype(np.float64)  # in single precision the bound itself would be rounded up
    is_good = (exact == np.floor(exact)) & (exact >= 0) & (exact <= LARGEST_CORNER)
    bad = np.flatnonzero(~is_good.all(axis=1))
    if bad.size:
        row = int(bad[0])
        raise BadFile(
            f"{file.filename}: {COORDS} row {row}: found {found[row].tolist()}, expected whole level-0"
            f" pixels, 0..{LARGEST_CORNER}"
        )
    return found.astype(np.int32)


def attributes_of(*holders: Any) -> dict[str, Any]:
    """Return the attributes this project knows of datasets or files, the first that has one; the rest is skipped."""
    found: dict[str, Any] = {}
    for holder in reversed(holders):
        for name in ATTRIBUTES:
            # An attribute of a type that numpy has no word for is none of ours.
            with contextlib.suppress(OSError, TypeError, ValueError):
                found |= {name: holder.attrs[name]} if name in holder.attrs else {}
    return found


def patch_side_px(attributes: Mapping[str, Any]) -> int:
    """Return a patch's side in level-0 pixels, 0 where the attributes do not say it.

    ``patch_size_level0`` is taken as it is; ``patch_size`` times ``downsample`` of its ``patch_level``
    otherwise, the downsample being 1 at level 0.
    """
    direct = _number(attributes.get("patch_size_level0"))
    if direct:
        return round(direct)
    level = _number(attributes.get("patch_level"))
    downsample = 1.0 if level == 0 else _number(attributes.get("downsample"))
    side = _number(attributes.get("patch_size")) * downsample
    return round(side) if side <= LARGEST_CORNER else 0


def side_px_in(path: Path) -> int:
    """Return a patch's side in level-0 pixels as a file of corners says it, 0 where it does not."""
    with opened(path) as file:
        return patch_side_px(attributes_of(dataset_of(file, COORDS)))


def files_by_stem(folder: Path, *, parent: str = "") -> dict[str, Path]:
    """Return a folder's ``*.h5`` by name without suffix, its subfolders searched.

    Parameters
    ----------
    folder
        Where to look.
    parent
        Name of the folder a file must lie in; ``""`` for any.

    Raises
    ------
    BadFile
        If there is no such folder.
    """
    if not folder.is_dir():
        raise BadFile(f"{folder}: there is no such folder; check the path")
    found = sorted(folder.rglob("*.h5"))
    return {path.stem: path for path in found if not parent or path.parent.name == parent}


def whole_attribute(attributes: Mapping[str, Any], name: str) -> int:
    """Return a whole number of the attributes, 0 where it is missing or none."""
    return round(_number(attributes.get(name)))


def _number(value: Any) -> float:
    """Return the first positive number of an attribute, 0 for anything else."""
    array = np.ravel(np.asarray(value if value is not None else 0))
    if not array.size or array.dtype.kind not in "iuf" or not np.isfinite(array[0]):
        return 0.0
    return max(0.0, float(array[0]))


def text_attribute(attributes: Mapping[str, Any], name: str) -> str:
    """Return a text of the attributes, ``""`` where it is missing or none."""
    value = attributes.get(name)
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    return value if isinstance(value, str) else ""
