"""A map of a collection: its patches in the plane, alike beside alike.

t-SNE of the embeddings where the collection keeps them, else of the codes as signs (their Euclidean
distances are those of Hamming), after a PCA to 50 numbers. Few points get the PCA alone.
"""

from __future__ import annotations

import dataclasses
import random
import warnings
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from sish_cluster.core.counting import counted
from sish_cluster.core.errors import SishError
from sish_cluster.core.posting import PatchColumns
from sish_cluster.core.slide import Slide
from sish_cluster.evaluation.asked import AskedCluster

Floats = npt.NDArray[np.float32]
"""Real numbers, float32."""

MOST_POINTS = 1000
"""Patches on a map: t-SNE of these takes a few seconds on one idle core."""

LEAST_FOR_TSNE = 100
"""Points below which neighbourhoods of 20 mean little and the PCA is drawn instead."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class PatchMap:
    """Patches in the plane.

    Parameters
    ----------
    places
        float32 (n, 2), no unit.
    labels
        Each patch's label, (n,).
    method
        How it was made, in words.
    """

    places: Floats
    labels: Sequence[str]
    method: str


def map_of(
    cluster: AskedCluster, collection: str, slides: Sequence[Slide], *, label_field: str
) -> PatchMap | None:
    """Return the map of a sample of a collection's patches, or None where fewer than 3 can be read."""
    rng = random.Random(0)
    labelled = [slide for slide in slides if slide.label(label_field)]
    chosen = rng.sample(labelled, min(len(labelled), MOST_POINTS))
    per_slide = max(1, MOST_POINTS // max(len(chosen), 1))
    rows: list[Floats] = []
    labels: list[str] = []
    what = "codes"
    for slide in chosen:
        try:
            patches = cluster.encoded_slide(collection, slide.slide_id).patches
        except SishError:
            continue
        what = "embeddings" if patches.dimensions else "codes"
        few = sorted(rng.sample(range(len(patches)), min(per_slide, len(patches))))
        rows.append(vectors_of(patches.taken(np.asarray(few, np.int64))))
        labels += [slide.label(label_field)] * len(few)
    if len(labels) < 3:
        return None
    places, method = placed(np.concatenate(rows))
    return PatchMap(places, labels, f"{method} of the {what} of {counted(len(labels), 'patch')}")


def vectors_of(patches: PatchColumns) -> Floats:
    """Return patches as vectors of length 1: embeddings where there are any, else codes as signs."""
    if patches.dimensions:
        vectors = patches.embeddings.astype(np.float32)
    else:
        vectors = np.unpackbits(patches.codes, axis=1).astype(np.float32) * 2 - 1
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def placed(vectors: Floats) -> tuple[Floats, str]:
    """Return vectors (n, dimensions) in the plane, (n, 2), and the name of the method."""
    centred = vectors - vectors.mean(axis=0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    reduced = np.asarray(centred @ axes[:50].T, np.float32)
    if len(vectors) < LEAST_FOR_TSNE:
        return _two_columns(reduced), "PCA"
    try:
        from sklearn.manifold import TSNE
        from threadpoolctl import threadpool_limits
    except ModuleNotFoundError:
        return _two_columns(reduced), "PCA"
    # One thread: on a busy machine several wait for each other many times longer than one works.
    with warnings.catch_warnings(), threadpool_limits(1):
        # The library warns of its own coming defaults; everything that matters is given.
        warnings.simplefilter("ignore", FutureWarning)
        drawn = TSNE(2, perplexity=20, init="pca", max_iter=500, random_state=0).fit_transform(
            reduced
        )
    return np.asarray(drawn, np.float32), "t-SNE"


def _two_columns(reduced: Floats) -> Floats:
    wide = np.zeros((len(reduced), 2), np.float32)
    wide[:, : min(2, reduced.shape[1])] = reduced[:, :2]
    return wide
