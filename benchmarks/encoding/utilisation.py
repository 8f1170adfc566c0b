"""How much of the device's arithmetic each network gets, and how long an actor waits for its readers.

Achieved FLOP/s of a network through our engine, on one actor's share of the device (a core, or a GPU), over
what a large matrix product achieves there in the same numbers, measured beside it.
"""

import functools
import threading
import time

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from sish_cluster.core.slide import Slide
from sish_cluster.encoder.catalogue import CatalogueEntry
from sish_cluster.encoder.embedders import KINDS
from sish_cluster.encoder.local_actor import local_actors
from sish_cluster.encoder.networks.engine import EngineSettings, Runner, plan_of
from sish_cluster.encoder.networks.inputs import device_of, repeatable
from sish_cluster.encoder.networks.vqvae import COMPACT, LARGE, VqVae
from sish_cluster.encoder.pipeline import Encoder
from sish_cluster.encoder.profile import COMPACT as COMPACT_PROFILE
from sish_cluster.encoder.profile import RETCCL
from sish_cluster.encoder.settings import ActorSettings, EncoderSettings

PRODUCT_SIDE = {"cpu": 2048, "cuda": 8192}
"""Rows and columns of the matrices whose product is the peak."""

SECONDS = 2.0
"""How long each network, and each product, is run for its median."""


def networks():
    """Return name -> (what makes the network, side it sees in px, whether its answers become keys)."""
    sides = {"retccl": RETCCL.side_px, "resnet18": RETCCL.side_px}
    found = {
        name: (kind.build, sides.get(name, COMPACT_PROFILE.side_px), False)
        for name, kind in KINDS.items()
    }
    for size in (COMPACT, LARGE):
        found[size.name] = (functools.partial(_key_encoder, size), size.side_px, True)
    return found


def _key_encoder(size):
    return VqVae(size).encoder


def utilisation_rows(device_name):
    """Return a row for each network on a device, in each of its precisions."""
    device, peaks, rows = device_of(device_name), {}, []
    for name, (build, side_px, keeps_float32) in networks().items():
        for precision in ("full",) if keeps_float32 else ("half", "full"):
            plan = plan_of(EngineSettings(precision=precision), device, keeps_float32=keeps_float32)
            if precision == "half" and plan.numbers == "float32":
                continue
            if plan.numbers not in peaks:
                peaks[plan.numbers] = peak_of(device, plan.numbers)
            # A network of its own: an engine may change or let go of the one it is given.
            network = build().eval().requires_grad_(False)
            rows.append(utilisation_row(name, network, side_px, plan, peaks[plan.numbers]))
    return rows


def utilisation_row(name, network, side_px, plan, peak):
    """Return what a network achieves."""
    n = ActorSettings().batch_of(has_gpu=plan.device.type != "cpu")
    x = torch.randn(n, 3 + plan.takes_whole, side_px, side_px, device=plan.device)
    x = x.to(memory_format=torch.channels_last)
    flops = n * flops_of(network, side_px)
    runner = Runner(network, plan)
    with repeatable():
        seconds = median_s(lambda: runner(x), plan.device)
    return {
        "what": "network utilisation",
        "network": name,
        "side px": side_px,
        "batch": n,
        "runs": str(plan),
        "GFLOP a patch": round(flops / n / 1e9, 2),
        "patches a second": round(n / seconds, 2),
        "GFLOP/s": round(flops / seconds / 1e9, 1),
        f"peak GFLOP/s, {plan.numbers} product": round(peak / 1e9, 1),
        "share of the peak": round(flops / seconds / peak, 3),
        "goal": "report; aim 0.4 on a GPU",
    }


def flops_of(network, side_px):
    """Return the floating-point operations of one patch, a multiplication and an addition being two."""
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network(torch.zeros(1, 3, side_px, side_px))
    return counter.get_total_flops()


def peak_of(device, numbers):
    """Return the FLOP/s of a large matrix product; on a CPU of one thread, as an actor has."""
    side = PRODUCT_SIDE[device.type]
    a, b = (torch.randn(side, side, device=device, dtype=getattr(torch, numbers)) for _ in "ab")
    with repeatable():
        return 2 * side**3 / median_s(lambda: a @ b, device)


def median_s(run, device):
    """Return the median seconds of a call, after two that are not counted."""

    def once():
        began_s = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - began_s

    once()
    once()
    until_s = time.perf_counter() + SECONDS
    times = [once()]
    while time.perf_counter() < until_s or len(times) < 3:
        times.append(once())
    return float(np.median(times))


class _Watched:
    """An encoder that notes when it works."""

    def __init__(self, encoder):
        self._encoder = encoder
        self._lock = threading.Lock()
        self.spans = []

    def __getattr__(self, name):
        return getattr(self._encoder, name)

    def encode_patches(self, pixels):
        """Return the columns of patches, and note from when to when."""
        began_s = time.perf_counter()
        columns = self._encoder.encode_patches(pixels)
        with self._lock:
            self.spans.append((began_s, time.perf_counter()))
        return columns


def waiting_row(slides, device_name):
    """Return how much of a bulk run the actors wait for readers, from the first patch to the last."""
    actors = ActorSettings()
    settings = EncoderSettings(device=device_name)
    watched = _Watched(Encoder(settings, at_once=actors.wanted_actors))
    side_px = settings.profile.side_px
    watched.encode_patches(np.zeros((1, side_px, side_px, 3), np.uint8))
    watched.spans.clear()
    with local_actors(settings, actors, encoder=watched) as lanes:
        free, began = list(lanes), []
        for path in slides:
            if not free:
                began[-len(lanes)][1].result()
                free.append(began[-len(lanes)][0])
            lane = free.pop(0)
            entry = CatalogueEntry(path, Slide(path.stem), None)
            began.append((lane, lane.encode(entry, path.stem)))
        for _, future in began:
            future.result()
    first_s, last_s = (
        f(times) for f, times in zip((min, max), zip(*watched.spans, strict=True), strict=True)
    )
    busy_s = sum(end - start for start, end in watched.spans)
    return {
        "what": "actors waiting for readers during a bulk run",
        "slides": len(slides),
        "patches": len(watched.spans),
        "actors": len(lanes),
        "seconds": round(last_s - first_s, 1),
        "patches a second": round(len(watched.spans) / (last_s - first_s), 2),
        "share of the actors' time": round(1 - busy_s / len(lanes) / (last_s - first_s), 3),
        "goal": "readers never starve an actor",
    }
