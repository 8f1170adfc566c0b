"""Who chooses a mosaic: every selector at one seam, by name.

==========  ==========================================================================================
sish        k-means on colour, then on place (`mosaic.TwoStageSelector`); the default
retccl      k-means on embeddings, then on place: 20 % of each of nine clusters
random      drawn evenly
cluster     the patch nearest each of n k-means centres of colour histograms
entropy     the n patches whose grey values are most varied
location    the patch nearest each of n k-means centres of the places
wsisum      the n patches from which a trained network tells the whole slide best
==========  ==========================================================================================

All work from one patch upwards, depend on the patches and the seed alone, and read candidates in blocks: of
each they keep a summary, never its pixels.

Source
------
SISH, "Mosaic generation"; RetCCL, "Mosaic"; WSISum, "Summary selection" and its baselines. Deviation 1: embeddings of
candidates are those of their 256 px thumbnails; in the ``retccl`` profile these are the patches themselves.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from sish_cluster.core.errors import BadRequest
from sish_cluster.core.seams import Embedder, Pixels
from sish_cluster.encoder.cutting import MosaicSettings, StreamingSelector
from sish_cluster.encoder.mosaic import (
    Rows,
    TwoStageSelector,
    TwoStageSettings,
    colour_histograms,
)
from sish_cluster.encoder.summary_baselines import (
    cluster_rows,
    entropy_rows,
    location_rows,
    random_rows,
)

if TYPE_CHECKING:
    from sish_cluster.encoder.summary_model import SummaryModel

RETCCL_SELECTION = TwoStageSettings(colour_clusters=9, share=0.2, min_members=1)
"""Nine clusters of embeddings, 20 % of each (published)."""

LEAST_PATCHES = 27
"""Patches a baseline keeps when nothing is said: three of each of nine colours, as the default mosaic."""

SHARE = 0.05
"""Share of the candidates a baseline keeps where that is more (the default mosaic's)."""

SUMMARY_PATCHES = 63
"""Patches of a WSISum summary (published: 63 visible of 500)."""

GREY_BINS = 64
"""Bins of the grey histograms whose entropy is taken."""

Summaries = npt.NDArray[np.float32]
"""What is kept of each candidate, (n, d)."""

Choose = Callable[[Summaries, npt.NDArray[np.integer], int, int], Rows]
"""(summaries, corners, patches wanted, seed) -> ascending rows."""


@dataclasses.dataclass(frozen=True)
class SummarySelector:
    """A selector made of two functions: what is kept of a candidate, and who is chosen.

    Parameters
    ----------
    summarise
        Thumbnails (n, side, side, 3) -> summaries (n, d).
    choose
        Summaries, corners, a number and a seed -> ascending rows.
    count_of
        Candidates -> patches wanted.
    """

    summarise: Callable[[Pixels], Summaries]
    choose: Choose
    count_of: Callable[[int], int]

    def summaries_of(self, thumbnails: Pixels) -> Summaries:
        """Return what `chosen_from` needs of patches (n, side, side, 3)."""
        return self.summarise(thumbnails)

    def chosen(
        self, thumbnails: Pixels, corners: npt.NDArray[np.integer], *, rng_seed: int
    ) -> Rows:
        """Return the rows of the mosaic, ascending, of n >= 1 patches."""
        return self.chosen_from(self.summarise(thumbnails), corners, rng_seed=rng_seed)

    def chosen_from(
        self, summaries: Summaries, corners: npt.NDArray[np.integer], *, rng_seed: int
    ) -> Rows:
        """Return the rows of the mosaic from summaries (n, d), ascending."""
        if not 1 <= len(summaries) == len(corners):
            raise BadRequest(
                f"a mosaic is chosen from n >= 1 patches with n corners; got {len(summaries)}"
                f" patches and {len(corners)} corners"
            )
        return self.choose(summaries, corners, self.count_of(len(summaries)), rng_seed)


def selector_of(
    settings: MosaicSettings, embedder: Embedder, *, device: str = "auto"
) -> StreamingSelector:
    """Return the selector that settings name.

    Parameters
    ----------
    settings
        Its name, how many patches, and the summary model where it needs one.
    embedder
        Embeds candidates for the selectors that go by embeddings.
    device
        Where the summary model runs.

    Raises
    ------
    BadRequest
        If no selector has that name, or ``wsisum`` has no model.
    BadWeights
        If the summary model cannot be read.
    """
    name, wanted = settings.selector or "sish", settings.patches_per_slide
    if name not in SELECTORS:
        raise BadRequest(
            f"no mosaic selector is called {name!r}; there are {', '.join(SELECTORS)}",
            field="selector",
        )
    if wanted is not None and wanted < 1:
        raise BadRequest(f"a mosaic has at least 1 patch; asked for {wanted}", field="patches")
    if name == "sish":
        return TwoStageSelector(settings.selection, patches=wanted)
    if name == "retccl":
        return TwoStageSelector(RETCCL_SELECTION, patches=wanted, summarise=embedder.embeddings_of)
    if name == "wsisum":
        return _wsisum(settings, embedder, device)
    summarise, choose = _BASELINES[name]
    return SummarySelector(summarise, choose, lambda n: wanted or baseline_count(n))


def baseline_count(n: int) -> int:
    """Return how many of ``n`` candidates a baseline keeps when nothing is said.

    Examples
    --------
    >>> [baseline_count(n) for n in (5, 100, 1000)]
    [5, 27, 50]
    """
    return min(n, max(LEAST_PATCHES, round(SHARE * n)))


def grey_histograms(thumbnails: Pixels) -> Summaries:
    """Return shares of grey values (n, 64) of patches (n, side, side, 3); each row sums to 1."""
    histograms = np.zeros((len(thumbnails), GREY_BINS), np.float32)
    for row, patch in zip(histograms, thumbnails, strict=True):
        bins = patch.astype(np.uint16).sum(axis=2) * GREY_BINS // (3 * 256)
        row[:] = np.bincount(bins.ravel(), minlength=GREY_BINS) / bins.size
    return histograms


def _nothing(thumbnails: Pixels) -> Summaries:
    return np.zeros((len(thumbnails), 1), np.float32)


_BASELINES: dict[str, tuple[Callable[[Pixels], Summaries], Choose]] = {
    "random": (_nothing, random_rows),
    "cluster": (colour_histograms, cluster_rows),
    "entropy": (grey_histograms, entropy_rows),
    "location": (_nothing, location_rows),
}

SELECTORS = ("sish", "retccl", *_BASELINES, "wsisum")
"""Names of all selectors, the default first."""


def _wsisum(settings: MosaicSettings, embedder: Embedder, device: str) -> SummarySelector:
    if settings.summary_model is None:
        raise BadRequest(
            "the selector 'wsisum' needs a trained summary network: give --summary-model FILE"
            " (`sish train wsisum` writes one), or choose another selector",
            field="summary_model",
        )
    # Imported for this selector alone: readers of slides otherwise do without torch.
    from sish_cluster.encoder.networks.inputs import device_of
    from sish_cluster.encoder.summary_model import read_summary_model

    model = read_summary_model(settings.summary_model, device=device_of(device))
    width = model.network.shape.width
    if width != embedder.dimensions:
        raise BadRequest(
            f"{settings.summary_model}: reads embeddings of {width} numbers, and this embedder makes"
            f" {embedder.dimensions}: choose the embedder it was trained on (--embedder)",
            field="summary_model",
        )
    return SummarySelector(
        embedder.embeddings_of,
        functools.partial(_summary, model),
        lambda n: settings.patches_per_slide or SUMMARY_PATCHES,
    )


def _summary(
    model: SummaryModel, features: Summaries, corners: npt.NDArray[np.integer], n: int, seed: int
) -> Rows:
    from sish_cluster.encoder.summary import summary_rows

    return summary_rows(features, corners, n_visible=n, model=model, rng_seed=seed)
