"""Run under Ray in a network of its own by ``test_actor_ray.py``: prints one JSON object.

Usage: ray_run.py kill|head|impossible FOLDER
"""

import dataclasses
import json
import os
import signal
import sys
import time
from pathlib import Path

import psutil

from sish_cluster.core.errors import EncoderUnavailable
from sish_cluster.core.posting import EncodedSlide
from sish_cluster.core.slide import Slide
from sish_cluster.encoder.catalogue import CatalogueEntry
from sish_cluster.encoder.cutting import MosaicSettings
from sish_cluster.encoder.encoded_store import EncodedStore
from sish_cluster.encoder.mosaic import TwoStageSettings
from sish_cluster.encoder.pool import encode_all
from sish_cluster.encoder.settings import ActorSettings, EncoderSettings

FEW_PATCHES = EncoderSettings(
    mosaic=MosaicSettings(selection=TwoStageSettings(colour_clusters=3, min_members=1))
)

ENCODER_NAME, READER_NAME = "ray::EncoderActor", "ray::ReaderActor"

KERNEL_NAME_CHARACTERS = 15
"""Characters the kernel keeps of a process's name."""


def entries(folder):
    files = sorted(Path(folder).iterdir())
    return [CatalogueEntry(file, Slide(file.stem), None) for file in files]


def actor_pids(*names):
    short = tuple(name[:KERNEL_NAME_CHARACTERS] for name in names)
    children = psutil.Process().children(recursive=True)
    return {child.pid for child in children if child.name().startswith(short)}


def kill(folder):
    """Encode a folder on two actors, killing an actor and then a reader in mid-slide; then without Ray."""
    killed = []

    def watch(progress):
        is_encoding = progress.stage == "encoding" and 0 < progress.done < progress.total
        if is_encoding and len(killed) < 2:
            killed.append(min(actor_pids((ENCODER_NAME, READER_NAME)[len(killed)])))
            os.kill(killed[-1], signal.SIGKILL)

    settings = ActorSettings(n_actors=2, poll_s=0.05)
    versions = versions_of(
        encode_all(entries(folder), FEW_PATCHES, actors=settings, on_progress=watch)
    )
    left = sorted(actor_pids(ENCODER_NAME, READER_NAME))
    without_ray = encode_all(entries(folder), FEW_PATCHES, ray=False, actors=settings)
    return {
        "versions": versions,
        "without_ray": versions_of(without_ray),
        "killed": len(killed),
        "left": left,
    }


def head(folder):
    """Kill Ray's head in mid-slide: every slide still has a fate, and a second run encodes the rest."""
    store, killed = EncodedStore(Path(folder).parent / "store"), []

    def watch(progress):
        if not killed and progress.stage == "encoding" and progress.done:
            killed.extend(p for p in psutil.Process().children() if "raylet" in p.name())
            killed.extend(p for p in psutil.Process().children() if "gcs_server" in p.name())
            for process in killed:
                process.kill()

    settings = ActorSettings(n_actors=1, poll_s=0.05, stall_timeout_s=60.0)
    started_s = time.monotonic()
    first = versions_of(
        encode_all(entries(folder), FEW_PATCHES, actors=settings, cache=store, on_progress=watch)
    )
    seconds = time.monotonic() - started_s
    told = []
    again = encode_all(
        entries(folder),
        FEW_PATCHES,
        ray=False,
        actors=settings,
        cache=store,
        on_progress=told.append,
    )
    return {
        "first": first,
        "seconds": seconds,
        "again": versions_of(again),
        "encoded_again": sorted({p.slide_id for p in told if p.stage != "stored"}),
        "killed": len(killed),
    }


def versions_of(outcomes):
    found = {}
    for outcome in outcomes:
        if isinstance(outcome, EncodedSlide):
            found[outcome.slide.slide_id] = outcome.version
        else:
            found[outcome.slide_id] = f"{type(outcome.error).__name__}: {outcome.error}"
    return found


def impossible(folder):
    """Ask for more CPUs than any machine has."""
    started_s = time.monotonic()
    settings = ActorSettings(n_actors=2, cpus_per_actor=5000.0)
    try:
        list(encode_all(entries(folder), FEW_PATCHES, actors=settings))
    except EncoderUnavailable as error:
        return {"error": str(error), "seconds": time.monotonic() - started_s}
    return {}


def too_late(folder):
    """Give actors too little time to start."""
    settings = dataclasses.replace(ActorSettings(n_actors=1), place_timeout_s=0.001)
    try:
        list(encode_all(entries(folder), FEW_PATCHES, actors=settings))
    except EncoderUnavailable as error:
        return {"error": str(error)}
    return {}


if __name__ == "__main__":
    what, folder = sys.argv[1:]
    runs = {
        "kill": lambda: kill(folder),
        "head": lambda: head(folder),
        "impossible": lambda: {**impossible(folder), "late": too_late(folder)},
    }
    print("\n" + json.dumps(runs[what]()))
