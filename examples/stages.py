"""Time and memory of a program's stages: this process and everything it started, sampled."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
from collections.abc import Iterator

import psutil
from rich.table import Table

from sish_cluster.cli.output import bytes_text

SAMPLE_S = 0.25
"""Seconds between samples: peaks of encoding last seconds, and a sample of 20 processes costs 5 ms."""


@dataclasses.dataclass
class Stage:
    """One stage: seconds it took, and its peak of resident memory over all processes."""

    name: str
    seconds: float = 0.0
    peak_bytes: int = 0


class Stages:
    """Measures stages one after the other; a context manager that samples until it ends."""

    def __init__(self) -> None:
        self.stages: list[Stage] = []
        self._current: Stage | None = None
        self._ended = threading.Event()
        self._sampler = threading.Thread(target=self._sample, name="memory", daemon=True)

    def __enter__(self) -> Stages:
        self._sampler.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._ended.set()
        self._sampler.join()

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[Stage]:
        """Measure what happens inside."""
        self._current = stage = Stage(name, peak_bytes=resident_bytes())
        self.stages.append(stage)
        began_s = time.monotonic()
        try:
            yield stage
        finally:
            stage.seconds = time.monotonic() - began_s
            stage.peak_bytes = max(stage.peak_bytes, resident_bytes())
            self._current = None

    def table(self) -> Table:
        """Return the stages with their time and peak memory."""
        table = Table(title="time and memory", title_justify="left", header_style="bold")
        table.add_column("stage")
        table.add_column("time", justify="right")
        table.add_column("peak memory, all processes", justify="right")
        for stage in self.stages:
            table.add_row(stage.name, f"{stage.seconds:.1f} s", bytes_text(stage.peak_bytes))
        total_s = sum(stage.seconds for stage in self.stages)
        peak = max((stage.peak_bytes for stage in self.stages), default=0)
        table.add_section()
        table.add_row("all", f"{total_s:.1f} s", bytes_text(peak))
        return table

    def _sample(self) -> None:
        while not self._ended.wait(SAMPLE_S):
            stage = self._current
            if stage is not None:
                stage.peak_bytes = max(stage.peak_bytes, resident_bytes())


def resident_bytes() -> int:
    """Return the resident memory of this process and all it started; shared pages count each time."""
    own = psutil.Process()
    total = 0
    for process in [own, *own.children(recursive=True)]:
        with contextlib.suppress(psutil.Error):
            total += process.memory_info().rss
    return total
