"""Several workers train as one: equal sums, equal memories, equal curves after a kill; without Ray."""

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from sish_cluster.core.errors import BadRequest, CheckpointMismatch, EncoderUnavailable
from sish_cluster.encoder.training.distributed import WorkerSettings, share_of_cluster
from sish_cluster.encoder.training.loop import LoopSettings, train
from sish_cluster.encoder.training.retccl import RetCclTask
from sish_cluster.encoder.training.team import ALONE, averaged, even_share
from sish_cluster.encoder.training.views import views_of

SCRIPT = Path(__file__).with_name("team_run.py")

TIMEOUT_S = 280.0
"""Seconds two workers may take on a busy machine; they need about 15 on a quiet one."""


def loaded(script):
    spec = importlib.util.spec_from_file_location("team_run", script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


team_run = loaded(SCRIPT)

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(autouse=True)
def one_thread():
    """Several threads add in an order of their own: results would repeat only nearly."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def features_in(folder):
    folder.mkdir()
    rng = np.random.default_rng(3)
    for number, count in enumerate((9, 6, 9, 4, 12, 9, 7, 6)):
        with h5py.File(folder / f"slide-{number}.h5", "w") as file:
            file["features"] = rng.normal(size=(count, 16)).astype(np.float32)
            file["coords"] = np.stack([np.arange(count), np.zeros(count, int)], axis=1)
    return folder


def two_workers(folder, what):
    """Run both workers to their end; return what each printed, None for one that was killed."""
    meeting = folder / f"meeting-{what}"
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    workers = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), str(rank), str(meeting), str(folder), what],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for rank in range(2)
    ]
    try:
        return [printed_by(worker, what) for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()


def printed_by(worker, what):
    printed, said = worker.communicate(timeout=TIMEOUT_S)
    was_killed = what == "killed" and worker.returncode != 0
    assert was_killed or worker.returncode == 0, said[-3000:]
    return None if was_killed else json.loads(printed.strip().splitlines()[-1])


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """(folder, what each of two undisturbed workers found)."""
    folder = features_in(tmp_path_factory.mktemp("team") / "whole")
    return folder, two_workers(folder, "whole")


def test_all_workers_end_with_the_same_state_memories_and_queues_included(whole):
    _, (first, second) = whole
    for name in ("line", "retccl", "wsisum", "vqvae", "sslp"):
        assert first[name]["digest"] == second[name]["digest"], name
        assert first[name]["curve"] == second[name]["curve"], name


@pytest.mark.parametrize("name", ["line", "wsisum"])
def test_the_workers_shares_add_up_to_the_batch_of_one_where_no_batch_norm_is(
    whole, tmp_path, name
):
    folder, (found, _) = whole
    task, n_steps = team_run.tasks_of(folder, ALONE)[name]
    settings = LoopSettings(tmp_path, n_steps, log_every=3, rng_seed=5)
    alone = team_run.curve_of(train(task, task.batch_at, settings))
    assert len(alone) == len(found[name]["curve"]) == 4
    for row, other in zip(alone, found[name]["curve"], strict=True):
        assert other == pytest.approx(row, rel=1e-4, abs=1e-6)
    assert alone[-1]["loss"] < alone[0]["loss"]


def test_codewords_are_revived_for_all_workers_at_once(whole):
    _, (first, _) = whole
    assert max(row["codewords_revived"] for row in first["vqvae"]["curve"]) > 0


def test_workers_stopped_or_killed_by_the_system_go_on_with_the_same_curves(whole, tmp_path):
    folder = features_in(tmp_path / "killed")
    assert two_workers(folder, "killed") == [None, None]
    for name in ("line", "retccl", "wsisum", "vqvae", "sslp"):
        kept = torch.load(folder / "team" / name / "checkpoint.pt", weights_only=True)
        assert kept["step"] == 4
    assert two_workers(folder, "whole") == whole[1]


def test_a_run_of_another_number_of_workers_is_refused_and_both_are_named(whole):
    folder, _ = whole
    task, n_steps = team_run.tasks_of(folder, ALONE)["line"]
    settings = LoopSettings(folder / "team" / "line", n_steps, rng_seed=5)
    with pytest.raises(CheckpointMismatch, match=r"seed 5; 2 workers', asked for '; seed 5'"):
        train(task, task.batch_at, settings)


class OneOfTwo:
    """Worker ``rank`` of two whose fellow has what it has, times a factor."""

    size = 2

    def __init__(self, rank=0, factor=1.0):
        self.rank = rank
        self.factor = factor

    def summed(self, tensor):
        return tensor * (1 + self.factor)

    def gathered(self, rows):
        return torch.cat([rows, (rows * self.factor).to(rows.dtype)])

    def from_first(self, tensor):
        return tensor


def test_gradients_running_statistics_and_losses_are_means_over_the_workers():
    module = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    module(torch.rand(4, 2)).square().sum().backward()
    before = [p.grad.clone() for p in module.parameters()]
    mean = module[1].running_mean.clone()
    told = averaged(OneOfTwo(factor=3.0), module, {"loss": torch.tensor(2.0)})
    for old, parameter in zip(before, module.parameters(), strict=True):
        assert torch.allclose(parameter.grad, 2 * old)
    assert torch.allclose(module[1].running_mean, 2 * mean)
    assert float(told["loss"]) == 4.0
    assert int(module[1].num_batches_tracked) == 1


def test_the_shares_of_the_workers_are_the_batch_that_one_would_see():
    alone = RetCclTask(team_run.drawn_patches(), team_run.RETCCL, device=team_run.CPU)
    batch = alone.batch_at(1, torch.Generator().manual_seed(4))
    for rank in range(2):
        task = RetCclTask(
            team_run.drawn_patches(), team_run.RETCCL, device=team_run.CPU, team=OneOfTwo(rank)
        )
        share = task.batch_at(1, torch.Generator().manual_seed(4))
        own = slice(4 * rank, 4 * rank + 4)
        assert torch.equal(share.rows, batch.rows[own])
        assert torch.allclose(share.q2, batch.q2[own], atol=1e-5)


def test_a_share_gets_the_views_it_gets_in_the_whole_batch():
    patches = torch.from_numpy(team_run.drawn_patches(6).pixels)
    whole = views_of(patches, team_run.VIEWS, torch.Generator().manual_seed(1))
    tail = views_of(patches[4:], team_run.VIEWS, torch.Generator().manual_seed(1), among=(4, 6))
    assert torch.allclose(tail, whole[4:], atol=1e-5)


def test_the_queue_takes_the_keys_of_all_workers():
    task = RetCclTask(
        team_run.drawn_patches(), team_run.RETCCL, device=team_run.CPU, team=OneOfTwo()
    )
    batch = task.batch_at(0, torch.Generator().manual_seed(0))
    task.losses_of(batch, 0)
    task.after_step(0)
    assert task.queue.held()[2].tolist() == [*batch.rows.tolist(), *batch.rows.tolist()]


def test_workers_that_find_other_checkpoints_are_told_to_share_the_folder(tmp_path):
    class Elsewhere(OneOfTwo):
        def gathered(self, rows):
            return torch.cat([rows, rows + 8])

    task = team_run.Line(ALONE)
    with pytest.raises(BadRequest, match=r"checkpoints of steps \[0, 8\]"):
        train(task, task.batch_at, LoopSettings(tmp_path, 3), team=Elsewhere())


@pytest.mark.parametrize(("batch", "workers"), [(7, 2), (2, 4), (32, 3)])
def test_a_batch_that_the_workers_cannot_share_evenly_is_refused(batch, workers):
    with pytest.raises(BadRequest, match=rf"{workers} workers cannot share a batch of {batch}"):
        even_share(batch, workers)
    assert even_share(batch * workers, workers) == batch


def test_key_chunks_are_parts_of_a_workers_share():
    with pytest.raises(BadRequest, match=r"each of 3 key chunks .* got 4 patches"):
        RetCclTask(
            team_run.drawn_patches(),
            dataclasses.replace(team_run.RETCCL, key_chunks=3),
            device=team_run.CPU,
            team=OneOfTwo(),
        )


def test_more_workers_than_cpus_are_refused_with_both_numbers():
    with pytest.raises(EncoderUnavailable, match=r"4 workers of 1 CPU each .* Ray has 2 CPU\b"):
        share_of_cluster({"CPU": 2.0}, WorkerSettings(4))


def test_gpus_that_are_not_there_are_refused_with_both_numbers():
    with pytest.raises(EncoderUnavailable, match=r"2 workers of 1 CPU and 1 GPU .* and 0 GPU"):
        share_of_cluster({"CPU": 2.0}, WorkerSettings(2, device="cuda"))
    with pytest.raises(EncoderUnavailable, match=r"1 CPU and 1 GPU each .* and 1 GPU"):
        share_of_cluster({"CPU": 2.0, "GPU": 1.0}, WorkerSettings(2))


def test_cpus_are_shared_evenly_and_gpus_as_asked():
    assert share_of_cluster({"CPU": 9.0}, WorkerSettings(2)) == {"CPU": 4.0}
    assert share_of_cluster({"CPU": 9.0}, WorkerSettings(2, threads=3)) == {"CPU": 3.0}
    there = {"CPU": 8.0, "GPU": 1.0}
    assert share_of_cluster(there, WorkerSettings(2, address="auto", gpus_per_worker=0.5)) == {
        "CPU": 1.0,
        "GPU": 0.5,
    }
    assert share_of_cluster(there, WorkerSettings(2, device="cpu")) == {"CPU": 4.0}


@pytest.mark.parametrize(("count", "gpus"), [(1, None), (0, None), (2, -1.0)])
def test_workers_that_make_no_sense_are_refused(count, gpus):
    with pytest.raises(BadRequest, match=r"workers are 2 or more|gpus_per_worker is 0 or"):
        WorkerSettings(count, gpus_per_worker=gpus)
