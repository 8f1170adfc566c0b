"""Processes that keep the processor busy and touch nothing: what any neighbour does to a latency.

Run as a program it works a share of every two milliseconds until its input ends.
"""

import contextlib
import subprocess
import sys
import threading
import time

PERIOD_S = 0.002
"""Seconds of work and rest: as often as a shard commits."""


def work(share):
    """Work ``share`` of the time until standard input ends."""
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    while not ended.is_set():
        until_s = time.perf_counter() + share * PERIOD_S
        while time.perf_counter() < until_s:
            pass
        time.sleep(max(0.0, (1.0 - share) * PERIOD_S))


@contextlib.contextmanager
def busy_processes(cores, n_processes):
    """Keep ``cores`` cores (a fraction, too) busy from ``n_processes`` processes."""
    share = min(1.0, cores / n_processes)
    call = [sys.executable, "-m", "benchmarks.index.busy", str(share)]
    processes = [subprocess.Popen(call, stdin=subprocess.PIPE) for _ in range(n_processes)]
    try:
        time.sleep(0.5)
        yield
    finally:
        for process in processes:
            process.communicate()


if __name__ == "__main__":
    work(float(sys.argv[1]))
