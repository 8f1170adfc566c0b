"""How fast slides become keys and codes, beside the published way, and how much memory that takes.

    python -m benchmarks.bench_encode --slides DIR --out benchmarks/out/encode.json

Rows: patches a second of the default encoder, and of the same in float32, against the same networks run the
published way (one patch at a time, two reads at level 0, float32, torch's defaults), and against the published
input of 1024 px, with the bits and keys that are equal; the mosaic of a slide against reading every patch at
level 0; each network's share of the device's peak; how long actors wait for readers; how far engines and
precisions agree on real tiles (``--tiles``); peak memory of ``sish index`` over many slides. Each side of a
ratio is a process of its own, and they take turns.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.encoding import agreement, growth, utilisation
from benchmarks.index.measure import machine
from sish_cluster.core.errors import BadSlide
from sish_cluster.encoder.catalogue import find_slides
from sish_cluster.encoder.slide import open_slide

WAYS = ("default", "full", "published", "published-1024")
"""The default encoder; the same in float32; the published way with the same input; with the published one."""

WARM = {"default": 2, "full": 2, "published": 1, "published-1024": 1}
"""Patches encoded before the clock starts: OpenVINO compiles, torch chooses its kernels."""

SMALL = 3
"""Slides of the row of waiting actors: the first of the folder."""


def main():
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--slides", type=Path, required=True, help="folder of slides")
    parser.add_argument(
        "--slide", default="pancreas-adenosquamous", help="start of the name of one"
    )
    parser.add_argument("--patches", type=int, default=24, help="patches encoded by each way")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument(
        "--many", type=int, default=100, help="slides of the memory row; 0 leaves it out"
    )
    parser.add_argument("--tiles", type=Path, help="folder of tiles for the rows of agreement")
    parser.add_argument("--each", type=int, default=200, help="tiles of each kind compared")
    parser.add_argument("--device", default="cpu", help="of the rows of utilisation")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/out/encode.json"))
    parser.add_argument("--way", choices=[*WAYS, "mosaic", "level-0"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    slide = slide_of(arguments.slides, arguments.slide)
    if arguments.way:
        print(json.dumps(one_way(arguments.way, slide, arguments.patches)))
        return
    rows = [*encoding_rows(arguments), *reading_rows(arguments)]
    rows += utilisation.utilisation_rows(arguments.device)
    rows.append(utilisation.waiting_row(slides_of(arguments.slides)[:SMALL], arguments.device))
    if arguments.tiles:
        slides = slides_of(arguments.slides)
        rows += agreement.agreement_rows(arguments.tiles, slides, arguments.each)
    if arguments.many:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(growth.memory_row(Path(folder), arguments.many))
    for row in rows:
        print("  ".join(f"{name}: {value}" for name, value in row.items()))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=2))


def slides_of(folder):
    """Return the slides of a folder that state their own mpp."""
    return [path for path in find_slides(folder) if states_mpp(path)]


def states_mpp(path):
    """Whether a slide opens without an mpp of the caller's."""
    try:
        with open_slide(path):
            return True
    except BadSlide:
        return False


def slide_of(folder, start):
    """Return the slide whose name starts so."""
    found = sorted(
        path for path in folder.rglob("*") if path.name.startswith(start) and path.is_file()
    )
    if not found:
        raise SystemExit(f"{folder}: no slide whose name starts with {start!r}; give --slide")
    return found[0]


def turns(arguments, ways):
    """Return each way's answers, the ways taking turns in processes of their own."""
    answers = {way: [] for way in ways}
    for _ in range(arguments.turns):
        for way in ways:
            command = [sys.executable, "-m", "benchmarks.bench_encode", "--way", way]
            command += ["--slides", str(arguments.slides), "--slide", arguments.slide]
            command += ["--patches", str(arguments.patches)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            answers[way].append(json.loads(done.stdout.strip().splitlines()[-1]))
    return answers


def encoding_rows(arguments):
    """Return patches a second of each way, and how the default compares."""
    answers = turns(arguments, WAYS)
    rate = {way: float(np.median([a["n"] / a["seconds"] for a in answers[way]])) for way in WAYS}
    return [
        {
            "what": "patches a second",
            "way": way,
            "rate": round(rate[way], 3),
            "ratio": round(rate["default"] / rate[way], 2),
            "CPU s a patch": round(float(np.median([a["cpu"] / a["n"] for a in answers[way]])), 3),
            "goal": ">= 4" if way.startswith("published") else "",
            **equal(answers[way][0], answers["published"][0], same_input=way != "published-1024"),
        }
        for way in WAYS
    ]


def equal(ours, theirs, *, same_input):
    """Return the shares of bits and keys that equal those of the published way with the same input."""
    if not same_input:
        return {}
    bits = np.array(ours["codes"]) == np.array(theirs["codes"])
    keys = np.array(ours["keys"]) == np.array(theirs["keys"])
    return {
        "equal code bits": round(float(bits.mean()), 4),
        "equal keys": round(float(keys.mean()), 3),
    }


def reading_rows(arguments):
    """Return the seconds of a mosaic against reading every patch at level 0 one by one."""
    answers = turns(arguments, ("mosaic", "level-0"))
    seconds = {way: float(np.median([a["seconds"] for a in got])) for way, got in answers.items()}
    return [
        {
            "what": "reading, tissue and mosaic",
            "slide": arguments.slide,
            "patches": answers["level-0"][0]["n"],
            "seconds": round(seconds["mosaic"], 2),
            "seconds at level 0": round(seconds["level-0"], 2),
            "ratio": round(seconds["level-0"] / seconds["mosaic"], 2),
            "goal": ">= 5",
        }
    ]


def one_way(way, slide, n_patches):
    """Run one way in this process; return its seconds, and what it made."""
    from benchmarks.encoding import default, published

    if way == "mosaic":
        return default.cut(slide)
    corners, side_px = default.grid_of(slide)
    if way == "level-0":
        return {"n": len(corners), "seconds": published.read_one_by_one(slide, corners, side_px)}
    chosen = corners[np.linspace(0, len(corners) - 1, n_patches).astype(int)]
    encoder = default.encoder_of(way)
    encoded = published.encoded_one_by_one if way.startswith("published") else default.encoded
    encoded(slide, chosen[: WARM[way]], side_px, encoder)
    before_s = time.process_time()
    keys, codes, seconds = encoded(slide, chosen, side_px, encoder)
    answer = {"n": len(chosen), "seconds": seconds, "cpu": time.process_time() - before_s}
    return answer | {"keys": keys.tolist(), "codes": np.unpackbits(codes, axis=1).tolist()}


if __name__ == "__main__":
    main()
