r"""What short trainings of SSLP, RetCCL and WSISum are worth: one table, and JSON with the machine.

    make bench-training                    # every row, and benchmarks/out/training.json
    python -m benchmarks.bench_training --data ../shared/data --out training.json
    python -m benchmarks.bench_training --data ../shared/data --rows sslp --half tuning --set colour=0.5 \
        --seeds 101 102 --tries benchmarks/training/tries.json

Quality is the figure here, not speed. LC25000 tiles are cut into halves by a hash of their source
(`benchmarks.training.judging`): the second command above is how settings were tried, on the tuning half alone, with
seeds that the table does not use, and every try is kept in ``benchmarks/training/tries.json``, which the report
repeats. The table's rows train each seed's network, judge it on the untouched half beside the
same network untrained, and give the paired gain with its 95 % bootstrap interval over sources.

Runs are kept in --folder and go on there when the command is repeated.
"""

import argparse
import json
import tempfile
from pathlib import Path

import torch

from benchmarks.index.measure import machine
from benchmarks.training.embeddings import backbone_row
from benchmarks.training.judging import HALVES
from benchmarks.training.summaries import wsisum_rows

ROWS = ("sslp", "retccl", "wsisum")

TRIES = Path(__file__).parent / "training" / "tries.json"
"""Every try on the tuning half."""


def parsed():
    """Return the flags."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with slides/ and tiles/")
    parser.add_argument("--out", type=Path, help="write JSON here")
    parser.add_argument("--folder", type=Path, help="runs are kept here (default a temporary one)")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=ROWS)
    parser.add_argument("--half", choices=HALVES, default="untouched", help="of the lc25000 tiles")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="of networks")
    parser.add_argument(
        "--set",
        nargs="+",
        default=[],
        metavar="NAME=VALUE",
        help="settings of SSLP or RetCCL, or of their recipe, other than the chosen ones",
    )
    parser.add_argument("--tries", type=Path, help="add the rows to this file (tuning half only)")
    parser.add_argument("--summary-passes", type=int, default=100, help="of WSISum (default 100)")
    parser.add_argument("--mosaic-sizes", type=int, nargs="+", default=[3, 8])
    parser.add_argument("--repeats", type=int, default=3, help="seeds of summaries (default 3)")
    parser.add_argument("--mosaic-repeats", type=int, default=5, help="seeds per way of choosing")
    parser.add_argument("--random-repeats", type=int, default=50, help="seeds of random mosaics")
    parser.add_argument("--seed", type=int, default=0, help="of WSISum")
    parser.add_argument("--threads", type=int, default=1, help="of torch (default 1)")
    flags = parser.parse_args()
    if flags.tries and flags.half != "tuning":
        parser.error("tries are made on the tuning half: give --half tuning with --tries")
    flags.set = dict(_setting(parser, text) for text in flags.set)
    return flags


def _setting(parser, text):
    name, equals, value = text.partition("=")
    if not equals:
        parser.error(f"a setting is NAME=VALUE; got {text!r}")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


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
            for line in lines(row):
                print(line, flush=True)
            if flags.out:
                _write(flags, rows)
    if flags.tries:
        kept = json.loads(flags.tries.read_text()) if flags.tries.exists() else []
        kept += [_try(row, flags) for row in rows]
        flags.tries.write_text(json.dumps(kept, indent=1) + "\n")


def _try(row, flags):
    """Return what is kept of a row of the tuning half."""
    seeds = {
        side: {name: found[name]["seeds"] for name in ("untrained", "trained")}
        for side, found in row["accuracy"].items()
        if "untrained" not in side
    }
    return {
        "what": row["what"],
        "judged_on": f"the tuning half, {row['tiles']} tiles",
        "set": flags.set,
        "seeds": row["seeds"],
        "steps": row["steps"],
        "accuracy": seeds,
        "last_loss": [last for _, last in row["losses"]],
        "commit": machine()["commit"],
    }


def lines(row):
    """Yield a row's lines of the printed table."""
    if "accuracy" not in row:
        shown = {k: v for k, v in row.items() if k not in ("settings", "per_slide")}
        yield "  ".join(f"{name} {value}" for name, value in shown.items())
        return
    yield (
        f"{row['what']}: {row['steps']} steps, {row['tiles']} lc25000 tiles of the {row['half']}"
        f" half, seeds {row['seeds']}"
    )
    for side, found in row["accuracy"].items():
        yield "  ".join(
            [f"  at {side}:"]
            + [
                f"{name} {value['mean']:.3f} {value.get('seeds') or value['interval_95']}"
                for name, value in found.items()
            ]
        )


def _write(flags, rows):
    flags.out.parent.mkdir(parents=True, exist_ok=True)
    report = {
        "machine": machine(),
        "flags": {**vars(flags), "rows": list(flags.rows)},
        "rows": rows,
        "tries_on_the_tuning_half": json.loads(TRIES.read_text()) if TRIES.exists() else [],
    }
    flags.out.write_text(json.dumps(report, indent=1, default=str) + "\n")


if __name__ == "__main__":
    main()
