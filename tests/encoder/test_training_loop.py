"""The training loop: the same curve whatever interrupts it, and a folder that tells how it went."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap

import pytest
import torch
from torch import nn

from sish_cluster.core.errors import BadRequest, BadWeights, CheckpointMismatch, Corrupt
from sish_cluster.encoder.training.loop import LoopSettings, train
from sish_cluster.encoder.training.loop_checkpoint import CHECKPOINT_FILE
from sish_cluster.encoder.training.loop_log import CLOCK

N_STEPS = 30


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Small tensors on a busy machine: more threads only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class NoisyLine:
    """Fits y = 3 x with dropout, momentum and a running mean of its own: four things to restore."""

    def __init__(self):
        self.module = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 1))
        self.optimizer = torch.optim.Adam(self.module.parameters(), lr=0.01)
        self.bank = torch.zeros(1)

    def losses_of(self, batch, step):
        found = self.module(batch)
        loss = (found.squeeze(1) - 3 * batch.sum(1)).square().mean() + 0.01 * self.bank.mean()
        self.bank = 0.9 * self.bank + 0.1 * found.detach().mean()
        return {"loss": loss, "bank": self.bank.mean()}

    def after_step(self, step):
        self.bank = self.bank + 0.001 * torch.rand(1)

    def state_dict(self):
        return {"bank": self.bank}

    def load_state_dict(self, state):
        self.bank = state["bank"]


def noisy_line():
    torch.manual_seed(11)
    return NoisyLine()


def batch_at(step, generator):
    return torch.rand(16, 4, generator=generator)


def settings(folder, **changes):
    base = {"n_steps": N_STEPS, "checkpoint_every": 7, "log_every": 3, "rng_seed": 5}
    return LoopSettings(folder, **{**base, **changes})


def curves(log):
    return [{k: v for k, v in row.items() if k != CLOCK} for row in log.rows]


class Stopped(Exception):
    pass


def stopping_at(step):
    def report(found):
        if found.step == step:
            raise Stopped

    return report


def test_two_trainings_with_one_seed_have_the_same_curve(tmp_path):
    first = train(noisy_line(), batch_at, settings(tmp_path / "a"))
    second = train(noisy_line(), batch_at, settings(tmp_path / "b"))
    other = train(noisy_line(), batch_at, settings(tmp_path / "c", rng_seed=6))
    assert curves(first) == curves(second)
    assert curves(first) != curves(other)


@pytest.mark.parametrize("step", [1, 7, 8, 20, 29])
def test_a_training_stopped_at_any_step_goes_on_with_the_same_curve(tmp_path, step):
    whole = noisy_line()
    expected = train(whole, batch_at, settings(tmp_path / "whole"))
    with pytest.raises(Stopped):
        train(noisy_line(), batch_at, settings(tmp_path / "cut"), reporter=stopping_at(step))
    resumed = noisy_line()
    found = train(resumed, batch_at, settings(tmp_path / "cut"))
    assert curves(found) == curves(expected)
    for name, tensor in whole.module.state_dict().items():
        assert torch.equal(tensor, resumed.module.state_dict()[name]), name


KILLED = """
    import importlib.util, os, signal, sys
    from pathlib import Path
    spec = importlib.util.spec_from_file_location("case", sys.argv[1])
    case = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(case)

    def kill(found):
        if found.step == 17:
            os.kill(os.getpid(), signal.SIGKILL)

    case.train(case.noisy_line(), case.batch_at, case.settings(Path(sys.argv[2])), reporter=kill)
"""


def test_a_training_killed_by_the_system_goes_on_with_the_same_curve(tmp_path):
    expected = train(noisy_line(), batch_at, settings(tmp_path / "whole"))
    command = [sys.executable, "-c", textwrap.dedent(KILLED), __file__, str(tmp_path / "cut")]
    killed = subprocess.run(command, timeout=120, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert killed.returncode == -signal.SIGKILL
    found = train(noisy_line(), batch_at, settings(tmp_path / "cut"))
    assert curves(found) == curves(expected)
    lines = (tmp_path / "cut" / "log.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line) for line in lines] == found.rows


def test_rows_are_means_of_the_steps_since_the_row_before(tmp_path):
    each = train(noisy_line(), batch_at, settings(tmp_path / "each", log_every=1))
    third = train(noisy_line(), batch_at, settings(tmp_path / "third", log_every=3))
    losses = [loss for _, loss in each.curve()]
    for number, (step, mean) in enumerate(third.curve()):
        assert step == 3 * (number + 1)
        assert mean == pytest.approx(sum(losses[step - 3 : step]) / 3)


def test_the_loss_falls(tmp_path):
    curve = train(noisy_line(), batch_at, settings(tmp_path, n_steps=300, log_every=30)).curve()
    assert curve[-1][1] < 0.5 * curve[0][1]


def test_evaluations_are_logged_and_leave_the_curve_alone(tmp_path):
    plain = train(noisy_line(), batch_at, settings(tmp_path / "plain"))
    seen = []

    def evaluated(step):
        seen.append(step)
        return {"drawn": float(torch.rand(1))}

    found = train(
        noisy_line(),
        batch_at,
        settings(tmp_path / "evaluated", evaluate_every=12),
        evaluation=evaluated,
    )
    assert seen == [12, 24, 30]
    assert found.curve() == plain.curve()
    assert [step for step, _ in found.curve("drawn")] == [12, 24, 30]


def test_the_plot_is_rewritten_while_the_training_runs(tmp_path):
    pictures = []

    def report(found):
        if found.row is not None:
            pictures.append((tmp_path / "loss.png").read_bytes())

    train(noisy_line(), batch_at, settings(tmp_path, n_steps=9, plot_every_s=0.0), reporter=report)
    assert len(pictures) == 3
    assert all(picture.startswith(b"\x89PNG") for picture in pictures)
    assert pictures[0] != pictures[2]


def test_a_checkpoint_of_another_training_is_refused(tmp_path):
    train(noisy_line(), batch_at, settings(tmp_path, identity="lines"))
    with pytest.raises(CheckpointMismatch, match=r"lines.*curves"):
        train(noisy_line(), batch_at, settings(tmp_path, identity="curves"))
    with pytest.raises(CheckpointMismatch, match=r"seed 5.*seed 6"):
        train(noisy_line(), batch_at, settings(tmp_path, identity="lines", rng_seed=6))


class Bomb:
    def __reduce__(self):
        return (os.system, ("echo ran > ran.txt",))


@pytest.mark.parametrize("content", [b"", b"no checkpoint", None])
def test_a_file_that_is_no_checkpoint_is_refused_and_runs_nothing(tmp_path, content, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if content is None:
        torch.save({"format": 1, "identity": Bomb()}, tmp_path / CHECKPOINT_FILE)
    else:
        (tmp_path / CHECKPOINT_FILE).write_bytes(content)
    with pytest.raises(BadWeights, match="no checkpoint"):
        train(noisy_line(), batch_at, settings(tmp_path))
    assert not (tmp_path / "ran.txt").exists()


def test_a_loss_that_is_no_number_stops_and_keeps_the_last_checkpoint(tmp_path):
    def poisoned(step, generator):
        return torch.full((2, 4), float("nan")) if step >= 14 else batch_at(step, generator)

    with pytest.raises(Corrupt, match="step 15"):
        train(noisy_line(), poisoned, settings(tmp_path))
    kept = torch.load(tmp_path / CHECKPOINT_FILE, weights_only=True)
    assert kept["step"] == 14
    assert all(tensor.isfinite().all() for tensor in kept["module"].values())


@pytest.mark.parametrize("field", ["n_steps", "checkpoint_every", "log_every"])
def test_settings_that_mean_nothing_are_refused(tmp_path, field):
    with pytest.raises(BadRequest, match=field):
        settings(tmp_path, **{field: 0})
