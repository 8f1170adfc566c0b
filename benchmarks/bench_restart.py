"""Restart: from starting the process to the first answered search over gRPC, with and without a checkpoint.

    python -m benchmarks.bench_restart --postings 1000000 --rounds 3 --out benchmarks/out/restart.json

Writes a store of slides of 100 patches with the store's own code, then starts ``sish shard serve`` on it
again and again: from the store alone, from the checkpoint, and from a checkpoint that lacks the last
slides. "cold" means that the kernel was asked to drop the files from its page cache first; "warm" that
they were read or written just before. Prints a table and one JSON object.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil

from benchmarks.index.data import PATCHES_PER_SLIDE, keys_drawn
from sish_cluster.core.collection import Collection
from sish_cluster.core.posting import PatchColumns
from sish_cluster.core.query import Mode, Query, SearchSettings
from sish_cluster.core.seams import SlideState
from sish_cluster.core.slide import Slide
from sish_cluster.shard.data_dir import DataDir
from sish_cluster.shard.records import SlideRecord
from sish_cluster.shard.store import Batch, Store
from sish_cluster.wire.sish.v1 import shard_pb2, shard_pb2_grpc
from sish_cluster.wire.values import pack_query

COLLECTION = Collection("bench", fingerprint="bench", code_bits=1024)
CODE_BYTES = COLLECTION.code_bytes
COMMIT_SLIDES = 512
POLL_S = 0.005


def patches_drawn(rng: np.random.Generator, slides: int) -> Iterator[PatchColumns]:
    """Yield the patches of slides."""
    n = slides * PATCHES_PER_SLIDE
    keys = keys_drawn(rng, n, "published")
    codes = rng.integers(0, 256, (n, CODE_BYTES), dtype=np.uint8)
    corners = rng.integers(0, 10**5, (n, 2), dtype=np.int32)
    for start in range(0, n, PATCHES_PER_SLIDE):
        rows = slice(start, start + PATCHES_PER_SLIDE)
        yield PatchColumns.of(keys[rows], codes[rows], corners[rows])


def header_of(serial: int) -> SlideRecord:
    """Return the header of a slide with the labels and digests that real slides have."""
    slide = Slide(
        f"slide-{serial:07d}",
        patient=f"patient-{serial // 3}",
        site=f"site-{serial % 30}",
        diagnosis=f"diagnosis-{serial % 113}",
        institution=f"institution-{serial % 11}",
        labels={"stain": "HE"},
        mpp=0.25,
        width_px=100_000,
        height_px=80_000,
        patch_side_px=1024,
        digest=f"{serial:064x}",
    )
    stored_at_s = 1.7e9 + serial * 1e-3
    return SlideRecord(
        slide, f"{serial:032x}", "bench", SlideState.COMMITTED, True, "shard", stored_at_s,
        PATCHES_PER_SLIDE,
    )  # fmt: skip


def write_slides(data_dir: DataDir, first: int, end: int) -> None:
    """Write slides ``first`` to ``end`` to the store; the collection comes with the first."""
    store = Store(data_dir.store, limit_bytes=data_dir.limit_bytes)
    if first == 0:
        store.write(lambda batch: batch.put_collection(1, COLLECTION))
    for start in range(first, end, COMMIT_SLIDES):
        serials = range(start, min(start + COMMIT_SLIDES, end))
        drawn = list(patches_drawn(np.random.default_rng(start), len(serials)))

        def fill(batch: Batch, serials: range = serials, drawn: list[PatchColumns] = drawn) -> None:
            for serial, patches in zip(serials, drawn, strict=True):
                batch.put_slide(1, serial, header_of(serial), patches)

        store.write(fill)
    store.close()


@dataclasses.dataclass
class Served:
    """A running shard, and what starting it took."""

    process: subprocess.Popen[bytes]
    first_answer_s: float
    cpu_s: float
    resident_bytes: int

    def stop(self) -> float:
        """End it as an operator would; return the seconds it took."""
        start_s = time.perf_counter()
        self.process.terminate()
        assert self.process.wait(300) == 0
        return time.perf_counter() - start_s

    def kill(self) -> None:
        """End it as a power cut would."""
        self.process.kill()
        self.process.wait()


def served(data_dir: DataDir) -> Served:
    """Start a shard and ask it until it answers a search of 20 patches."""
    port_file = data_dir.path.with_name("port")
    port_file.unlink(missing_ok=True)
    patches = next(patches_drawn(np.random.default_rng(0), 1)).taken(np.arange(20))
    query = Query(patches, "bench", SearchSettings(mode=Mode.GUIDED))
    request = shard_pb2.SearchRequest(collection="bench", query=pack_query(query))
    command = ["shard", "serve", "--data-dir", str(data_dir.path), "--listen", "127.0.0.1:0"]
    start_s = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "sish_cluster.cli", *command, "--port-file", str(port_file)],
        stdout=subprocess.DEVNULL,
    )
    while not port_file.exists():
        assert process.poll() is None, "the shard ended"
        time.sleep(POLL_S)
    with grpc.insecure_channel(port_file.read_text()) as channel:
        stub: Any = shard_pb2_grpc.ShardServiceStub(channel)  # type: ignore[no-untyped-call]
        assert list(stub.Search(request, timeout=60)), "no answer"
        took_s = time.perf_counter() - start_s
    shard = psutil.Process(process.pid)
    spent = shard.cpu_times()
    return Served(process, took_s, spent.user + spent.system, shard.memory_info().rss)


def drop_from_cache(data_dir: DataDir) -> None:
    """Ask the kernel to forget the data directory's pages; they are on disk already."""
    for path in data_dir.path.rglob("*"):
        if path.is_file():
            handle = os.open(path, os.O_RDONLY)
            os.fsync(handle)
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(handle)


def restarted(data_dir: DataDir, *, rounds: int, is_cold: bool) -> dict[str, Any]:
    """Start and kill a shard some times; return medians."""
    runs = []
    for _ in range(rounds):
        if is_cold:
            drop_from_cache(data_dir)
        running = served(data_dir)
        runs.append(running)
        running.kill()
    return {
        "first_answer_s": float(np.median([run.first_answer_s for run in runs])),
        "slowest_s": max(run.first_answer_s for run in runs),
        "cpu_s": float(np.median([run.cpu_s for run in runs])),
        "resident_bytes": int(np.median([run.resident_bytes for run in runs])),
    }


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """Run everything in a temporary folder on the disk of ``--folder``."""
    slides = options.postings // PATCHES_PER_SLIDE
    behind = int(slides * options.behind)
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        data_dir = DataDir(Path(name) / "data").made()
        write_slides(data_dir, 0, slides)
        rows: dict[str, Any] = {}
        if not options.checkpoint_only:
            rows["store alone, warm"] = restarted(data_dir, rounds=1, is_cold=False)
            shutil.rmtree(data_dir.checkpoints, ignore_errors=True)
        running = served(data_dir)
        checkpoint = data_dir.checkpoint("bench")
        while not checkpoint.exists():
            time.sleep(0.1)
        stop_s = running.stop()
        rows["checkpoint, warm"] = restarted(data_dir, rounds=options.rounds, is_cold=False)
        rows["checkpoint, cold"] = restarted(data_dir, rounds=options.rounds, is_cold=True)
        checkpoint_bytes = checkpoint.stat().st_size
        write_slides(data_dir, slides, slides + behind)
        label = f"checkpoint, {options.behind:.0%} behind, warm"
        rows[label] = restarted(data_dir, rounds=options.rounds, is_cold=False)
    return {
        **about(),
        "postings": slides * PATCHES_PER_SLIDE,
        "code_bytes": CODE_BYTES,
        "checkpoint_bytes": checkpoint_bytes,
        "stop_without_change_s": stop_s,
        "rows": rows,
    }


def about() -> dict[str, Any]:
    """Return what was measured on what."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    return {
        "machine": platform.platform(),
        "cpus": os.cpu_count(),
        "load_before": os.getloadavg()[0],
        "python": platform.python_version(),
        "commit": commit.stdout.strip(),
    }


def show(result: dict[str, Any]) -> None:
    """Print the table."""
    n = result["postings"]
    print(f"{n} postings, {result['code_bytes']} code bytes, {result['cpus']} cpus,", end=" ")
    print(f"checkpoint {result['checkpoint_bytes'] / n:.0f} B/posting")
    print(f"{'start':<32}{'first answer':>14}{'slowest':>10}{'cpu':>10}{'resident':>18}")
    for name, row in result["rows"].items():
        resident = f"{row['resident_bytes'] / n:.0f} B/posting"
        seconds = (
            f"{row['first_answer_s']:>12.2f} s{row['slowest_s']:>8.2f} s{row['cpu_s']:>8.2f} s"
        )
        print(f"{name:<32}{seconds}{resident:>18}")


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--postings", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--behind", type=float, default=0.1, help="Share stored after it.")
    parser.add_argument("--checkpoint-only", action="store_true", help="Leave out the slow row.")
    parser.add_argument("--folder", default=None, help="Folder on the disk to measure.")
    parser.add_argument("--out", type=Path, help="JSON goes here, too.")
    options = parser.parse_args()
    result = measured(options)
    show(result)
    text = json.dumps(result, indent=2)
    print(text)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
