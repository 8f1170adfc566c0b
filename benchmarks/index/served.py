"""Rows that need a shard being served: durable ingest, restart, searches beside ingest.

Each runs the benchmark of its own that lies beside this folder, with real processes on loopback, and
turns what it measured into rows of the one table.
"""

import argparse
import tempfile
from pathlib import Path

from benchmarks import bench_ingest, bench_mixed, bench_restart
from benchmarks.index.measure import Row

INGEST_GOAL_PER_S = 1000
"""Slides a second, or 80 % of LMDB alone."""

RESTART_GOAL_S = 5.0
"""Seconds until the first answer with 1e7 postings."""


def ingest_rows(folder):
    """Yield durable ingest of 100-patch slides by 4 writers over gRPC, and LMDB alone beside it."""
    options = argparse.Namespace(slides=6000, patches=100, writers=4, folder=folder)
    found = bench_ingest.measured(options)
    rate = found["grpc_slides_per_s"]
    what, size = "durable ingest, 4 writers", options.slides * options.patches
    yield Row(
        what, size, "gRPC", 1e9 / rate, 0.0, "slide", f"{rate} slides/s, all acknowledged",
        rate / INGEST_GOAL_PER_S, f">={INGEST_GOAL_PER_S} slides/s",
        f"{rate / found['lmdb_64_slides_per_s']:.0%} of LMDB, 64 a commit",
    )  # fmt: skip
    for group in (64, 1):
        alone = found[f"lmdb_{group}_slides_per_s"]
        who = f"LMDB alone, {group} a commit"
        yield Row(what, size, who, 1e9 / alone, 0.0, "slide", f"{alone} slides/s")


def restart_rows(folder, postings):
    """Yield starts until the first answered search, with a checkpoint and without."""
    options = argparse.Namespace(
        postings=postings, rounds=3, behind=0.1, checkpoint_only=False, folder=folder
    )
    found = bench_restart.measured(options)
    for who, start in found["rows"].items():
        memory = f"{start['resident_bytes'] / found['postings']:.0f} B/posting resident"
        goal = f"<={RESTART_GOAL_S:.0f} s" if postings >= 10**7 else ""
        yield Row(
            "restart to first answer", found["postings"], who, start["first_answer_s"] * 1e9,
            start["slowest_s"] * 1e9, "start", memory, start["first_answer_s"] / RESTART_GOAL_S, goal,
        )  # fmt: skip


def mixed_rows(folder):
    """Yield searches alone, beside ingest at half its maximum rate, and beside as much other work."""
    options = argparse.Namespace(
        slides=2000, patches=100, query_patches=50, mode="guided", searches=300, writers=2,
        burst=6000, seconds=5.0,
    )  # fmt: skip
    with tempfile.TemporaryDirectory(dir=folder) as name:
        found = bench_mixed.measured(options, Path(name))
    size = found["postings"]
    rate = found["ingest_during_search_slides_per_s"]
    cores = f"beside {found['ingest_cores']} cores of other work"
    for who, times, ratio, goal in (
        ("alone", found["idle_ms"], None, ""),
        (f"beside {rate} slides/s", found["busy_ms"], found["p99_ratio"], "p99 <=2 x alone"),
        (cores, found["control_ms"], found["control_p99_ratio"], ""),
    ):
        yield Row(
            "search of 50 patches, gRPC", size, who, times["p50"] * 1e6, times["p99"] * 1e6, "search",
            "own slide at distance 0", ratio, goal,
        )  # fmt: skip
