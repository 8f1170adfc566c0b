"""Rows of the table, how their times are taken, and the machine they were taken on."""

import dataclasses
import os
import platform
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table.

    Parameters
    ----------
    what, size, who
        What was done, on how many postings, by whom.
    median_ns, p99_ns
        Per ``unit``.
    quality
        Equality with a peer, recall, or memory: what the speed was paid with.
    ratio, goal
        Measured against the row it is compared with, and what it has to reach; "" for a peer.
    limit
        How far the row is from what the machine can do, where that is known.
    """

    what: str
    size: int
    who: str
    median_ns: float
    p99_ns: float
    unit: str
    quality: str = ""
    ratio: float | None = None
    goal: str = ""
    limit: str = ""


class Stopwatch:
    """Times calls by CPU seconds of this process, or by the wall; most rows use one thread."""

    def __init__(self, clock: str) -> None:
        self._now = {"cpu": time.process_time_ns, "wall": time.perf_counter_ns}[clock]

    def times(self, run: Callable[[], object], *, repeats: int = 7) -> np.ndarray:
        """Return the nanoseconds of some runs, after one that is not counted."""
        run()
        spent = np.empty(repeats)
        for i in range(repeats):
            start = self._now()
            run()
            spent[i] = self._now() - start
        return spent

    def once(self, run: Callable[[], object]) -> float:
        """Return the nanoseconds of a single run."""
        start = self._now()
        run()
        return float(self._now() - start)


def row(what, size, who, spent, per, unit, **more):
    """Return the row of some times (ns) that each did ``per`` units of work."""
    median, p99 = np.percentile(np.asarray(spent) / per, [50, 99])
    return Row(what, size, who, float(median), float(p99), unit, **more)


def machine():
    """Return what ran this: processor, cores, system, versions, commit."""
    import numba

    cpu = next(
        (line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if "model name" in line), ""
    )
    return {
        "processor": cpu or platform.processor(),
        "cores": os.cpu_count(),
        "load_1min": os.getloadavg()[0],
        "system": platform.platform(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "numba": numba.__version__,
        "commit": _commit(),
    }


def _lines(path):
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def _commit():
    root = Path(__file__).resolve().parents[2]
    asked = ["git", "-C", str(root), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def shown(rows):
    """Return the table's cells, the heads first."""
    cells = [("what", "N", "who", "median", "p99", "unit", "quality", "ratio", "goal", "limit")]
    for r in rows:
        ratio = "" if r.ratio is None else f"{r.ratio:.2f}"
        times = (_short(r.median_ns), _short(r.p99_ns))
        cells.append(
            (r.what, f"{r.size:.0e}", r.who, *times, r.unit, r.quality, ratio, r.goal, r.limit)
        )
    return cells


def printed(rows):
    """Print the table."""
    cells = shown(rows)
    widths = [max(len(str(line[i])) for line in cells) for i in range(len(cells[0]))]
    for line in cells:
        print(
            "  ".join(
                str(cell).ljust(width) for cell, width in zip(line, widths, strict=True)
            ).rstrip()
        )


def _short(ns):
    for limit, scale, unit in ((1e3, 1, "ns"), (1e6, 1e3, "us"), (1e9, 1e6, "ms")):
        if ns < limit:
            return f"{ns / scale:.3g} {unit}"
    return f"{ns / 1e9:.3g} s"
