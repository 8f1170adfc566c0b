"""Progress on a terminal: one bar for all slides, one line for each that is being encoded."""

from __future__ import annotations

import sys
import threading
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

from sish_cluster.local.encoding import SlideFailure, SlideProgress

NAME_COLUMNS = 44
"""Columns of a slide's name in its line: longer names are cut in the middle of the line, not of the bar."""


class SlideBars:
    """Bars for an indexing; a context manager. On no terminal, one line per finished slide.

    Parameters
    ----------
    title
        What is being done.
    total
        Slides in all.
    """

    def __init__(self, title: str, *, total: int) -> None:
        self._console = Console(file=sys.stderr, highlight=False)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("[dim]{task.fields[stage]}[/]"),
            TimeElapsedColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
            transient=total == 1,
        )
        self._all = self._progress.add_task(f"[bold]{title}[/]", total=total, stage="slides")
        self._total = total
        self._n_done = 0
        self._slides: dict[str, TaskID] = {}
        self._guard = threading.Lock()

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._progress.stop()

    def watch(self, progress: SlideProgress) -> None:
        """Show how far a slide is; callable from any thread."""
        with self._guard:
            name = escape(progress.slide_id[:NAME_COLUMNS])
            if progress.slide_id not in self._slides:
                task = self._progress.add_task(f"  {name}", total=None, stage="")
                self._slides[progress.slide_id] = task
            self._progress.update(
                self._slides[progress.slide_id],
                completed=progress.done,
                total=progress.total or None,
                stage=progress.stage,
            )

    def done(self, slide_id: str, failure: SlideFailure | None) -> None:
        """Take a slide's line away and advance the bar of all."""
        with self._guard:
            if slide_id in self._slides:
                self._progress.remove_task(self._slides.pop(slide_id))
            self._progress.advance(self._all)
            self._n_done += 1
        fate = "[green]done[/]" if failure is None else "[red]failed[/]"
        line = f"  {fate} {escape(slide_id)} [dim]({self._n_done}/{self._total})[/]"
        if self._total > 1 or failure is not None:
            self._progress.console.print(line)
