"""The losses as a picture, rewritten while a training runs.

Drawn without a display and without pyplot's global state, so that several trainings in one process, or
a test, leave nothing behind.

Source
------
Ours.
"""

from __future__ import annotations

import math
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from sish_cluster.encoder.training.loop_log import TrainingLog

PANEL_INCHES = (4.2, 2.6)
"""Width and height of one value's panel, inches: readable three abreast on a laptop."""

COLUMNS = 3
"""Panels a row."""

DOTS_PER_INCH = 100
"""Pixels per inch: the picture is for a screen."""


def write_loss_plot(path: Path, log: TrainingLog, *, title: str) -> None:
    """Write one panel for each value of the log as a PNG, replacing the file at once.

    Parameters
    ----------
    path
        The PNG.
    log
        At least one row.
    title
        Heading.
    """
    names = log.names()
    rows = math.ceil(len(names) / COLUMNS)
    columns = min(COLUMNS, len(names))
    size = (PANEL_INCHES[0] * columns, PANEL_INCHES[1] * rows + 0.4)
    figure = Figure(figsize=size, dpi=DOTS_PER_INCH, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    figure.suptitle(title)
    for number, name in enumerate(names):
        axes = figure.add_subplot(rows, columns, number + 1)
        steps, values = zip(*log.curve(name), strict=True)
        axes.plot(steps, values, marker="." if len(steps) < 20 else "", linewidth=1.2)
        axes.set_title(name.replace("_", " "), fontsize=9)
        axes.set_xlabel("step", fontsize=8)
        axes.tick_params(labelsize=7)
        axes.grid(alpha=0.3)
    new = path.with_suffix(".new.png")
    canvas.print_png(str(new))  # type: ignore[no-untyped-call]
    new.replace(path)
