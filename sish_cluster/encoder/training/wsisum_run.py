"""``sish train wsisum`` without the terminal: features, teachers, training, model.

A run is a folder. Repeating it with the same options goes on where it stopped; when it is done, the
folder holds ``wsisum.safetensors``, the model that `sish summarise` reads, and ``metrics.json`` beside the
checkpoint, the log and the plot.

Source
------
WSISum, "Implementation details".
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sish_cluster.core.slide import canonical_bytes, digest_of
from sish_cluster.encoder.networks.inputs import device_of
from sish_cluster.encoder.summary_files import feature_files, read_vectors
from sish_cluster.encoder.summary_model import read_summary_model, write_summary_model
from sish_cluster.encoder.summary_teacher import (
    Projection,
    fitted_projection,
    joined,
    mean_teacher,
)
from sish_cluster.encoder.training.loop import LoopSettings, Reporter, train
from sish_cluster.encoder.training.loop_log import CLOCK
from sish_cluster.encoder.training.team import ALONE, Team
from sish_cluster.encoder.training.wsisum import FeatureShelf, WsisumSettings, WsisumTask

MODEL_FILE, METRICS_FILE = "wsisum.safetensors", "metrics.json"
"""What a finished run's folder holds for users."""


@dataclasses.dataclass(frozen=True, slots=True)
class WsisumRun:
    """One training of a summary network."""

    out_dir: Path
    """Folder of the run."""
    features: Path
    """Folder of feature files."""
    teachers: tuple[Path, ...] = ()
    """Files of slide vectors, one per model; none for the mean embedding."""
    device: str = "auto"
    """``cpu``, ``cuda``, or ``auto``."""
    checkpoint_every: int = 200
    """Steps between checkpoints."""
    log_every: int = 20
    """Steps a row of the log is the mean of."""


def width_of(folder: Path) -> int:
    """Return the length of the embeddings in a folder of feature files."""
    return int(FeatureShelf(feature_files(folder)[:1]).slide(0).features.shape[1])


def train_wsisum(
    run: WsisumRun,
    settings: WsisumSettings,
    *,
    team: Team = ALONE,
    reporter: Reporter | None = None,
) -> dict[str, object]:
    """Train a summary network, write the model and metrics, and return the metrics.

    Of several workers, which are a ``team``, each calls this; the first writes.

    Raises
    ------
    BadRequest
        If there are fewer slides than a batch takes, or features of several lengths.
    BadSlide
        If a feature file is damaged.
    CheckpointMismatch
        If the folder holds another training.
    """
    shelf = FeatureShelf(feature_files(run.features))
    teachers, projection = teachers_of(shelf, run.teachers, settings.shape.width)
    task = WsisumTask(shelf, teachers, settings, device=device_of(run.device), team=team)
    what = {
        "settings": dataclasses.asdict(settings),
        "features": shelf.identity,
        "teachers": digest_of(teachers.tobytes()),
    }
    loop = LoopSettings(
        run.out_dir,
        task.n_steps,
        checkpoint_every=run.checkpoint_every,
        log_every=run.log_every,
        rng_seed=settings.rng_seed,
        device=str(device_of(run.device)),
        identity=f"wsisum {digest_of(canonical_bytes(what))}",
        title=f"wsisum, {len(shelf):,} slides",
    )
    log = train(task, task.batch_at, loop, team=team, reporter=reporter)
    last = dict(log.rows[-1])
    if team.rank:
        return {**last}
    write_summary_model(run.out_dir / MODEL_FILE, task.network, projection)
    metrics: dict[str, object] = {
        "model": MODEL_FILE,
        "digest": read_summary_model(run.out_dir / MODEL_FILE).digest,
        "n_slides": len(shelf),
        "workers": team.size,
        "teacher": "slide vectors" if run.teachers else "mean embedding",
        "training_s": round(last.pop(CLOCK, 0.0)),
        **last,
        "settings": dataclasses.asdict(settings),
    }
    (run.out_dir / METRICS_FILE).write_text(json.dumps(metrics, indent=1) + "\n", "utf-8")
    return metrics


def teachers_of(
    shelf: FeatureShelf, files: tuple[Path, ...], width: int
) -> tuple[npt.NDArray[np.float32], Projection | None]:
    """Return a vector of each slide, float32 (n, width), and the components it was made with.

    Parameters
    ----------
    shelf
        The slides.
    files
        Slide vectors, one file per model; the mean embedding without any.
    width
        Length of an embedding.
    """
    if not files:
        means = [mean_teacher(shelf.slide(number).features) for number in range(len(shelf))]
        return np.stack(means), None
    vectors = joined(shelf.names, [read_vectors(file) for file in files])
    projection = fitted_projection(vectors, width)
    return projection.of(vectors), projection
