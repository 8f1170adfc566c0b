"""Peak memory of ``sish index`` over many slides: it must not grow with their number."""

import subprocess
import sys
import time

import numpy as np
import psutil

from sish_cluster.testing.histology import Drawing
from sish_cluster.testing.slides import draw_slide

LOOK_S = 0.5
"""Seconds between two looks at the memory."""

PATTERNS = ("glands", "fibres", "sheets")


def memory_row(folder, n_slides):
    """Draw slides, index them with one actor and two readers under Ray; return what it took."""
    slides = folder / "slides"
    slides.mkdir()
    with (folder / "labels.csv").open("w") as table:
        table.write("slide,patient,site,diagnosis\n")
        for number in range(n_slides):
            name = f"s{number:03d}"
            drawing = Drawing(PATTERNS[number % 3], side_px=2048, mpp=1.0, rng_seed=number)
            draw_slide(slides / f"{name}.tif", drawing)
            table.write(f"{name},p{number},drawn,{PATTERNS[number % 3]}\n")
    command = [sys.executable, "-m", "sish_cluster.cli", "index", str(slides)]
    command += ["--labels", str(folder / "labels.csv"), "--collection", "many"]
    command += ["--home", str(folder / "home"), "--actors", "1", "--readers", "2"]
    began_s = time.perf_counter()
    run = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)
    seen = []
    while run.poll() is None:
        seen.append(together(run.pid))
        time.sleep(LOOK_S)
    halves = [max(part) for part in np.array_split(seen[len(seen) // 5 :], 2)]
    return {
        "what": "peak memory of sish index, 1 actor and 2 readers under Ray",
        "slides": n_slides,
        "seconds": round(time.perf_counter() - began_s, 1),
        "exit code": run.returncode,
        "peak MiB": round(max(seen) / 2**20),
        "peak MiB of an early and a late half": [round(half / 2**20) for half in halves],
        "goal": "flat, < 4096 MiB",
    }


def together(pid):
    """Return the bytes a process and its children hold, shared pages counted once."""
    total = 0
    for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
        try:
            total += process.memory_full_info().pss
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return total
