"""Train on two workers under Ray Train in a network of one's own; ``test_training_ray.py`` starts it.

Prints one JSON object. Usage: train_ray_run.py FOLDER
"""

import dataclasses
import functools
import json
import os
import signal
import sys
from pathlib import Path

import cv2
import h5py
import numpy as np
import psutil

from sish_cluster.core.errors import BadSlide, SishError
from sish_cluster.encoder.networks.wsisum import SummaryShape
from sish_cluster.encoder.training.distributed import WorkerSettings, ray_workers
from sish_cluster.encoder.training.loop import LoopSettings
from sish_cluster.encoder.training.patch_run import PatchRun, train_retccl, train_sslp
from sish_cluster.encoder.training.places import PlaceSettings
from sish_cluster.encoder.training.retccl import RetCclSettings
from sish_cluster.encoder.training.sslp import SslpSettings
from sish_cluster.encoder.training.views import ViewSettings
from sish_cluster.encoder.training.vqvae import VqVaeTrainingSettings
from sish_cluster.encoder.training.vqvae_run import VqVaeRun, train_vqvae
from sish_cluster.encoder.training.vqvae_run import prepare as prepare_keys
from sish_cluster.encoder.training.wsisum import WsisumSettings
from sish_cluster.encoder.training.wsisum_run import WsisumRun, train_wsisum

VIEWS = ViewSettings(side_px=32)
RETCCL = RetCclSettings(
    depth=18, width=4, dimensions=8, queue=16, clusters=3, batch=8, passes=6, views=VIEWS
)
SSLP = SslpSettings(
    depth=18, width=4, dimensions=8, clusters=4, negatives=6, batch=8, passes=3, views=VIEWS
)
WSISUM = WsisumSettings(
    shape=SummaryShape(16, depth=1, heads=2, decoder_width=8, decoder_depth=1, decoder_heads=2),
    patches=6,
    clusters=2,
    batch=4,
    passes=4,
    warmup_passes=1,
)
KEYS = VqVaeTrainingSettings(n_steps=4, batch_crops=2, crop_px=32, warm_up_steps=2)
LOOP = LoopSettings(Path(), 4, checkpoint_every=2, log_every=2)
RETCCL_STEPS = 18
"""24 tiles, 8 a step, 6 passes."""


def prepare(folder):
    rng = np.random.default_rng(5)
    tiles, features = folder / "tiles", folder / "features"
    tiles.mkdir()
    features.mkdir()
    lines = ["file,group"]
    for number in range(24):
        pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        name = f"slide_x{32 * (number % 4)}_y{32 * (number // 4)}.png"
        cv2.imwrite(str(tiles / name), pixels)
        lines.append(f"{name},g{number // 8}")
    (tiles / "labels.csv").write_text("\n".join(lines) + "\n", "utf-8")
    for number, count in enumerate((9, 6, 9, 4)):
        with h5py.File(features / f"slide-{number}.h5", "w") as file:
            file["features"] = rng.normal(size=(count, 16)).astype(np.float32)
            file["coords"] = np.stack([np.arange(count), np.zeros(count, int)], axis=1)


def dying_once(mark):
    """Kill this worker with SIGKILL after step 5, once only."""

    def report(found):
        if found.step == 5 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    return report


def all_kinds(folder, out, dies, *, team, reporter):
    """Train every kind in one group of workers: what starts it costs more than they do."""
    patches = functools.partial(
        PatchRun,
        tiles=folder / "tiles",
        places=PlaceSettings(side_px=32),
        device="cpu",
        checkpoint_every=2,
        log_every=2,
    )
    summaries = WsisumRun(
        out / "wsisum", folder / "features", device="cpu", checkpoint_every=2, log_every=2
    )
    keys = VqVaeRun(
        out / "vqvae", tiles=folder / "tiles", hold_out=("g0",), training=KEYS, loop=LOOP
    )
    in_mid_run = dying_once(out / "mark") if dies and team.rank == 1 else reporter
    found = {
        "sslp": train_sslp(patches(out / "sslp"), SSLP, team=team, reporter=reporter),
        "retccl": train_retccl(patches(out / "retccl"), RETCCL, team=team, reporter=in_mid_run),
        "wsisum": train_wsisum(summaries, WSISUM, team=team, reporter=reporter),
        "vqvae": train_vqvae(keys, team=team, reporter=reporter),
    }
    return {name: metrics.get("digest") for name, metrics in found.items()}


def one_fails(*, team, reporter):
    """Fail in the second worker while the first waits for it."""
    import torch

    if team.rank == 1:
        raise BadSlide("slide-7.svs: cannot be read")
    team.summed(torch.zeros(1))
    return {}


def worker_pids():
    children = psutil.Process().children(recursive=True)
    return sorted(c.pid for c in children if "RayTrainWorker" in " ".join(c.cmdline()))


def main(folder):
    prepare(folder)
    told = []
    prepare_keys(VqVaeRun(folder / "whole" / "vqvae", tiles=folder / "tiles"))
    prepare_keys(VqVaeRun(folder / "cut" / "vqvae", tiles=folder / "tiles"))
    with ray_workers(WorkerSettings(2, threads=1, device="cpu")) as workers:

        def trained(name, reporter):
            work = functools.partial(all_kinds, folder, folder / name, name == "cut")
            return workers.run(work, folder / name, reporter=reporter)

        whole = trained("whole", None)
        cut = trained("cut", lambda report: told.append(dataclasses.asdict(report)))
        try:
            failed = workers.run(one_fails, folder / "failed")
        except SishError as error:
            failed = f"{type(error).__name__}: {error}"
    return {
        "whole": whole,
        "cut": cut,
        "told": [report for report in told if report["n_steps"] == RETCCL_STEPS],
        "failed": failed,
        "left": worker_pids(),
    }


if __name__ == "__main__":
    print("\n" + json.dumps(main(Path(sys.argv[1]))))
