"""What a trained key network is worth: recall of GUIDED against EXACT at equal coverage.

    python -m benchmarks.bench_keys --tiles ../shared/data/tiles --out keys.json
    python -m benchmarks.bench_keys --tiles ../shared/data/tiles --every 4 --networks random trained
    python -m benchmarks.bench_keys --tiles ../shared/data/tiles --groups 'lung_*5' 'lung-squamous*'

Each tile asks for the tiles of other groups. A key that says nothing finds as much as it looks at:
recall equals coverage, ratio 1. The networks share the codes, the index and the budgets.
"""

import argparse
import fnmatch
import json
from pathlib import Path

import numpy as np

from benchmarks.index.measure import machine
from benchmarks.keying.recall import LeaveGroupOut, recall_at
from benchmarks.keying.tiles import codes_by_texture, keys_by, read_tiles
from sish_cluster.core.key import COARSE_UNIT

NETWORKS = ("random", "seeded", "trained")

RECALLS = ("recall_within", "recall_nearest")


def parsed():
    """Return the flags."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiles", type=Path, required=True, help="folder with labels.csv")
    parser.add_argument("--weights", type=Path, help="trained network (default the one shipped)")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=NETWORKS)
    parser.add_argument("--fit", choices=("resize", "reflect"), default="resize")
    parser.add_argument("--every", type=int, default=1, help="use each n-th tile (default all)")
    parser.add_argument(
        "--steps", type=int, nargs="+", default=[2, 4, 8, 16, 32, 64, 128, 256, 512]
    )
    parser.add_argument("--seeds-per-side", type=int, default=1, help="T (default 1; published 10)")
    parser.add_argument("--seed-spacing", type=int, default=50, help="C, coarse units")
    parser.add_argument(
        "--coverages", type=float, nargs="+", default=[0.01, 0.02, 0.05, 0.1, 0.2, 0.4]
    )
    parser.add_argument("--max-distance", type=int, default=150, help="bits of 1024 (default 150)")
    parser.add_argument("--nearest", type=int, default=10, help="nearest tiles (default 10)")
    parser.add_argument("--queries", choices=("all", "atlas", "lc25000"), default="all")
    parser.add_argument(
        "--groups",
        nargs="+",
        metavar="PATTERN",
        default=["*"],
        help="groups whose tiles ask, such as those held out of a training (default all)",
    )
    parser.add_argument(
        "--codes-at",
        choices=("resize", "own"),
        default="resize",
        help="size the texture network sees: the tile enlarged to a patch, as indexed, or its own",
    )
    parser.add_argument("--cache", type=Path, help="keep codes and keys here")
    parser.add_argument("--out", type=Path, help="write JSON here")
    return parser.parse_args()


def measured(flags, name, tiles, codes):
    """Return everything measured of one network's keys."""
    keys = keys_by(name, tiles, flags.cache, fit=flags.fit, weights=flags.weights)
    asks = (tiles.sets == flags.queries) | (flags.queries == "all")
    asks &= [any(fnmatch.fnmatchcase(g, p) for p in flags.groups) for g in tiles.groups]
    queries = np.flatnonzero(asks)
    bench = LeaveGroupOut(keys, codes, tiles.groups, queries)
    exact = bench.exact()
    budget = {
        "seeds_per_side": flags.seeds_per_side,
        "seed_spacing": flags.seed_spacing,
        "max_distance": flags.max_distance,
        "nearest": flags.nearest,
    }
    rows = [bench.row(exact, max_steps=steps, **budget) for steps in flags.steps]
    coarse = keys // COARSE_UNIT
    return {
        "network": name,
        "queries": len(queries),
        "distinct_keys": len(np.unique(keys)),
        "distinct_coarse": len(np.unique(coarse)),
        "coarse_spread": float(coarse.astype(float).std()),
        "budgets": rows,
        "at_coverage": {
            recall: {str(c): round(recall_at(rows, recall, c), 4) for c in flags.coverages}
            for recall in RECALLS
        },
    }


def printed(flags, found):
    """Print one line for each recall and coverage: a network a column, ratios to the first."""
    names = [result["network"] for result in found]
    for recall in RECALLS:
        print(
            f"\n{recall}: " + ", ".join(f"{r['network']} {r['distinct_keys']} keys" for r in found)
        )
        print(f"{'coverage':>9} " + " ".join(f"{name:>16}" for name in names))
        for coverage in map(str, flags.coverages):
            values = [result["at_coverage"][recall][coverage] for result in found]
            cells = [f"{v:8.3f} ({v / max(values[0], 1e-9):4.2f}x)" for v in values]
            print(f"{float(coverage):9.0%} " + " ".join(f"{cell:>16}" for cell in cells))


def main():
    """Measure, print, write."""
    flags = parsed()
    tiles = read_tiles(flags.tiles, every=flags.every)
    codes = codes_by_texture(tiles, flags.cache, fit=flags.codes_at)
    found = [measured(flags, name, tiles, codes) for name in flags.networks]
    printed(flags, found)
    if flags.out:
        flags.out.parent.mkdir(parents=True, exist_ok=True)
        report = {
            "machine": machine(),
            "flags": vars(flags),
            "tiles": len(tiles),
            "networks": found,
        }
        flags.out.write_text(json.dumps(report, indent=1, default=str) + "\n", "utf-8")


if __name__ == "__main__":
    main()
