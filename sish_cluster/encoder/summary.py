"""WSISum: the few patches of a slide from which the whole slide can be told best.

A trained network reconstructs a slide from the patches it is shown. Selection shows it many random
choices and keeps the one whose reconstructed slide vector is nearest the true one; a last few tries exchange
one patch of it. Those patches are the summary, and they are a mosaic like any other.

Source
------
WSISum, "Summary selection". Deviation 1: the mask is redrawn at every try; the published loop draws it once, so that
its 1000 tries are one. Deviation 2: at least 200 tries are made before a good one ends the search. Deviation 3: the
last 100 of at most 1000 tries exchange single patches, where random ones have little left to find.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt
import torch
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits

from sish_cluster.core.errors import BadRequest
from sish_cluster.encoder.networks.wsisum import visible_count
from sish_cluster.encoder.summary_model import SummaryModel
from sish_cluster.encoder.summary_search import USUAL_SEARCH, MaskSearch, SelectionSettings
from sish_cluster.encoder.summary_teacher import mean_teacher

Rows = npt.NDArray[np.int64]
"""Row numbers of patches, ascending."""

Features = npt.NDArray[np.float32]
"""Embeddings of a slide's patches, (n, d)."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Summary:
    """The patches that were kept.

    Parameters
    ----------
    rows
        int64 (k,), ascending: rows of the slide's patches.
    score
        Cosine of the reconstructed slide vector and the teacher's.
    tries
        Masks that were tried; 0 where there was nothing to choose.
    """

    rows: Rows
    score: float
    tries: int


def best_summary(
    features: Features,
    model: SummaryModel,
    *,
    teacher: npt.NDArray[np.float32] | None = None,
    n_visible: int | None = None,
    settings: SelectionSettings = USUAL_SEARCH,
    rng_seed: int = 0,
) -> Summary:
    """Return the best summary of a slide that was found.

    Parameters
    ----------
    features
        float32 (n, d), n >= 1; d is the model's width.
    model
        A trained network.
    teacher
        float32 (d,): the slide's vector; the mean embedding by default.
    n_visible
        Patches to keep; 63 of 500 by default. All n where it is not less than n.
    settings
        How long to search.
    rng_seed
        Draws the sample and every mask.

    Raises
    ------
    BadRequest
        If the features are of another length than the model's.
    """
    network = model.network
    if features.ndim != 2 or features.shape[1] != network.shape.width or not len(features):
        raise BadRequest(
            f"the summary model reads features (n, {network.shape.width}); found {features.shape}:"
            " use features of the encoder it was trained on"
        )
    target = mean_teacher(features) if teacher is None else teacher
    sampled = sampled_rows(
        features, max(settings.patches, n_visible or 0), settings.clusters, rng_seed=rng_seed
    )
    tokens = torch.from_numpy(features[sampled]).to(model.device)
    search = MaskSearch(network, tokens, torch.from_numpy(target).to(model.device), rng_seed)
    count = n_visible or visible_count(len(sampled), settings.mask_ratio)
    if count >= len(sampled):
        score = float(search.scores(torch.arange(len(sampled))[None])[0])
        return Summary(sampled, score, 0)
    kept, score, tries = search.best(count, settings)
    return Summary(sampled[kept.numpy()], score, tries)


def summary_rows(
    features: Features,
    coords: npt.NDArray[np.generic],
    *,
    n_visible: int,
    model: SummaryModel,
    rng_seed: int,
) -> Rows:
    """Return the rows of a slide's summary, ascending: WSISum as a way to choose a mosaic.

    Parameters
    ----------
    features
        float32 (n, d).
    coords
        (n, 2): not looked at; a summary is chosen by content.
    n_visible
        Patches to keep, at least 1; all n where there are no more.
    model
        A trained network.
    rng_seed
        Draws the sample and every mask.
    """
    if n_visible < 1 or len(coords) != len(features):
        raise BadRequest(
            f"a summary keeps n_visible >= 1 of n patches with n corners; got {n_visible},"
            f" {len(features)} patches and {len(coords)} corners"
        )
    return best_summary(features, model, n_visible=n_visible, rng_seed=rng_seed).rows


def sampled_rows(features: Features, count: int, clusters: int, *, rng_seed: int) -> Rows:
    """Return ``count`` rows drawn from k-means clusters in proportion to their sizes, ascending.

    Parameters
    ----------
    features
        float32 (n, d); all rows are returned where n <= count.
    count
        Rows wanted (published: 500).
    clusters
        K-means clusters (published: 50).
    rng_seed
        Seed of the clusters and of the draw.
    """
    if len(features) <= count:
        return np.arange(len(features), dtype=np.int64)
    labels = cluster_labels(features, clusters, rng_seed=rng_seed)
    return drawn_in_proportion(labels, count, np.random.Generator(np.random.Philox(rng_seed)))


def cluster_labels(features: Features, clusters: int, *, rng_seed: int) -> npt.NDArray[np.int64]:
    """Return the k-means cluster of each patch, int64 (n,), on one thread."""
    count = min(clusters, len(np.unique(features, axis=0)))
    with threadpool_limits(limits=1):
        fit = KMeans(count, n_init=1, random_state=rng_seed).fit(features)
    return np.asarray(fit.labels_, np.int64)


def drawn_in_proportion(
    labels: npt.NDArray[np.int64], count: int, rng: np.random.Generator
) -> Rows:
    """Return ``count`` <= n rows, ascending, of each label its share, rounded by largest remainder."""
    sizes = np.bincount(labels)
    shares = sizes * count / len(labels)
    quotas = np.floor(shares).astype(np.int64)
    quotas[np.argsort(-(shares - quotas), kind="stable")[: count - quotas.sum()]] += 1
    chosen = [
        rng.permutation(np.flatnonzero(labels == label))[:quota]
        for label, quota in enumerate(quotas)
    ]
    return np.sort(np.concatenate(chosen)).astype(np.int64)
