"""Search latency while slides are ingested at half the rate this shard can take.

    python -m benchmarks.bench_mixed --slides 2000 --searches 300 --out benchmarks/out/mixed.json

Real processes: one ``sish shard serve``, writer processes, and this process, which searches. First the
shard is filled; then the writers run flat out (that is the maximum rate); then searches run while writers
keep half that rate; then searches run alone, over no fewer postings; last, as a control, beside processes
that touch no shard but take as much of the processor as that ingest did, clients and shard together. What
the control costs is the machine's, the rest the shard's. Every answer is checked: the query's own slide
comes back at distance 0. Prints a table and writes JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
import psutil

from benchmarks.bench_ingest import COLLECTION, served, slides_of, stub_of
from benchmarks.index.busy import busy_processes
from sish_cluster.core.query import Mode, Query, SearchSettings
from sish_cluster.wire.answers import AnswerAssembler
from sish_cluster.wire.sish.v1 import shard_pb2
from sish_cluster.wire.values import pack_collection, pack_query, slide_parts

Latencies = npt.NDArray[np.float64]
"""Milliseconds of searches, one after another."""


def paced(
    requests: list[shard_pb2.IngestRequest], rate: float, seconds: float
) -> Iterator[shard_pb2.IngestRequest]:
    """Yield requests at ``rate`` a second (0: as fast as they go) for ``seconds`` at most."""
    start_s = time.perf_counter()
    for i, request in enumerate(requests):
        due_s = start_s + i / rate if rate else start_s
        if time.perf_counter() - start_s > seconds:
            return
        time.sleep(max(0.0, due_s - time.perf_counter()))
        yield request


def write(options: argparse.Namespace) -> None:
    """One writer process: prepare, wait for the go, stream at its rate, print how many were stored."""
    slides = slides_of(options.writer, options.slides, options.patches)
    requests = [
        shard_pb2.IngestRequest(
            collection="bench", part=part, state="SLIDE_STATE_COMMITTED", is_home=True, home="b"
        )
        for slide in slides
        for part in slide_parts(slide)
    ]
    with grpc.insecure_channel(options.address) as channel:
        stub = stub_of(channel)
        stub.Status(shard_pb2.StatusRequest(), timeout=60)
        print("ready", flush=True)
        sys.stdin.readline()
        stream = paced(requests, options.rate, options.seconds)
        start_s = time.process_time()
        n_stored = sum(not r.error for r in stub.Ingest(stream, timeout=600))
        print(n_stored, time.process_time() - start_s, flush=True)


class Writers:
    """Writer processes that have prepared their slides and wait for the go."""

    def __init__(self, address: str, options: argparse.Namespace, first: int, rate: float) -> None:
        each = [
            sys.executable, "-m", "benchmarks.bench_mixed", "--address", address,
            "--slides", str(options.burst), "--patches", str(options.patches),
            "--seconds", str(options.seconds), "--rate", str(rate / options.writers),
        ]  # fmt: skip
        self._processes = [
            subprocess.Popen(
                [*each, "--writer", str(first + i)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for i in range(options.writers)
        ]
        for process in self._processes:
            assert process.stdout is not None
            process.stdout.readline()

    def go(self) -> None:
        """Start all of them."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()

    def are_running(self) -> bool:
        """Whether any still writes."""
        return any(process.poll() is None for process in self._processes)

    def finished(self) -> tuple[int, float]:
        """Wait for all of them; return how many slides were acknowledged, and their CPU seconds."""
        ends = [process.communicate(timeout=600)[0].split() for process in self._processes]
        return sum(int(end[0]) for end in ends), sum(float(end[1]) for end in ends)


def search_ms(stub: Any, query: shard_pb2.SearchRequest, n_patches: int) -> float:
    """Return the milliseconds of one whole search; the query's own slide must be there at 0."""
    start_s = time.perf_counter()
    parts = list(stub.Search(query, timeout=60))
    elapsed_ms = (time.perf_counter() - start_s) * 1e3
    assembler = AnswerAssembler()
    for part in parts:
        assembler.add(part)
    assert (assembler.answer(n_patches).candidates.distances == 0).sum() >= n_patches
    return elapsed_ms


def measured(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Run the five steps on a shard of its own."""
    server, address, _ = served(folder / "data")
    try:
        with grpc.insecure_channel(address) as channel:
            stub = stub_of(channel)
            collection = pack_collection(COLLECTION)
            stub.CreateCollection(
                shard_pb2.CreateCollectionRequest(collection=collection), timeout=60
            )
            return _five_steps(options, address, stub, psutil.Process(server.pid))
    finally:
        server.kill()
        server.wait()


def cpu_s(process: psutil.Process) -> float:
    """Return the CPU seconds a process has used."""
    times = process.cpu_times()
    return float(times.user + times.system)


def _five_steps(
    options: argparse.Namespace, address: str, stub: Any, server: psutil.Process
) -> dict[str, Any]:
    own = next(slides_of(0, 1, options.patches))
    fill = [
        shard_pb2.IngestRequest(
            collection="bench", part=part, state="SLIDE_STATE_COMMITTED", is_home=True, home="b"
        )
        for slide in slides_of(0, options.slides, options.patches)
        for part in slide_parts(slide)
    ]
    assert all(not r.error for r in stub.Ingest(iter(fill), timeout=600))
    asked = own.patches.taken(np.arange(options.query_patches))
    query = Query(asked, "bench", SearchSettings(Mode(options.mode)))
    request = shard_pb2.SearchRequest(collection="bench", query=pack_query(query))
    writers = Writers(address, options, 1, 0.0)
    start_s = time.perf_counter()
    writers.go()
    n_written, _ = writers.finished()
    top_rate = n_written / (time.perf_counter() - start_s)
    writers = Writers(address, options, 1 + options.writers, top_rate / 2)
    start_s, start_cpu_s = time.perf_counter(), cpu_s(server)
    writers.go()
    busy = []
    while writers.are_running():
        busy.append(search_ms(stub, request, len(asked)))
    n_more, ingest_cpu_s = writers.finished()
    elapsed_s = time.perf_counter() - start_s
    ingest_cpu_s += cpu_s(server) - start_cpu_s
    # Last, so that searches alone have as much to look at as those beside the ingest, or more.
    for _ in range(20):
        search_ms(stub, request, len(asked))
    start_cpu_s = cpu_s(server)
    idle = [search_ms(stub, request, len(asked)) for _ in range(options.searches)]
    search_cpu_s = (cpu_s(server) - start_cpu_s) / len(idle)
    cores = max(0.0, ingest_cpu_s - len(busy) * search_cpu_s) / elapsed_s
    with busy_processes(cores, options.writers + 1):
        beside = [search_ms(stub, request, len(asked)) for _ in range(options.searches)]
    return {
        "postings": (options.slides + n_written + n_more) * options.patches,
        "ingest_max_slides_per_s": round(top_rate),
        "ingest_during_search_slides_per_s": round(n_more / elapsed_s),
        "ingest_cores": round(cores, 2),
        **_facts(options, np.array(idle), np.array(busy), np.array(beside)),
    }


def _facts(
    options: argparse.Namespace, idle: Latencies, busy: Latencies, beside: Latencies
) -> dict[str, Any]:
    return {
        "mode": options.mode,
        "query_patches": options.query_patches,
        "idle_ms": _summary(idle),
        "busy_ms": _summary(busy),
        "control_ms": _summary(beside),
        "p99_ratio": float(np.percentile(busy, 99) / np.percentile(idle, 99)),
        "control_p99_ratio": float(np.percentile(beside, 99) / np.percentile(idle, 99)),
        "cpus": os.cpu_count(),
        "machine": platform.platform(),
        "commit": subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
        ).stdout.strip(),
    }


def _summary(ms: Latencies) -> dict[str, float]:
    return {"p50": np.median(ms), "p99": np.percentile(ms, 99), "n": len(ms)}


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slides", type=int, default=2000, help="slides before anything is timed")
    parser.add_argument("--patches", type=int, default=100)
    parser.add_argument("--query-patches", type=int, default=50)
    parser.add_argument("--mode", default="guided", choices=[m.value for m in Mode])
    parser.add_argument("--searches", type=int, default=300)
    parser.add_argument("--writers", type=int, default=2)
    parser.add_argument("--burst", type=int, default=6000, help="most slides of one writer")
    parser.add_argument("--seconds", type=float, default=5.0, help="length of each ingest")
    parser.add_argument("--folder", default=None, help="folder on the disk to measure")
    parser.add_argument("--out", type=Path, help="write the JSON here too")
    parser.add_argument("--rate", type=float, default=0.0, help=argparse.SUPPRESS)
    parser.add_argument("--address", help=argparse.SUPPRESS)
    parser.add_argument("--writer", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.address:
        write(options)
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        text = json.dumps(measured(options, Path(name)), indent=2)
    print(text)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text)


if __name__ == "__main__":
    main()
