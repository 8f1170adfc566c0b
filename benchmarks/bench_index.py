"""The index beside its peers: one table, and JSON with the machine and the commit.

    python -m benchmarks.bench_index --out index.json
    python -m benchmarks.bench_index --largest 1e6 --rows published exact

Nothing is hand-picked: sizes, seed, distribution, clock and rows are flags. Every ratio is of times taken
in the same run.
"""

import argparse
import dataclasses
import json
from pathlib import Path

import numpy as np

from benchmarks.index import filters, keys, memory, searches, served
from benchmarks.index.measure import Stopwatch, machine, printed

ROWS = (
    "tree", "changes", "published", "guided", "exact", "filters", "memory", "ingest", "restart", "mixed",
)  # fmt: skip


def parsed():
    """Return the flags."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="write JSON here")
    parser.add_argument(
        "--largest", type=float, default=1e7, help="postings of the largest size (default 1e7)"
    )
    parser.add_argument(
        "--rows", nargs="+", choices=ROWS, default=ROWS, help="which rows (default all)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of all data (default 0)")
    parser.add_argument(
        "--distribution", choices=("published", "uniform"), default="published", help="of keys"
    )
    parser.add_argument(
        "--clock", choices=("cpu", "wall"), default="cpu", help="CPU seconds or wall (default cpu)"
    )
    parser.add_argument(
        "--folder", help="folder on the disk to measure (default the temporary one)"
    )
    return parser.parse_args()


def table(flags, watch):
    """Yield every row asked for."""
    drawn = {"rng_seed": flags.seed, "distribution": flags.distribution}
    sizes = [n for n in (10**4, 10**5, 10**6, 10**7) if n <= flags.largest]
    if "memory" in flags.rows:
        yield from memory.memory_rows(sizes[-1], **drawn)
    if "tree" in flags.rows:
        for n in sizes[-2:]:
            yield from keys.successor_rows(watch, n, **drawn)
    if "changes" in flags.rows:
        yield from keys.change_rows(watch, min(10**6, sizes[-1]), **drawn)
    yield from search_table(flags, watch, sizes, drawn)
    if "ingest" in flags.rows:
        yield from served.ingest_rows(flags.folder)
    if "restart" in flags.rows:
        yield from served.restart_rows(flags.folder, sizes[-1])
    if "mixed" in flags.rows:
        yield from served.mixed_rows(flags.folder)


def search_table(flags, watch, sizes, drawn):
    """Yield the rows that search, one size after another."""
    if not set(flags.rows) & {"published", "guided", "exact", "filters"}:
        return
    bandwidth, words_per_s = memory.bandwidth(watch), memory.head_words_per_s(watch)
    print(
        f"one thread reads {bandwidth / 1e9:.1f} GB/s, compares {words_per_s / 1e9:.2f} G words/s in cache"
    )
    base_ns = 0.0
    for n in sizes:
        bench = searches.Bench(n, **drawn)
        if "published" in flags.rows and n in (10**5, 10**6):
            yield from searches.published_rows(watch, bench)
        if "guided" in flags.rows:
            rows = list(searches.guided_rows(watch, bench, base_ns, bandwidth))
            base_ns = base_ns or rows[0].median_ns
            yield from rows
        if "exact" in flags.rows and n == min(10**6, sizes[-1]):
            yield from searches.exact_rows(watch, bench, words_per_s)
        if "filters" in flags.rows and n == min(10**6, sizes[-1]):
            yield from filters.filter_rows(watch, bench)


def main():
    """Measure, print, write."""
    flags = parsed()
    rows = []
    for measured in table(flags, Stopwatch(flags.clock)):
        rows.append(measured)
        print(f"... {measured.what} N={measured.size:.0e} {measured.who}", flush=True)
    printed(rows)
    if flags.out:
        flags.out.parent.mkdir(parents=True, exist_ok=True)
        settings = {**vars(flags), "out": str(flags.out), "rows": list(flags.rows)}
        report = {
            "machine": machine(),
            "flags": settings,
            "rows": [dataclasses.asdict(r) for r in rows],
        }
        flags.out.write_text(json.dumps(report, indent=1, default=_plain) + "\n")


def _plain(value):
    return value.item() if isinstance(value, np.generic) else str(value)


if __name__ == "__main__":
    main()
