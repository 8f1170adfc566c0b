"""Run under Ray in a network of its own by ``test_actor_ray.py``: prints one JSON object.

Usage: ray_run.py kill|impossible FOLDER
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
from sish_cluster.encoder.mosaic import TwoStageSettings
from sish_cluster.encoder.pool import encode_all
from sish_cluster.encoder.settings import ActorSettings, EncoderSettings

FEW_PATCHES = EncoderSettings(
    mosaic=MosaicSettings(selection=TwoStageSettings(colour_clusters=3, min_members=1))
)

ACTOR_NAME = "ray::EncoderActor"


def entries(folder):
    files = sorted(Path(folder).iterdir())
    return [CatalogueEntry(file, Slide(file.stem), None) for file in files]


def actor_pids():
    children = psutil.Process().children(recursive=True)
    return {child.pid for child in children if child.name().startswith(ACTOR_NAME[:15])}


def kill(folder):
    """Encode a folder on two actors, killing one in mid-slide; then without Ray."""
    killed = []

    def watch(progress):
        if not killed and progress.stage == "encoding" and 0 < progress.done < progress.total:
            killed.append(min(actor_pids()))
            os.kill(killed[0], signal.SIGKILL)

    settings = ActorSettings(n_actors=2, poll_s=0.05)
    versions = versions_of(
        encode_all(entries(folder), FEW_PATCHES, actors=settings, on_progress=watch)
    )
    left = sorted(actor_pids())
    without_ray = encode_all(entries(folder), FEW_PATCHES, ray=False, actors=settings)
    return {
        "versions": versions,
        "without_ray": versions_of(without_ray),
        "killed": len(killed),
        "left": left,
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
        "impossible": lambda: {**impossible(folder), "late": too_late(folder)},
    }
    print("\n" + json.dumps(runs[what]()))
