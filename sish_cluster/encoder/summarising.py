"""Summaries of a whole folder: each feature file becomes a smaller one.

Files are done one by one and written whole, so an interrupted run goes on where it stopped: a summary that
is there is left alone. A file that cannot be read is told by name and cause, and the others are done.

Source
------
WSISum; `sish summarise` is ours.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from sish_cluster.core.errors import BadRequest, Refused
from sish_cluster.encoder.networks.wsisum import visible_count
from sish_cluster.encoder.summary import Summary, best_summary
from sish_cluster.encoder.summary_baselines import (
    cluster_rows,
    entropy_rows,
    location_rows,
    random_rows,
)
from sish_cluster.encoder.summary_files import (
    SlideFeatures,
    feature_files,
    read_features,
    write_summary,
)
from sish_cluster.encoder.summary_model import SummaryModel
from sish_cluster.encoder.summary_search import SelectionSettings
from sish_cluster.encoder.summary_teacher import Vectors, joined

BASELINES = {
    "random": random_rows,
    "cluster": cluster_rows,
    "entropy": entropy_rows,
    "location": location_rows,
}
"""Ways to choose that need no model."""

METHODS = ("wsisum", *BASELINES)
"""Every way to choose."""

Choose = Callable[[SlideFeatures], Summary]
"""What turns a slide's features into its summary."""


@dataclasses.dataclass(frozen=True, slots=True)
class SlideSummarised:
    """What became of one feature file."""

    name: str
    patches: int
    """Patches kept; 0 where the file failed or was done before."""
    score: float
    """Cosine with the teacher; NaN where the method has none."""
    tries: int
    was_done: bool
    """Whether a summary was there already."""
    problem: str = ""
    """What is wrong and what to do, where it failed."""


def summarised_folder(
    features: Path, out: Path, choose: Choose, *, method: str
) -> Iterator[SlideSummarised]:
    """Yield what becomes of each feature file of a folder, writing ``out/NAME.h5`` for each.

    Raises
    ------
    BadRequest
        If there is no feature file, or ``out`` is the folder of features itself.
    """
    files = feature_files(features)
    if out.resolve() == features.resolve():
        raise BadRequest(f"{out}: summaries would replace the features; give another folder")
    for file in files:
        path = out / f"{file.stem}.h5"
        if path.exists():
            yield SlideSummarised(file.stem, 0, math.nan, 0, was_done=True)
            continue
        try:
            slide = read_features(file)
            found = choose(slide)
            write_summary(path, slide, found.rows, score=found.score, method=method)
        except Refused as error:
            yield SlideSummarised(file.stem, 0, math.nan, 0, was_done=False, problem=error.message)
            continue
        yield SlideSummarised(file.stem, len(found.rows), found.score, found.tries, was_done=False)


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class ByBaseline:
    """Chooses by one of `BASELINES`."""

    name: str
    n_visible: int | None = None
    """Patches to keep; by default one in eight of at most 500."""
    settings: SelectionSettings = dataclasses.field(default_factory=SelectionSettings)
    """Of them, what that default is made of."""
    rng_seed: int = 0

    def __call__(self, slide: SlideFeatures) -> Summary:
        """Return a slide's summary; it has no score."""
        looked_at = min(len(slide), self.settings.patches)
        count = self.n_visible or visible_count(looked_at, self.settings.mask_ratio)
        coords = np.asarray(slide.coords)
        rows = BASELINES[self.name](slide.features, coords, min(count, len(slide)), self.rng_seed)
        return Summary(rows, math.nan, 0)


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class ByModel:
    """Chooses by a trained network."""

    model: SummaryModel
    vectors: Sequence[Vectors] = ()
    """Slide vectors, those the model was trained with; none for the mean embedding."""
    n_visible: int | None = None
    """Patches to keep; by default one in eight of at most 500."""
    settings: SelectionSettings = dataclasses.field(default_factory=SelectionSettings)
    """How long to search."""
    rng_seed: int = 0

    def __post_init__(self) -> None:
        if bool(self.vectors) != (self.model.projection is not None):
            wanted = "slide vectors: give the same" if self.model.projection else "none: give no"
            raise BadRequest(
                f"the model was trained against {wanted} --teacher files", field="teacher"
            )

    def __call__(self, slide: SlideFeatures) -> Summary:
        """Return a slide's summary."""
        teacher = None
        if self.model.projection is not None:
            teacher = self.model.projection.of(joined([slide.name], self.vectors))[0]
        return best_summary(
            slide.features,
            self.model,
            teacher=teacher,
            n_visible=self.n_visible,
            settings=self.settings,
            rng_seed=self.rng_seed,
        )
