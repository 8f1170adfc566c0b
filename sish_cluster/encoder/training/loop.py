"""One training loop for every network: seeded, resumable to the bit, watched while it runs.

What is trained is a `TrainingTask`: a module, an optimiser, and the losses of a batch. The loop draws
the batches, takes the steps, and keeps in the run's folder a checkpoint, a log (JSON Lines) and a plot
of the losses. Batches are a pure function of step and seed, and the checkpoint holds the rest; a run
killed at any moment and begun again therefore gives the same loss curve, bit for bit on a CPU with as
many threads. Several workers run this same loop, each on its share of every batch: gradients and losses
are averaged over them, and worker 0 keeps the folder.

Source
------
Ours; the losses are those of the papers, in the modules of the tasks.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch import nn

from sish_cluster.core.errors import BadRequest, Corrupt
from sish_cluster.encoder.training.loop_checkpoint import (
    CHECKPOINT_FILE,
    devices_in_use,
    random_states,
    read_checkpoint,
    restore_random_states,
    write_checkpoint,
)
from sish_cluster.encoder.training.loop_log import CLOCK, Means, Row, TrainingLog
from sish_cluster.encoder.training.plots import write_loss_plot
from sish_cluster.encoder.training.team import ALONE, Team, averaged

LOSS = "loss"
"""The loss that is minimised; all others are only logged."""

LOG_FILE, PLOT_FILE = "log.jsonl", "loss.png"
"""The log and its picture, in the run's folder."""

SEED_STRIDE = 1_000_003
"""Distance between the batch generators' seeds of neighbouring run seeds: a prime above any number of
steps a run here takes, so that two runs share no batch."""

BatchT = TypeVar("BatchT")
TakenT = TypeVar("TakenT", contravariant=True)


class TrainingTask(Protocol[TakenT]):
    """What is trained, and its loss."""

    @property
    def module(self) -> nn.Module:
        """Everything with parameters or buffers."""

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """The optimiser of the module's parameters."""

    def losses_of(self, batch: TakenT, step: int) -> Mapping[str, torch.Tensor]:
        """Return scalar losses; ``loss`` is minimised, the others are logged."""

    def after_step(self, step: int) -> None:
        """Do what follows the optimiser's step: a momentum encoder, a memory bank, a schedule."""

    def state_dict(self) -> dict[str, Any]:
        """Return whatever else must survive (bank, queue, scheduler, pass number): plain values and tensors."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""


@dataclasses.dataclass(frozen=True, slots=True)
class LoopSettings:
    """How long a training runs and what it leaves behind."""

    out_dir: Path
    """Folder of the run; a checkpoint found there is gone on from."""
    n_steps: int
    """Optimiser steps in all, those of earlier runs included."""
    checkpoint_every: int = 200
    """Steps between checkpoints: what a kill costs at most."""
    log_every: int = 20
    """Steps a row of the log is the mean of."""
    plot_every_s: float = 5.0
    """Least seconds between two plots: drawing one takes a third of a second. The last row is plotted."""
    evaluate_every: int = 0
    """Steps between evaluations; 0 for none. They also run after the last step."""
    rng_seed: int = 0
    """Seed of batches and of torch's generators."""
    device: str = "cpu"
    """Where the module is: its checkpoint is read on any device."""
    identity: str = ""
    """What is trained, on what, how; a checkpoint of another identity is refused."""
    title: str = "training"
    """Heading of the plot."""

    def __post_init__(self) -> None:
        for name in ("n_steps", "checkpoint_every", "log_every"):
            if getattr(self, name) < 1:
                raise BadRequest(f"{name} is at least 1; got {getattr(self, name)}", field=name)
        if not 0 <= self.rng_seed < 2**32:
            raise BadRequest(f"rng_seed is 0..2**32 - 1; got {self.rng_seed}", field="rng_seed")


@dataclasses.dataclass(frozen=True, slots=True)
class StepReport:
    """Where a training is, after a step."""

    step: int
    """Steps done."""
    n_steps: int
    row: Row | None
    """The row that this step ended, if it did."""
    first_step: int
    """Steps done when this process began: above 0 for a resumed run."""


Reporter = Callable[[StepReport], None]
"""Called after each step."""

BatchAt = Callable[[int, torch.Generator], BatchT]
"""(step, generator) -> batch: a pure function of both; the generator's seed follows from step and seed."""

Evaluation = Callable[[int], Mapping[str, float]]
"""step -> values to log, computed without changing the module or any generator the task uses."""


def train(
    task: TrainingTask[BatchT],
    batch_at: BatchAt[BatchT],
    settings: LoopSettings,
    *,
    team: Team = ALONE,
    reporter: Reporter | None = None,
    evaluation: Evaluation | None = None,
) -> TrainingLog:
    """Train until ``n_steps`` steps are done, going on from the folder's checkpoint if there is one.

    Parameters
    ----------
    task
        Module on its device, optimiser, losses.
    batch_at
        Steps count from 0; gives this worker's share.
    settings
        How long, where, how often.
    team
        The workers that train together, each in a loop of its own over the same folder.
    reporter
        Told about each step; an error it raises stops the training, which can be resumed.
    evaluation
        Called every ``evaluate_every`` steps and after the last, with the steps done.

    Returns
    -------
    TrainingLog
        Rows of the whole training, earlier runs included.

    Raises
    ------
    CheckpointMismatch, BadWeights
        If the checkpoint belongs to another training or another number of workers, or is none.
    BadRequest
        If the workers do not see the same folder.
    Corrupt
        If the loss stops being a number; the last checkpoint stays.
    """
    run = _Run(task, settings, evaluation, team=team)
    run.begin()
    tell = reporter or (lambda report: None)
    first = run.step
    while run.step < settings.n_steps:
        row = run.one_step(batch_at)
        tell(StepReport(run.step, settings.n_steps, row, first))
    return run.log


class _Run:
    """A training in progress."""

    def __init__(
        self,
        task: TrainingTask[Any],
        settings: LoopSettings,
        evaluation: Evaluation | None,
        *,
        team: Team,
    ) -> None:
        self.log = TrainingLog()
        self._team = team
        self._is_writer = team.rank == 0
        self.step = 0
        self._task, self._settings, self._evaluation = task, settings, evaluation
        self._means = Means()
        self._earlier_s = 0.0
        self._plotted_s = -math.inf
        self._began_s = time.monotonic()
        self._checkpoint = settings.out_dir / CHECKPOINT_FILE

    def begin(self) -> None:
        """Seed torch, or restore everything from the checkpoint; write the log so far."""
        self._settings.out_dir.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(self._settings.rng_seed)
        state = read_checkpoint(self._checkpoint, identity=self._identity)
        if state is not None:
            self._restore(state)
        self._check_together()
        if self._is_writer:
            self.log.write(self._settings.out_dir / LOG_FILE)

    def _check_together(self) -> None:
        """Refuse workers that begin at different steps: they do not see one folder."""
        device = next(self._task.module.parameters()).device
        steps = self._team.gathered(torch.tensor([self.step], device=device)).tolist()
        if len(set(steps)) > 1:
            raise BadRequest(
                f"{self._team.size} workers found checkpoints of steps {steps} in"
                f" {self._settings.out_dir}; put the run's folder where all of them see it",
                field="out_dir",
            )

    def one_step(self, batch_at: BatchAt[Any]) -> Row | None:
        """Draw a batch, step, and keep what is due; return the row of the log it ended, if any."""
        generator = torch.Generator().manual_seed(self._settings.rng_seed * SEED_STRIDE + self.step)
        losses = self._task.losses_of(batch_at(self.step, generator), self.step)
        optimizer = self._task.optimizer
        optimizer.zero_grad(set_to_none=True)
        losses[LOSS].backward()  # type: ignore[no-untyped-call]
        losses = averaged(self._team, self._task.module, losses)
        optimizer.step()
        self._task.after_step(self.step)
        self._means.add(losses)
        self.step += 1
        row = self._row()
        if self._is_writer and self._is_due(self._settings.checkpoint_every):
            write_checkpoint(self._checkpoint, self._state())
        return row

    def _is_due(self, every: int) -> bool:
        return every > 0 and (self.step % every == 0 or self.step == self._settings.n_steps)

    def _row(self) -> Row | None:
        if self._is_writer:
            self._evaluate()
        if not self._is_due(self._settings.log_every):
            return None
        row: Row = {"step": self.step, **self._means.taken(), CLOCK: round(self._elapsed_s(), 3)}
        self.log.append(row, self._settings.out_dir / LOG_FILE if self._is_writer else None)
        if not torch.isfinite(torch.tensor(row[LOSS])):
            raise Corrupt(
                f"the loss is {row[LOSS]} at step {self.step}; the checkpoint in"
                f" {self._settings.out_dir} is from before. Lower the learning rate"
            )
        if self._is_writer:
            self._plot()
        return row

    def _evaluate(self) -> None:
        if self._evaluation is None or not self._is_due(self._settings.evaluate_every):
            return
        with torch.random.fork_rng(devices=devices_in_use()):
            found = {k: torch.tensor(v) for k, v in self._evaluation(self.step).items()}
        self._means.add(found)

    def _plot(self) -> None:
        is_last = self.step == self._settings.n_steps
        if is_last or self._elapsed_s() - self._plotted_s >= self._settings.plot_every_s:
            write_loss_plot(
                self._settings.out_dir / PLOT_FILE, self.log, title=self._settings.title
            )
            self._plotted_s = self._elapsed_s()

    def _elapsed_s(self) -> float:
        return self._earlier_s + time.monotonic() - self._began_s

    @property
    def _identity(self) -> str:
        workers = f"; {self._team.size} workers" if self._team.size > 1 else ""
        return f"{self._settings.identity}; seed {self._settings.rng_seed}{workers}"

    def _state(self) -> dict[str, Any]:
        return {
            "identity": self._identity,
            "step": self.step,
            "module": self._task.module.state_dict(),
            "optimizer": self._task.optimizer.state_dict(),
            "task": self._task.state_dict(),
            "random": random_states(),
            "means": self._means.state_dict(),
            "rows": self.log.rows,
            CLOCK: self._elapsed_s(),
        }

    def _restore(self, state: dict[str, Any]) -> None:
        self._task.module.load_state_dict(state["module"])
        self._task.optimizer.load_state_dict(state["optimizer"])
        self._task.load_state_dict(state["task"])
        self._means.load_state_dict(state["means"])
        self.step, self._earlier_s = state["step"], state[CLOCK]
        self.log.rows = state["rows"]
        restore_random_states(state["random"])
