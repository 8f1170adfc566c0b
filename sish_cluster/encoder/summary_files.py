"""Feature files: one h5 per slide in, one summary per slide out.

The layout is the one other pathology tools write: ``features`` (n, d) and ``coords`` (n, 2), perhaps with
a leading axis of 1. A summary has the same two, of the chosen patches alone, and says which they are.

Frames: coords are whatever the file says, level-0 pixels in most.

Source
------
WSISum, "Data"; the layout is that of CLAM's and TRIDENT's feature files.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from sish_cluster.core.errors import BadRequest, BadSlide

FEATURE_SUFFIXES = (".h5", ".hdf5")
"""Files of a feature folder that are read."""

FEATURES, COORDS, INDICES, SCORE = "features", "coords", "indices", "score"
"""Names of the datasets; a summary has all four."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class SlideFeatures:
    """The embeddings of a slide's patches.

    Parameters
    ----------
    name
        The slide's name: the file's, without suffix.
    features
        float32 (n, d), n >= 1.
    coords
        (n, 2), any number type, as in the file.
    """

    name: str
    features: npt.NDArray[np.float32]
    coords: npt.NDArray[np.generic]

    def __len__(self) -> int:
        return len(self.features)


def feature_files(folder: Path) -> list[Path]:
    """Return the feature files of a folder and its subfolders, in name order.

    Raises
    ------
    BadRequest
        If there is none, or two bear one name.
    """
    if not folder.is_dir():
        raise BadRequest(f"{folder}: there is no such folder of feature files; check the path")
    found = sorted(file for file in folder.rglob("*") if file.suffix in FEATURE_SUFFIXES)
    if not found:
        raise BadRequest(f"{folder}: holds no feature file ({', '.join(FEATURE_SUFFIXES)})")
    first: dict[str, Path] = {}
    for file in found:
        if first.setdefault(file.stem, file) is not file:
            raise BadRequest(f"{first[file.stem]} and {file} bear one slide's name; rename one")
    return found


def read_features(path: Path) -> SlideFeatures:
    """Return the features and coords in a file.

    Raises
    ------
    BadSlide
        If it cannot be read, lacks either, or they do not fit each other.
    """
    try:
        with h5py.File(path, "r") as file:
            features, coords = _dataset(path, file, FEATURES), _dataset(path, file, COORDS)
    except OSError as error:
        raise BadSlide(f"{path}: is no h5 file that can be read: {error}") from error
    if features.ndim != 2 or coords.shape != (len(features), 2) or not len(features):
        raise BadSlide(
            f"{path}: features are (n, d) and coords (n, 2), n >= 1, or both with a leading axis of"
            f" 1; found {features.shape} and {coords.shape}"
        )
    numbers = np.asarray(features, np.float32)
    if not np.isfinite(numbers).all():
        raise BadSlide(f"{path}: some features are no finite numbers; compute them again")
    return SlideFeatures(path.stem, numbers, coords)


def _dataset(path: Path, file: h5py.File, name: str) -> npt.NDArray[np.generic]:
    found = file.get(name)
    if not isinstance(found, h5py.Dataset):
        raise BadSlide(
            f"{path}: has no dataset {name!r}, but {', '.join(map(repr, file)) or 'nothing'};"
            " a feature file has features and coords"
        )
    array = np.asarray(found[()])
    return array[0] if array.ndim == 3 and len(array) == 1 else array


def write_features(path: Path, features: npt.NDArray[np.float32], coords: npt.ArrayLike) -> None:
    """Write a feature file of features (n, d) and coords (n, 2), replacing it at once."""
    _write(path, {FEATURES: np.asarray(features, np.float32), COORDS: np.asarray(coords)}, {})


def write_summary(
    path: Path, slide: SlideFeatures, rows: npt.NDArray[np.int64], *, score: float, method: str
) -> None:
    """Write a slide's summary, replacing the file at once.

    Parameters
    ----------
    path
        The h5 to write.
    slide
        What was summarised.
    rows
        int64 (k,): rows of ``slide`` that were chosen, ascending; stored as ``indices``.
    score
        Cosine of the summary's slide vector and the teacher's; NaN for methods without one.
    method
        How they were chosen; stored as an attribute.
    """
    arrays = {
        FEATURES: slide.features[rows],
        COORDS: slide.coords[rows],
        INDICES: rows,
        SCORE: np.float64(score),
    }
    _write(path, arrays, {"method": method, "patches": len(slide)})


def _write(path: Path, arrays: Mapping[str, Any], attributes: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(path.name + ".new")
    with h5py.File(new, "w") as file:
        for name, array in arrays.items():
            file.create_dataset(name, data=array)
        file.attrs.update(attributes)
    os.replace(new, path)


def read_vectors(path: Path) -> dict[str, npt.NDArray[np.float32]]:
    """Return slide vectors by slide name: each dataset of an h5 file is one slide's vector (d,).

    Raises
    ------
    BadRequest
        If it cannot be read, or vectors differ in length.
    """
    try:
        with h5py.File(path, "r") as file:
            found = {name: np.asarray(file[name][()], np.float32).ravel() for name in file}
    except (OSError, TypeError, ValueError, AttributeError) as error:
        raise BadRequest(f"{path}: is no h5 file of slide vectors: {error}") from error
    lengths = {len(vector) for vector in found.values()}
    if len(lengths) != 1:
        raise BadRequest(f"{path}: slide vectors have one length; found {sorted(lengths)}")
    return found
