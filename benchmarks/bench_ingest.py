"""Durable ingest of 100-patch slides over gRPC, beside what LMDB alone does on the same disk.

    python benchmarks/bench_ingest.py --slides 4000 --writers 4

Real processes: one ``sish shard serve`` and one process per writer. LMDB alone writes the same bytes in
transactions of 64 slides, and of one, each synced. Then the shard is killed and started again, and the
time until its first answer is measured. Prints one JSON object.
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
import lmdb
import numpy as np

from sish_cluster.core.collection import Collection
from sish_cluster.core.posting import EncodedSlide, PatchColumns
from sish_cluster.core.slide import Slide
from sish_cluster.shard import records
from sish_cluster.wire.sish.v1 import shard_pb2, shard_pb2_grpc
from sish_cluster.wire.values import pack_collection, slide_parts

COLLECTION = Collection("bench", fingerprint="bench", code_bits=1024)


def stub_of(channel: grpc.Channel) -> Any:
    """Return a client of the shard."""
    make: Any = shard_pb2_grpc.ShardServiceStub
    return make(channel)


def slides_of(writer: int, n: int, patches: int) -> Iterator[EncodedSlide]:
    """Yield a writer's slides: random keys and codes, its own ids."""
    rng = np.random.default_rng(writer)
    for i in range(n):
        columns = PatchColumns.of(
            rng.integers(0, 8 * 10**14, patches, dtype=np.uint64),
            rng.integers(0, 256, (patches, 128), dtype=np.uint8),
        )
        slide = Slide(f"w{writer}-{i}", patient=f"p{i % 500}", site="lung", diagnosis=f"d{i % 7}")
        yield EncodedSlide(slide, columns, "bench", f"v{i}")


def write(address: str, writer: int, n: int, patches: int) -> None:
    """One writer process: prepare the messages, wait for the go, stream them, print the seconds."""
    requests = [
        shard_pb2.IngestRequest(
            collection="bench", part=part, state="SLIDE_STATE_COMMITTED", is_home=True, home="bench"
        )
        for encoded in slides_of(writer, n, patches)
        for part in slide_parts(encoded)
    ]
    with grpc.insecure_channel(address) as channel:
        stub = stub_of(channel)
        stub.Status(shard_pb2.StatusRequest(), timeout=60)
        print("ready", flush=True)
        sys.stdin.readline()
        start_s = time.perf_counter()
        stored = [r for r in stub.Ingest(iter(requests), timeout=600) if not r.error]
        assert len(stored) == n, f"{len(stored)} of {n} stored"
        print(time.perf_counter() - start_s, flush=True)


def lmdb_alone(folder: Path, n: int, patches: int, group: int) -> float:
    """Return slides per second of the same records written by LMDB and nothing else."""
    payloads = [
        (
            records.sealed(records.Kind.KEYS, b"a", keys),
            records.sealed(records.Kind.BLOB, b"a", blob),
        )
        for encoded in slides_of(0, min(n, 256), patches)
        for keys, blob in records.chunk_payloads(encoded.patches)
    ]
    header = bytes(450)
    env = lmdb.open(str(folder), map_size=1 << 36, max_dbs=3)
    tables = [env.open_db(name) for name in (b"slides", b"keys", b"blobs")]
    start_s = time.perf_counter()
    for first in range(0, n, group):
        with env.begin(write=True) as txn:
            for i in range(first, min(first + group, n)):
                keys, blob = payloads[i % len(payloads)]
                address = i.to_bytes(16, "big")
                for table, value in zip(tables, (header, keys, blob), strict=True):
                    txn.put(address, value, db=table)
    elapsed_s = time.perf_counter() - start_s
    env.close()
    return float(n / elapsed_s)


def served(folder: Path) -> tuple[subprocess.Popen[bytes], str, float]:
    """Start a shard; return the process, its address, and the seconds until its first answer."""
    port_file = folder.with_name("port")
    port_file.unlink(missing_ok=True)
    start_s = time.perf_counter()
    command = ["shard", "serve", "--data-dir", str(folder), "--listen", "127.0.0.1:0"]
    server = subprocess.Popen(
        [sys.executable, "-m", "sish_cluster.cli", *command, "--port-file", str(port_file)],
        stdout=subprocess.DEVNULL,
    )
    while not port_file.exists():
        assert server.poll() is None, "the shard ended"
        time.sleep(0.01)
    address = port_file.read_text()
    with grpc.insecure_channel(address) as channel:
        stub_of(channel).Status(shard_pb2.StatusRequest(), timeout=60)
    return server, address, time.perf_counter() - start_s


def over_grpc(address: str, options: argparse.Namespace) -> float:
    """Return slides per second of all writers together."""
    each = options.slides // options.writers
    arguments = ["--slides", str(each), "--patches", str(options.patches), "--address", address]
    writers = [
        subprocess.Popen(
            [sys.executable, __file__, *arguments, "--writer", str(writer)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for writer in range(options.writers)
    ]
    for process in writers:
        assert process.stdout is not None
        process.stdout.readline()
    start_s = time.perf_counter()
    for process in writers:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in writers:
        assert process.wait(600) == 0
    return each * options.writers / (time.perf_counter() - start_s)


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """Run everything in a temporary folder on the disk of ``--folder``."""
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        server, address, _ = served(folder / "data")
        with grpc.insecure_channel(address) as channel:
            stub = stub_of(channel)
            request = shard_pb2.CreateCollectionRequest(collection=pack_collection(COLLECTION))
            stub.CreateCollection(request, timeout=60)
        rate = over_grpc(address, options)
        server.kill()
        server.wait()
        server, address, restart_s = served(folder / "data")
        server.terminate()
        server.wait()
        alone = {g: lmdb_alone(folder, options.slides, options.patches, g) for g in (64, 1)}
    return {
        "slides": options.slides,
        "patches": options.patches,
        "writers": options.writers,
        "grpc_slides_per_s": round(rate),
        "lmdb_64_slides_per_s": round(alone[64]),
        "lmdb_1_slides_per_s": round(alone[1]),
        "restart_s": round(restart_s, 3),
        "cpus": os.cpu_count(),
        "machine": platform.platform(),
    }


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slides", type=int, default=4000)
    parser.add_argument("--patches", type=int, default=100)
    parser.add_argument("--writers", type=int, default=4)
    parser.add_argument("--folder", default=None, help="Folder on the disk to measure.")
    parser.add_argument("--address", help=argparse.SUPPRESS)
    parser.add_argument("--writer", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.address:
        write(options.address, options.writer, options.slides, options.patches)
    else:
        print(json.dumps(measured(options), indent=2))


if __name__ == "__main__":
    main()
