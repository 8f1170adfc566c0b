"""DIRECT beside faiss: every posting within a cosine, and the nearest ten, on one thread.

    python -m benchmarks.bench_direct --out benchmarks/out/direct.json

The peer is ``faiss.IndexFlatIP`` over the same rows, normalised, in single precision: twice the memory.
Rows lie in clusters, so that each query patch has about 1 % of them above 0.7, as RetCCL's bound wants it.
The answers must be equal but for pairs whose cosine, in double precision, lies within 1e-5 of the bound,
where faiss's rounding decides (for the nearest, within one unit of distance more of the k-th, where ours
ties). Our times include everything from the query's halves to ordered candidates with keys, corners and
slides. numpy's bare product of the same numbers tells what the machine's BLAS can do, since faiss's own is
slow below some widths. Times are of the processor (``--clock wall`` for the wall's) and the median of some
runs. "Opened" is opening a shard on the archive, everything read from the store. Prints a table and one
JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"  # before the libraries read it: one thread each

import faiss  # noqa: E402
import numpy as np  # noqa: E402

from benchmarks.bench_restart import header_of  # noqa: E402
from benchmarks.index.measure import Stopwatch, machine  # noqa: E402
from sish_cluster.core.clock import NEVER_CANCELLED  # noqa: E402
from sish_cluster.core.collection import Collection  # noqa: E402
from sish_cluster.core.embedding import COSINE_UNITS  # noqa: E402
from sish_cluster.core.posting import PatchColumns  # noqa: E402
from sish_cluster.core.query import Mode, SearchSettings  # noqa: E402
from sish_cluster.shard.data_dir import DataDir  # noqa: E402
from sish_cluster.shard.index import PostingIndex  # noqa: E402
from sish_cluster.shard.settings import ShardSettings  # noqa: E402
from sish_cluster.shard.shard import Shard  # noqa: E402
from sish_cluster.shard.store import Batch, Store  # noqa: E402
from sish_cluster.shard.vectors import SlideVectors, Vectors  # noqa: E402
from sish_cluster.shard.vectors_search import direct  # noqa: E402

PER_SLIDE = 100
QUERY_PATCHES = 100
CLUSTERS = 80
MIN_COSINE = 0.7
K = 10
UNSURE = 1e-5
"""Cosines this near to the bound may be judged otherwise by single precision."""

SHAPES = ((100_000, 1024), (20_000, 2048))


class Archive:
    """Embeddings in clusters, as this project keeps them and as faiss does."""

    def __init__(self, n: int, dimensions: int, rng: np.random.Generator) -> None:
        centres = rng.standard_normal((CLUSTERS, dimensions))
        self.rows = self._drawn(centres, n, rng)
        self.queries = self._drawn(centres, QUERY_PATCHES, rng)
        self.vectors = Vectors(dimensions)
        for ordinal in range(n // PER_SLIDE):
            part = self.rows[ordinal * PER_SLIDE : (ordinal + 1) * PER_SLIDE]
            self.vectors.put(ordinal, SlideVectors.of(part))
        self.snapshot = PostingIndex.bulk(
            0,
            keys=np.sort(rng.integers(0, 1 << 50, n, dtype=np.uint64)),
            codes=np.zeros((n, 0), np.uint8),
            ordinals=np.repeat(np.arange(n // PER_SLIDE, dtype=np.uint32), PER_SLIDE),
            numbers=np.tile(np.arange(PER_SLIDE, dtype=np.uint32), n // PER_SLIDE),
            corners=np.zeros((n, 2), np.int32),
        ).snapshot()
        self.peer = faiss.IndexFlatIP(dimensions)
        self.peer.add(_units(self.rows))

    @staticmethod
    def _drawn(centres: Any, n: int, rng: np.random.Generator) -> Any:
        dimensions = centres.shape[1]
        rows = np.empty((n, dimensions), np.float16)
        for start in range(0, n, 10_000):
            end = min(start + 10_000, n)
            chosen = centres[rng.integers(0, CLUSTERS, end - start)]
            spread = rng.uniform(0.45, 0.85, (end - start, 1))
            noise = rng.standard_normal((end - start, dimensions))
            rows[start:end] = chosen + spread * noise
        return rows

    def found(self, queries: Any, *, least: float, k: int) -> Any:
        """Search as a shard does, on one thread."""
        return direct(
            self.snapshot,
            self.vectors.view(len(self.rows) // PER_SLIDE),
            queries,
            SearchSettings(Mode.DIRECT, min_cosine=least, max_candidates=k),
            eligible=np.ones(len(self.rows) // PER_SLIDE, bool),
            slide_ids_of=lambda ordinals: [f"s{o:07d}" for o in ordinals.tolist()],
            cancellation=NEVER_CANCELLED,
        )


def _units(rows: Any) -> Any:
    singles = rows.astype(np.float32)
    faiss.normalize_L2(singles)
    return singles


def ours_of(found: Any) -> list[set[int]]:
    """Return each query patch's rows."""
    rows = found.ordinals.astype(np.int64) * PER_SLIDE + found.numbers
    return [set(part.tolist()) for part in np.split(rows, found.offsets[1:-1])]


def differing(archive: Archive, ours: list[set[int]], theirs: list[set[int]], k: int) -> int:
    """Return how many rows only one of the two has although their cosine is not at the bound."""
    n_wrong = 0
    rows = archive.rows
    for query, mine, other in zip(archive.queries.astype(float), ours, theirs, strict=True):
        every = np.array(sorted(mine | other), np.int64)
        chosen = rows[every].astype(float)
        cosines = chosen @ query / np.linalg.norm(chosen, axis=1) / np.linalg.norm(query)
        bound = np.sort(cosines)[-k] if k else MIN_COSINE
        is_sure = np.abs(cosines - bound) > UNSURE + (1.0 / COSINE_UNITS if k else 0.0)
        n_wrong += sum(row in mine ^ other for row in every[is_sure].tolist())
    return n_wrong


def theirs_within(archive: Archive) -> list[set[int]]:
    """Return faiss's rows within the bound."""
    limits, _, ids = archive.peer.range_search(_units(archive.queries), MIN_COSINE)
    return [set(part.tolist()) for part in np.split(ids, limits[1:-1].astype(int))]


def compared(archive: Archive, watch: Stopwatch, repeats: int) -> list[dict[str, Any]]:
    """Return a row per kind of search."""
    queries, peer = archive.queries, archive.peer
    one = queries[:1]
    runs: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
        f"cosine >= {MIN_COSINE}": (
            lambda: archive.found(queries, least=MIN_COSINE, k=0),
            lambda: peer.range_search(_units(queries), MIN_COSINE),
        ),
        f"nearest {K}": (
            lambda: archive.found(queries, least=-1.0, k=K),
            lambda: peer.search(_units(queries), K),
        ),
        f"nearest {K}, 1 patch": (
            lambda: archive.found(one, least=-1.0, k=K),
            lambda: peer.search(_units(one), K),
        ),
    }
    within = ours_of(archive.found(queries, least=MIN_COSINE, k=0))
    wrong = [
        differing(archive, within, theirs_within(archive), 0),
        differing(
            archive,
            ours_of(archive.found(queries, least=-1.0, k=K)),
            [set(ids.tolist()) for ids in peer.search(_units(queries), K)[1]],
            K,
        ),
        0,
    ]
    rows = []
    for (what, (ours, theirs)), n_wrong in zip(runs.items(), wrong, strict=True):
        times = [watch.times(run, repeats=repeats) / 1e6 for run in (ours, theirs)]
        medians = [float(np.median(spent)) for spent in times]
        rows.append(
            {
                "what": what,
                "ours_ms": medians[0],
                "ours_fastest_ms": float(times[0].min()),
                "faiss_ms": medians[1],
                "faiss_fastest_ms": float(times[1].min()),
                "ratio": medians[0] / medians[1],
                "differing_rows": n_wrong,
            }
        )
    rows[0]["candidates_per_patch"] = sum(map(len, within)) / QUERY_PATCHES
    rows.append(product(archive, watch, repeats))
    return rows


def product(archive: Archive, watch: Stopwatch, repeats: int) -> dict[str, Any]:
    """Return what numpy's product of the same rows in single precision takes, with nothing chosen of it."""
    queries, rows = _units(archive.queries), _units(archive.rows)
    spent = watch.times(lambda: queries @ rows.T, repeats=repeats) / 1e6
    operations = 2.0 * rows.size * len(queries)
    median = float(np.median(spent))
    return {"what": "numpy's product alone", "ms": median, "gflops": operations / median / 1e6}


def memory(archive: Archive) -> dict[str, float]:
    """Return bytes per posting: of the embeddings, of the index beside them, and of the peer."""
    n = len(archive.rows)
    return {
        "embeddings": archive.vectors.memory_bytes / n,
        "index": sum(segment.memory_bytes for segment in archive.snapshot.segments) / n,
        "faiss": archive.peer.d * 4.0,
    }


def opened(archive: Archive, folder: Path, watch: Stopwatch) -> dict[str, float]:
    """Write the archive to a store, open a shard on it twice, and return seconds and rates."""
    n, dimensions = archive.rows.shape
    collection = Collection("bench", "bench", 0, dimensions=dimensions, has_keys=False)
    data_dir = DataDir(folder / "data").made()
    store = Store(data_dir.store, limit_bytes=data_dir.limit_bytes)
    store.write(lambda batch: batch.put_collection(1, collection))
    for first in range(0, n // PER_SLIDE, 64):
        serials = range(first, min(first + 64, n // PER_SLIDE))

        def fill(batch: Batch, serials: range = serials) -> None:
            for serial in serials:
                rows = archive.rows[serial * PER_SLIDE : (serial + 1) * PER_SLIDE]
                keys = np.arange(PER_SLIDE, dtype=np.uint64)
                patches = PatchColumns.of(keys, np.zeros((PER_SLIDE, 0)), embeddings=rows)
                batch.put_slide(1, serial, header_of(serial), patches)

        store.write(fill)
    store.close()
    settings = ShardSettings(data_dir.path, checkpoint_postings=10**9)
    took_s = min(watch.times(lambda: Shard(settings).close(), repeats=3)) / 1e9
    return {"open_s": took_s, "gigabytes_per_s": archive.rows.nbytes / took_s / 1e9}


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """Measure every shape."""
    faiss.omp_set_num_threads(1)
    watch = Stopwatch(options.clock)
    archives = []
    for n, dimensions in SHAPES:
        n = int(n * options.share) // PER_SLIDE * PER_SLIDE
        archive = Archive(n, dimensions, np.random.default_rng(n))
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            start = opened(archive, Path(folder), watch)
        archives.append(
            {
                "postings": n,
                "dimensions": dimensions,
                "query_patches": QUERY_PATCHES,
                "rows": compared(archive, watch, options.repeats),
                "bytes_per_posting": memory(archive),
                **start,
            }
        )
    return {"machine": machine(), "clock": options.clock, "archives": archives}


def show(result: dict[str, Any]) -> None:
    """Print the table."""
    for archive in result["archives"]:
        n, dimensions = archive["postings"], archive["dimensions"]
        print(f"{n} postings x {dimensions}, {archive['query_patches']} query patches, one thread")
        print(f"{'search':<22}{'ours':>12}{'faiss':>12}{'ratio':>8}{'rows that differ':>18}")
        *rows, bare = archive["rows"]
        for row in rows:
            times = f"{row['ours_ms']:>9.1f} ms{row['faiss_ms']:>9.1f} ms"
            print(f"{row['what']:<22}{times}{row['ratio']:>8.2f}{row['differing_rows']:>18}")
        print(f"{bare['what']:<22}{bare['ms']:>9.1f} ms  ({bare['gflops']:.0f} GFLOPS)")
        sizes = archive["bytes_per_posting"]
        print(
            f"bytes a posting: embeddings {sizes['embeddings']:.0f}, index {sizes['index']:.0f};"
            f" faiss {sizes['faiss']:.0f}. Opened in {archive['open_s']:.2f} s"
            f" ({archive['gigabytes_per_s']:.2f} GB/s)"
        )


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--share", type=float, default=1.0, help="Share of the postings.")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--clock", choices=("cpu", "wall"), default="cpu")
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
