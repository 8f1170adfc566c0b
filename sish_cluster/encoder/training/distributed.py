"""One training on several workers: Ray Train starts the processes, each runs the loop on its share.

The driver starts Ray (or joins it), asks Ray Train for a group of workers, and shows what worker 0 tells.
Checkpoints are the loop's own: when a worker dies, Ray Train starts the whole group again, and it goes on
from the run's folder as a repeated command would. What worker 0 tells, and what came of the training, lie
in ``OUT/workers`` while it runs; nothing is left there, nor in the home directory.

Notes
-----
All workers must see the run's folder and the data at the same paths: on several machines, on storage that
they share.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import psutil
import torch

from sish_cluster.core.errors import BadRequest, EncoderUnavailable, SishError
from sish_cluster.encoder.ray_cluster import connected
from sish_cluster.encoder.training.loop import Reporter
from sish_cluster.encoder.training.team import ProcessTeam, Team
from sish_cluster.encoder.training.worker_notes import (
    TOLD_EVERY_S,
    Follower,
    Teller,
    has_outcome,
    read_outcome,
    write_outcome,
)

SCRATCH = "workers"
"""Folder in the run's folder for what the workers tell while they run."""

OBJECT_STORE_BYTES = 128 * 1024 * 1024
"""Memory of our own cluster's object store: trainings put next to nothing there."""

SUM_TIMEOUT_S = 1800
"""Seconds a worker waits for the others' part of a sum: worker 0 may be evaluating or writing weights."""

QUIET_TRAIN = {
    "RAY_TRAIN_V2_ENABLED": "1",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "600",
}
"""No metrics server; workers stay in the driver's folder, whose relative paths they are given; a death or
the end is noticed within half a second. Workers have ten minutes to start: on a busy machine importing
torch alone takes longer than Ray Train's one minute."""


@dataclasses.dataclass(frozen=True, slots=True)
class WorkerSettings:
    """Where a training runs on several workers."""

    count: int
    """Workers, >= 2; each takes as many examples of every batch."""
    gpus_per_worker: float | None = None
    """GPUs of each; below 1 several share one, None takes one each where the cluster has any."""
    threads: int | None = None
    """Threads and CPUs of each; None shares this machine's CPUs evenly, and takes 1 on a cluster."""
    device: str = "auto"
    """``cpu``, ``cuda``, or ``auto``: which of them the training was asked to use."""
    address: str | None = None
    """Of a Ray cluster; None starts one of our own."""
    max_restarts: int = 3
    """Deaths of workers that are made good; each costs the steps since the last checkpoint."""

    def __post_init__(self) -> None:
        if self.count < 2:
            raise BadRequest(f"workers are 2 or more; got {self.count}", field="workers")
        if self.gpus_per_worker is not None and self.gpus_per_worker < 0:
            raise BadRequest(
                f"gpus_per_worker is 0 or more; got {self.gpus_per_worker:g}",
                field="gpus_per_worker",
            )


class Training(Protocol):
    """What every worker calls; `train_retccl` with its run and settings bound is one."""

    def __call__(self, *, team: Team, reporter: Reporter | None) -> dict[str, object]:
        """Train with the team; return the metrics, which worker 0 also writes."""


@contextlib.contextmanager
def ray_workers(settings: WorkerSettings) -> Iterator[Workers]:
    """Start Ray, or join it, and yield the workers that trainings can run on.

    Raises
    ------
    EncoderUnavailable
        If Ray or Ray Train is missing or cannot be reached, or has not the CPUs and GPUs asked for; what
        was asked and what there is are named.
    """
    loopback = {} if settings.address else {"GLOO_SOCKET_IFNAME": _loopback_name()}
    with connected(
        settings.address,
        object_store_bytes=OBJECT_STORE_BYTES,
        own=loopback,
        instead="--workers 1",
    ) as ray:
        yield Workers(_ray_train(), settings, share_of_cluster(ray.cluster_resources(), settings))


class Workers:
    """A Ray that trainings can be run on, one after the other."""

    def __init__(self, ray_train: Any, settings: WorkerSettings, each: Mapping[str, float]) -> None:
        self._train = ray_train
        self._settings = settings
        self._each = dict(each)

    def run(
        self, training: Training, out_dir: Path, *, reporter: Reporter | None = None
    ) -> dict[str, object]:
        """Run a training on all workers and return its metrics.

        Parameters
        ----------
        training
            Picklable; called in each worker.
        out_dir
            The run's folder.
        reporter
            Told about some steps, about those that end a row of the log always; an error it raises ends the
            training when Ray is left.

        Raises
        ------
        SishError
            What the training raised in a worker.
        EncoderUnavailable
            If workers died more often than is made good; the last checkpoint stays.
        """
        scratch = out_dir.absolute() / SCRATCH
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        try:
            failure = self._followed(training, scratch, reporter)
            found = read_outcome(scratch)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        if found is None:
            raise _ended(self._settings, failure) from failure
        return found

    def _followed(
        self, training: Training, scratch: Path, reporter: Reporter | None
    ) -> BaseException | None:
        """Run the workers to their end and report their steps; return what Ray Train says against it."""
        failures: list[BaseException | None] = []
        # Ray Train would take over Ctrl-C in the main thread, and keep it.
        thread = threading.Thread(
            target=lambda: failures.append(self._fitted(training, scratch)),
            name="ray train",
            daemon=True,
        )
        follower = Follower(scratch, reporter)
        with _environment(QUIET_TRAIN):
            thread.start()
            while thread.is_alive():
                thread.join(TOLD_EVERY_S)
                follower.look()
        follower.look()
        return failures[0] if failures else None

    def _fitted(self, training: Training, scratch: Path) -> BaseException | None:
        """Run the workers to their end; return what Ray Train says against it."""
        from ray.train.torch import TorchConfig, TorchTrainer

        gpus = self._each.get("GPU", 0.0)
        threads = int(self._each["CPU"])
        has_own_gpus = gpus >= 1
        trainer = TorchTrainer(
            _work,
            train_loop_config={
                "training": training,
                "scratch": str(scratch),
                "folder": os.getcwd(),
                "threads": threads,
            },
            torch_config=TorchConfig(
                backend="nccl" if has_own_gpus else "gloo", timeout_s=SUM_TIMEOUT_S
            ),
            scaling_config=self._train.ScalingConfig(
                num_workers=self._settings.count,
                use_gpu=gpus > 0,
                resources_per_worker=self._each,
            ),
            run_config=self._train.RunConfig(
                name="ray",
                storage_path=str(scratch),
                failure_config=self._train.FailureConfig(
                    max_failures=self._settings.max_restarts,
                    controller_failure_limit=self._settings.max_restarts,
                ),
                worker_runtime_env={"env_vars": _worker_environment(gpus)},
            ),
        )
        try:
            trainer.fit()
        except Exception as error:  # Ray raises what it likes, also when it is gone.
            return error
        return None


def _work(config: dict[str, Any]) -> None:
    """Run a training in a worker; leave the metrics, or what went wrong, for the driver."""
    scratch = Path(config["scratch"])
    if has_outcome(scratch):
        return  # A worker of the group before failed for good: trying again would fail again.
    with contextlib.suppress(OSError):
        os.chdir(config["folder"])
    torch.set_num_threads(config["threads"])
    team = ProcessTeam()
    try:
        metrics = config["training"](
            team=team, reporter=Teller(scratch) if team.rank == 0 else None
        )
    except SishError as error:
        write_outcome(scratch, error)
        raise
    if team.rank == 0:
        write_outcome(scratch, metrics)


def _ended(settings: WorkerSettings, failure: BaseException | None) -> EncoderUnavailable:
    cause = str(failure or "").strip().splitlines() or [type(failure).__name__]
    return EncoderUnavailable(
        f"the training ended {settings.max_restarts + 1} times before its last step on"
        f" {settings.count} workers: {cause[-1][:300]}. Its last checkpoint stays; repeat the command to"
        " go on"
    )


def share_of_cluster(there: Mapping[str, float], settings: WorkerSettings) -> dict[str, float]:
    """Return the CPUs and GPUs of each worker, or refuse what the cluster has not."""
    each = {"CPU": float(settings.threads or 1)}
    if settings.threads is None and settings.address is None:
        each["CPU"] = float(max(1, int(there.get("CPU", 1.0)) // settings.count))
    gpus = settings.gpus_per_worker
    if gpus is None and settings.device != "cpu":
        wants_gpus = settings.device != "auto" or there.get("GPU", 0.0) > 0
        gpus = 1.0 if wants_gpus else 0.0
    if gpus:
        each["GPU"] = gpus
    if any(there.get(name, 0.0) < share * settings.count for name, share in each.items()):
        asked = " and ".join(f"{share:g} {name}" for name, share in each.items())
        found = " and ".join(f"{there.get(name, 0.0):g} {name}" for name in each)
        raise EncoderUnavailable(
            f"{settings.count} workers of {asked} each were asked for; Ray has {found}. Ask for fewer"
            " with --workers, for smaller shares with --threads or --gpus-per-worker, or join a larger"
            " cluster with --ray-address"
        )
    return each


def _worker_environment(gpus: float) -> dict[str, str]:
    # Ray is told not to hide GPUs from those who asked for none: a worker without must not find one.
    return {} if gpus else {"CUDA_VISIBLE_DEVICES": ""}


def _loopback_name() -> str:
    """Return the name of the network interface that only this machine sees."""
    for name, addresses in psutil.net_if_addrs().items():
        if any(found.address == "127.0.0.1" for found in addresses):
            return name
    return "lo"


def _ray_train() -> Any:
    try:
        import ray.train
        import ray.train.torch
    except ImportError as error:
        raise EncoderUnavailable(
            "Ray Train is not installed: install sish-cluster[encoder,training], or use --workers 1"
        ) from error
    return ray.train


@contextlib.contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
