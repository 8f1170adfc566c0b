"""``sish train vqvae`` without the terminal: crops, training, weights, card.

A run is a folder. Repeating it with the same options goes on where it stopped; when it is done, the
folder holds ``vqvae.safetensors`` (encoder, codebook, decoder, semantic ranks), ``metrics.json`` and
``model_card.md`` beside the crops, the checkpoint, the log and the plot.

Source
------
SISH, Methods, "VQ-VAE".
"""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import save_file

from sish_cluster.core.code import Codes
from sish_cluster.core.errors import BadRequest
from sish_cluster.core.slide import canonical_bytes, digest_of
from sish_cluster.encoder.checkpoint import UNUSED, fill, read_weights
from sish_cluster.encoder.embedders import NetworkEmbedder
from sish_cluster.encoder.keying import RANKS_NAME
from sish_cluster.encoder.networks.codeword_order import line_ranks, ranks_of
from sish_cluster.encoder.networks.inputs import device_of
from sish_cluster.encoder.networks.vqvae import SIZES, VqVae
from sish_cluster.encoder.profile import COMPACT, Profile
from sish_cluster.encoder.training import crops as cutting
from sish_cluster.encoder.training.crops import Crops, CropSettings, cut_crops
from sish_cluster.encoder.training.loop import LoopSettings, Reporter, train
from sish_cluster.encoder.training.loop_log import CLOCK, TrainingLog
from sish_cluster.encoder.training.similarity_line import Positions, crop_codes, crop_positions
from sish_cluster.encoder.training.team import ALONE, Team
from sish_cluster.encoder.training.vqvae import VqVaeTask, VqVaeTrainingSettings, batches_of
from sish_cluster.encoder.training.vqvae_card import card_of
from sish_cluster.encoder.training.vqvae_metrics import (
    MOST_KEYS,
    key_metrics,
    keys_of_crops,
    neighbour_recall,
    reconstruction_metrics,
)

WEIGHTS_FILE, METRICS_FILE, CARD_FILE = "vqvae.safetensors", "metrics.json", "model_card.md"
"""What a finished run's folder holds for users."""

QUICK_CROPS = 48
"""Held-out crops of an evaluation in mid-training: some seconds; the last one takes all."""


@dataclasses.dataclass(frozen=True, slots=True)
class VqVaeRun:
    """One training of a key network."""

    out_dir: Path
    """Folder of the run."""
    slides: Path | None = None
    """Folder of slides, or None."""
    tiles: Path | None = None
    """Folder of tiles, or None."""
    labels: Path | None = None
    """Labels table of the slides: patients are held out whole."""
    hold_out: tuple[str, ...] = ()
    """Shell patterns of groups kept out of the training; without any, every tenth group by name."""
    profile: Profile = COMPACT
    """Whose key network is trained."""
    initial: Path | None = None
    """Weights to begin with; None for a new network."""
    training: VqVaeTrainingSettings = dataclasses.field(default_factory=VqVaeTrainingSettings)
    """Steps, batches, rates."""
    loop: LoopSettings | None = None
    """Checkpoints and log; None for the defaults."""
    rng_seed: int = 0
    """Seed of initialisation, batches and revived codewords."""
    device: str = "auto"
    """``cpu``, ``cuda``, or ``auto``."""
    threads: int | None = None
    """Threads of torch; None for its default. Another number changes the last bits of the weights."""


def train_vqvae(
    run: VqVaeRun,
    *,
    team: Team = ALONE,
    reporter: Reporter | None = None,
    cutting_progress: cutting.Progress | None = None,
) -> dict[str, object]:
    """Train a key network, write its weights, metrics and card, and return the metrics.

    Of several workers, which are a ``team``, each calls this; the first writes.

    Raises
    ------
    BadRequest
        If nothing is left to train on, or nothing is held out.
    CheckpointMismatch
        If the folder holds another training.
    """
    if run.threads is not None:
        torch.set_num_threads(run.threads)
    data, mpp = _data_of(run, cutting_progress), run.profile.mpp
    task = _task(run, team)
    log = train(
        task,
        batches_of(data.crops, data.kept_rows, run.training, mpp, data.positions, team=team),
        _loop_settings(run, data.crops, data.held_out),
        team=team,
        reporter=reporter,
        evaluation=_evaluation(task.module, data.crops, data.held_rows, mpp),
    )
    if team.rank:
        return {**log.rows[-1]}
    return _written(run, task.module, data, log)


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class _Data:
    """What a run trains on and is measured by; rows of all are those of the crops."""

    crops: Crops
    codes: Codes
    """Texture codes, packed."""
    positions: Positions | None
    """Places on the similarity line; None for a training without one."""
    held_out: npt.NDArray[np.bool_]
    """Which crops are not trained on."""

    @property
    def kept_rows(self) -> npt.NDArray[np.int64]:
        return np.flatnonzero(~self.held_out)

    @property
    def held_rows(self) -> npt.NDArray[np.int64]:
        return np.flatnonzero(self.held_out)


def prepare(run: VqVaeRun, progress: cutting.Progress | None = None) -> None:
    """Do what is done once, before workers read it: cut crops, compute their codes, draw the line."""
    _data_of(run, progress)


def _data_of(run: VqVaeRun, progress: cutting.Progress | None) -> _Data:
    """Return the data of a run, from its folder where they are there."""
    folder = run.out_dir / "crops"
    crops = cut_crops(
        folder,
        slides=run.slides,
        tiles=run.tiles,
        labels=run.labels,
        settings=CropSettings(mpp=run.profile.mpp),
        progress=progress,
    )
    held_out = _held_out(crops, run.hold_out)
    codes = crop_codes(crops, folder, NetworkEmbedder(device=run.device), progress=progress)
    positions = None
    if run.training.line_weight:
        kept = np.flatnonzero(~held_out)
        positions = crop_positions(codes, kept, folder, rng_seed=run.rng_seed)
    return _Data(crops, codes, positions, held_out)


def _held_out(crops: Crops, patterns: tuple[str, ...]) -> npt.NDArray[np.bool_]:
    held = crops.rows_held_out(patterns or tuple(sorted(set(crops.groups))[::10]))
    if held.all() or not held.any():
        raise BadRequest(
            f"{int(held.sum())} of {len(held)} crops are held out by {list(patterns)}; some, not all,"
            f" must be. Groups are {', '.join(sorted(set(crops.groups))[:8])}, ...",
            field="hold_out",
        )
    return held


def _task(run: VqVaeRun, team: Team) -> VqVaeTask:
    torch.manual_seed(run.rng_seed)
    network = VqVae(SIZES[run.profile.key_network])
    if run.initial is not None:
        weights = read_weights(run.initial)
        state = {k: v for k, v in weights.state.items() if k != RANKS_NAME}
        fill(network, dataclasses.replace(weights, state=state))
    return VqVaeTask(
        network,
        run.training,
        device=str(device_of(run.device)),
        begins_codebook=run.initial is None,
        team=team,
    )


def _loop_settings(run: VqVaeRun, crops: Crops, held_out: npt.NDArray[np.bool_]) -> LoopSettings:
    # More or fewer steps are no other training: the schedule then follows the new number.
    recipe = {k: v for k, v in dataclasses.asdict(run.training).items() if k != "n_steps"}
    what = {
        "training": recipe,
        "crops": crops.identity,
        "held_out": np.flatnonzero(held_out).tolist(),
        "initial": read_weights(run.initial).digest if run.initial else "",
    }
    base = run.loop or LoopSettings(
        run.out_dir, run.training.n_steps, checkpoint_every=100, log_every=50, evaluate_every=500
    )
    return dataclasses.replace(
        base,
        out_dir=run.out_dir,
        n_steps=run.training.n_steps,
        rng_seed=run.rng_seed,
        identity=f"{run.profile.key_network} {digest_of(canonical_bytes(what))}",
        title=f"{run.profile.key_network}, {int((~held_out).sum()):,} crops",
    )


def _evaluation(
    network: VqVae, crops: Crops, held_rows: npt.NDArray[np.int64], mpp: float
) -> Callable[[int], dict[str, float]]:
    every = max(1, len(held_rows) // QUICK_CROPS)

    def evaluated(step: int) -> dict[str, float]:
        return reconstruction_metrics(network, crops, held_rows[::every], mpp=mpp)

    return evaluated


def _written(run: VqVaeRun, network: VqVae, data: _Data, log: TrainingLog) -> dict[str, object]:
    """Write weights, metrics and card of a trained network; return the metrics."""
    final = copy.deepcopy(network).cpu().eval().requires_grad_(False)
    state = {k: v.contiguous() for k, v in final.state_dict().items() if not k.endswith(UNUSED)}
    words = final.codebook.embedding.weight
    ranks = line_ranks(words) if run.training.line_weight else ranks_of(final)
    state[RANKS_NAME] = torch.from_numpy(ranks)
    path = run.out_dir / WEIGHTS_FILE
    save_file(state, path, metadata={"size": run.profile.key_network})
    crops, rows, mpp = data.crops, data.held_rows, run.profile.mpp
    metrics: dict[str, object] = {
        "network": run.profile.key_network,
        "digest": read_weights(path).digest,
        "bytes": path.stat().st_size,
        "steps": run.training.n_steps,
        "batch_crops": run.training.batch_crops,
        "squares_per_crop": run.training.squares_per_crop,
        "line_weight": run.training.line_weight,
        "crop_px": run.training.crop_px,
        "mpp": mpp,
        "crops_trained_on": len(data.kept_rows),
        "crops_held_out": len(rows),
        "groups_held_out": sorted({crops.groups[row] for row in rows}),
        "training_s": round(log.latest(CLOCK) or 0.0),
        "last_loss": log.latest("loss"),
        "rng_seed": run.rng_seed,
        **reconstruction_metrics(final, crops, rows, mpp=mpp),
        **_key_metrics(final, ranks, data, mpp),
    }
    (run.out_dir / METRICS_FILE).write_text(json.dumps(metrics, indent=1) + "\n", "utf-8")
    (run.out_dir / CARD_FILE).write_text(card_of(metrics, crops), "utf-8")
    return metrics


def _key_metrics(
    network: VqVae, ranks: npt.NDArray[np.int64], data: _Data, mpp: float
) -> dict[str, float]:
    """Return how keys spread, and how well held-out crops' keys find their neighbours by code."""
    rows = np.unique(np.linspace(0, len(data.crops) - 1, MOST_KEYS).round().astype(np.int64))
    keys = keys_of_crops(network, ranks, data.crops, rows, mpp=mpp)
    groups = np.array(data.crops.groups)[rows]
    asking = np.flatnonzero(data.held_out[rows])
    recall = neighbour_recall(keys, data.codes[rows], groups, asking)
    return {**key_metrics(keys, data.crops, rows), "neighbour_recall": recall}
