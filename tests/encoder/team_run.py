"""One worker of two under gloo, without Ray; started by ``test_training_team.py``: prints one JSON object.

Usage: team_run.py RANK MEETING_FILE FOLDER whole|killed
"""

import contextlib
import hashlib
import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

from sish_cluster.encoder.networks.vqvae import VqVae, VqVaeSize
from sish_cluster.encoder.networks.wsisum import SummaryShape
from sish_cluster.encoder.training.crops import Crops
from sish_cluster.encoder.training.loop import LoopSettings, train
from sish_cluster.encoder.training.loop_log import CLOCK
from sish_cluster.encoder.training.places import PlacedPatches
from sish_cluster.encoder.training.retccl import RetCclSettings, RetCclTask
from sish_cluster.encoder.training.sslp import SslpSettings, SslpTask
from sish_cluster.encoder.training.team import ProcessTeam, share_of
from sish_cluster.encoder.training.views import ViewSettings
from sish_cluster.encoder.training.vqvae import VqVaeTask, VqVaeTrainingSettings, batches_of
from sish_cluster.encoder.training.wsisum import FeatureShelf, WsisumSettings, WsisumTask

CPU = torch.device("cpu")
VIEWS = ViewSettings(side_px=32)
RETCCL = RetCclSettings(
    depth=18, width=4, dimensions=8, queue=12, clusters=3, batch=8, passes=3, views=VIEWS
)
SSLP = SslpSettings(
    depth=18, width=4, dimensions=8, clusters=4, negatives=6, batch=8, passes=3, views=VIEWS
)
WSISUM = WsisumSettings(
    shape=SummaryShape(
        width=16, depth=1, heads=2, decoder_width=8, decoder_depth=1, decoder_heads=2
    ),
    patches=6,
    clusters=2,
    batch=4,
    passes=6,
    warmup_passes=1,
    learning_rate=0.05,
)
KEYS = VqVaeTrainingSettings(
    n_steps=9,
    batch_crops=4,
    squares_per_crop=2,
    crop_px=32,
    warm_up_steps=2,
    refit_steps=(0, 6),
    revive_every=2,
    dead_share=0.9,
    usage_memory=0.2,
)


class Line:
    """Fits y = 3 x without batch norms: its shares' gradients add up to those of the batch."""

    def __init__(self, team):
        torch.manual_seed(11)
        self.module = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
        self.optimizer = torch.optim.Adam(self.module.parameters(), lr=0.01)
        self.own = share_of(team, 16)

    def batch_at(self, step, generator):
        return torch.rand(16, 4, generator=generator)[self.own]

    def losses_of(self, batch, step):
        error = self.module(batch).squeeze(1) - 3 * batch.sum(1)
        return {"loss": error.square().mean(), "bias": error.mean()}

    def after_step(self, step):
        pass

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


class Keys(VqVaeTask):
    """A small key network on drawn squares."""

    def __init__(self, team):
        torch.manual_seed(7)
        network = VqVae(VqVaeSize("small", channels=8, halvings=2))
        super().__init__(network, KEYS, team=team)
        pixels = np.random.default_rng(2).integers(0, 256, (6, 256, 256, 3), dtype=np.uint8)
        names = tuple("abcdef")
        crops = Crops(pixels, names, names, np.ones(6), "drawn")
        self.batch_at = batches_of(
            crops, np.arange(6), KEYS, 1.0, np.linspace(-1, 1, 6, dtype=np.float32), team=team
        )


def drawn_patches(count=24, side=32):
    rng = np.random.default_rng(5)
    pixels = rng.integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    places = np.stack([np.arange(count) % 4, np.arange(count) // 4], axis=1).astype(np.float64)
    return PlacedPatches(pixels, np.arange(count) // 8, places, ("a", "b", "c"), "drawn")


def shelf_of(folder):
    return FeatureShelf(sorted(Path(folder).glob("*.h5")))


def tasks_of(folder, team):
    shelf = shelf_of(folder)
    teachers = np.stack([shelf.slide(number).features.mean(axis=0) for number in range(len(shelf))])
    return {
        "line": (Line(team), 12),
        "retccl": (RetCclTask(drawn_patches(), RETCCL, device=CPU, team=team), 9),
        "wsisum": (WsisumTask(shelf, teachers, WSISUM, device=CPU, team=team), 12),
        "vqvae": (Keys(team), KEYS.n_steps),
        "sslp": (SslpTask(drawn_patches(), SSLP, device=CPU, team=team), 9),
    }


def curve_of(log):
    return [{name: value for name, value in row.items() if name != CLOCK} for row in log.rows]


def digest_of(task):
    tensors = [*task.module.state_dict().values(), *task.state_dict().values()]
    parts = [np.asarray(tensor).tobytes() for tensor in tensors]
    return hashlib.sha256(b"".join(parts)).hexdigest()


class Stopped(Exception):
    pass


def stopping(report):
    if report.step == 5:
        raise Stopped


def dying(report):
    if report.step == 5:
        os.kill(os.getpid(), signal.SIGKILL)


def run(folder, out, team, *, is_cut):
    """Train all tasks; return the curve and the final state of each, or end all at step 5."""
    found = {}
    for name, (task, n_steps) in tasks_of(folder, team).items():
        settings = LoopSettings(out / name, n_steps, checkpoint_every=2, log_every=3, rng_seed=5)
        reporter = (dying if name == "sslp" else stopping) if is_cut else None
        with contextlib.suppress(Stopped):
            log = train(task, task.batch_at, settings, team=team, reporter=reporter)
            found[name] = {"curve": curve_of(log), "digest": digest_of(task)}
    return found


def main():
    rank, meeting, folder, what = sys.argv[1:]
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{meeting}", rank=int(rank), world_size=2
    )
    found = run(folder, Path(folder) / "team", ProcessTeam(), is_cut=what == "killed")
    print("\n" + json.dumps(found))


if __name__ == "__main__":
    main()
