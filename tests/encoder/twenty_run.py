"""``sish index`` over twenty slides under Ray, killed three times and run again: prints one JSON object.

Run in a network of its own by ``test_twenty_slides.py``. Usage: twenty_run.py FOLDER, which holds ``slides``
and ``labels.csv``; a router, a shard and two folders of encoded slides are made beside them.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

from sish_cluster.client import Client
from sish_cluster.testing.clusters import ProcessCluster, cut_nowhere

KILLS = ((2, "ray::ReaderActor"), (5, "ray::EncoderActor"), (9, "gcs_server", "raylet"))
"""After how many encoded slides which processes die."""

KERNEL_NAME_CHARACTERS = 15
"""Characters the kernel keeps of a process's name."""

LOOK_S = 0.02
"""Seconds between two looks at the store: a slide takes half a second."""


def command(folder, router, collection, *more):
    """The command line; what it encodes is kept in a folder called like the collection."""
    slides = [str(folder / "slides"), "--labels", str(folder / "labels.csv"), "-c", collection]
    where = ["--router", router, "--home", str(folder / collection), "--patches-per-slide", "2"]
    return [sys.executable, "-m", "sish_cluster.cli", "index", *slides, *where, *more]


RAY = ("--actors", "1", "--readers", "2")


class Encodings:
    """Every encoding there was: the store writes a new file whenever a slide was encoded, never else."""

    def __init__(self, home):
        self._folder = home / "encoded"
        self.inodes = {}

    def look(self):
        for file in self._folder.glob("*.slide"):
            self.inodes.setdefault(file.name, set()).add(file.stat().st_ino)
        return len(self.inodes)


def killing_run(run, encodings, client):
    """Kill processes of a command as `KILLS` says, then search; return what became of it."""
    killed, libraries, searched, last_s = [], {}, [], 0.0
    while run.poll() is None:
        n_encoded = encodings.look()
        if len(killed) < len(KILLS) and n_encoded >= KILLS[len(killed)][0]:
            libraries = libraries or torch_of(run.pid)
            killed.append(kill(run.pid, KILLS[len(killed)][1:]))
            last_s = time.monotonic()
        if len(killed) == len(KILLS) and not searched:
            searched = first_results(client)
        time.sleep(LOOK_S)
    encodings.look()
    if len(killed) < len(KILLS):
        raise SystemExit(f"the command ended with {run.returncode} after {len(killed)} kills")
    return {
        "exit": run.returncode,
        "killed": killed,
        "torch": libraries,
        "seconds after the last": time.monotonic() - last_s,
        "printed": run.stdout.read(),
        "searched": searched,
    }


def named(pid, names):
    short = tuple(name[:KERNEL_NAME_CHARACTERS] for name in names)
    children = psutil.Process(pid).children(recursive=True)
    return [child for child in children if child.name().startswith(short)]


def kill(pid, names):
    """Kill one process of each name; return their names."""
    victims = [min(named(pid, [name]), key=lambda process: process.pid) for name in names]
    for victim in victims:
        os.kill(victim.pid, signal.SIGKILL)
    return list(names)


def torch_of(pid):
    """Return whether each kind of actor has torch in its memory."""
    return {
        name: any(
            "libtorch" in mapped.path for p in named(pid, [name]) for mapped in p.memory_maps()
        )
        for name in ("ray::ReaderActor", "ray::EncoderActor")
    }


def first_results(client):
    """Search with a slide that is stored; return its name and the names found, nearest first."""
    slide_id = min(versions(client, "killed"))
    found = client.search("killed", client.encoded_slide("killed", slide_id))
    return [slide_id, *(result.slide.slide_id for result in found.results)]


def versions(client, collection):
    return {found.slide.slide_id: found.version for found in client.list_slides(collection)}


def plain_run(line):
    began_s = time.monotonic()
    done = subprocess.run(line, capture_output=True, text=True)
    text = done.stdout + done.stderr
    return {"exit": done.returncode, "printed": text, "seconds": time.monotonic() - began_s}


def main(folder, router, client):
    encodings = Encodings(folder / "killed")
    line = command(folder, router, "killed", *RAY)
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as run:
        first = killing_run(run, encodings, client)
    acknowledged, encoded = versions(client, "killed"), encodings.look()
    nowhere = plain_run([*line, "--ray", "127.0.0.1:9"])
    second = plain_run(line)
    encodings.look()
    undisturbed = plain_run(command(folder, router, "whole", "--no-ray", "--actors", "1"))
    return {
        "first": first,
        "acknowledged": acknowledged,
        "encoded by then": encoded,
        "nowhere": nowhere,
        "second": second,
        "encodings of each": sorted(len(inodes) for inodes in encodings.inodes.values()),
        "versions": versions(client, "killed"),
        "undisturbed": undisturbed,
        "undisturbed versions": versions(client, "whole"),
        "equal bytes": same_files(folder / "killed" / "encoded", folder / "whole" / "encoded"),
    }


def same_files(one, two):
    a, b = ({file.name: file.read_bytes() for file in folder.iterdir()} for folder in (one, two))
    return a == b


if __name__ == "__main__":
    top = Path(sys.argv[1])
    with (
        ProcessCluster(top / "cluster", cut_nowhere()) as cluster,
        Client(cluster.address) as asked,
    ):
        print("\n" + json.dumps(main(top, cluster.address, asked)))
