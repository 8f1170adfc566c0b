"""What short trainings of SSLP, RetCCL and WSISum are worth: one table, and JSON with the machine.

    python -m benchmarks.bench_training --data ../shared/data --out training.json
    python -m benchmarks.bench_training --data ../shared/data --rows sslp --steps 300

Runs are kept in --folder and go on there when the command is repeated.
"""

import argparse
import json
import tempfile
from pathlib import Path

import torch

from benchmarks.index.measure import machine
from benchmarks.training.embeddings import backbone_row
from benchmarks.training.summaries import wsisum_rows

ROWS = ("sslp", "retccl", "wsisum")


def parsed():
    """Return the flags."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with slides/ and tiles/")
    parser.add_argument("--out", type=Path, help="write JSON here")
    parser.add_argument("--folder", type=Path, help="runs are kept here (default a temporary one)")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=ROWS)
    parser.add_argument("--steps", type=int, default=500, help="of SSLP and RetCCL (default 500)")
    parser.add_argument("--batch", type=int, default=64, help="patches a step (default 64)")
    parser.add_argument("--width", type=int, default=16, help="of ResNet-18 (default 16)")
    parser.add_argument("--patch-px", type=int, default=128, help="side of a tile (default 128)")
    parser.add_argument("--view-px", type=int, default=64, help="side of a view (default 64)")
    parser.add_argument("--retccl-rate", type=float, default=0.12, help="at 256 patches a step")
    parser.add_argument("--retccl-momentum", type=float, default=0.99, help="of the key encoder")
    parser.add_argument(
        "--colour", type=float, default=0.25, help="change of colours in views, times the usual"
    )
    parser.add_argument("--min-area", type=float, default=0.4, help="least share of a crop")
    parser.add_argument("--evaluate-every", type=int, default=100, help="steps (default 100)")
    parser.add_argument("--summary-passes", type=int, default=100, help="of WSISum (default 100)")
    parser.add_argument("--mosaic-sizes", type=int, nargs="+", default=[3, 8])
    parser.add_argument("--tries", type=int, default=200, help="masks per mosaic (default 200)")
    parser.add_argument("--repeats", type=int, default=3, help="seeds per way of choosing")
    parser.add_argument("--random-repeats", type=int, default=20, help="seeds of random mosaics")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="of torch (default 1)")
    return parser.parse_args()


def table(flags, folder):
    """Yield every row asked for."""
    for kind in ("sslp", "retccl"):
        if kind in flags.rows:
            yield backbone_row(kind, flags, folder)
    if "wsisum" in flags.rows:
        yield from wsisum_rows(flags, folder)


def main():
    """Train, judge, print, write."""
    flags = parsed()
    torch.set_num_threads(flags.threads)
    with tempfile.TemporaryDirectory() as temporary:
        rows = []
        for row in table(flags, flags.folder or Path(temporary)):
            rows.append(row)
            shown = {k: v for k, v in row.items() if k not in ("settings", "per_slide")}
            print("  ".join(f"{name} {value}" for name, value in shown.items()), flush=True)
            if flags.out:
                _write(flags, rows)


def _write(flags, rows):
    flags.out.parent.mkdir(parents=True, exist_ok=True)
    report = {
        "machine": machine(),
        "flags": {**vars(flags), "rows": list(flags.rows)},
        "rows": rows,
    }
    flags.out.write_text(json.dumps(report, indent=1, default=str) + "\n")


if __name__ == "__main__":
    main()
