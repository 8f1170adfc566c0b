"""What workers of a training leave for the driver: the steps they took, and what came of it.

Both are files in a folder that all of them see, because the run's folder is one anyway: a terminal that
shows the steps then needs no line to a process that Ray may have started anew.

Source
------
Ours.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import time
from pathlib import Path
from typing import Any

from sish_cluster.core.errors import SishError
from sish_cluster.encoder.training.loop import Reporter, StepReport

STEPS_FILE, OUTCOME_FILE = "steps.jsonl", "outcome.pickle"
"""Steps as worker 0 tells them, and at the end the metrics or what went wrong."""

TOLD_EVERY_S = 0.25
"""Least seconds between two steps that worker 0 tells, rows of the log aside: a bar shows no more."""


class Teller:
    """A reporter that writes steps down: all that end a row, of the others a few a second.

    Parameters
    ----------
    folder
        Where the notes lie.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / STEPS_FILE
        self._told_s = -TOLD_EVERY_S

    def __call__(self, report: StepReport) -> None:
        """Append a step where it is due."""
        now_s = time.monotonic()
        if report.row is None and now_s - self._told_s < TOLD_EVERY_S:
            return
        self._told_s = now_s
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(dataclasses.asdict(report)) + "\n")


class Follower:
    """Reads the steps as they are written, and passes them on.

    Parameters
    ----------
    folder
        Where the notes lie.
    reporter
        Told about every step in them, or None.
    """

    def __init__(self, folder: Path, reporter: Reporter | None) -> None:
        self._path = folder / STEPS_FILE
        self._reporter = reporter
        self._place = 0

    def look(self) -> None:
        """Pass on what was written since the last look; half a line waits for the next."""
        if self._reporter is None or not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._place)
            lines = file.read()
        end = lines.rfind(b"\n") + 1
        self._place += end
        for line in lines[:end].splitlines():
            self._reporter(StepReport(**json.loads(line)))


def has_outcome(folder: Path) -> bool:
    """Return whether a training has ended for good, well or not."""
    return (folder / OUTCOME_FILE).exists()


def write_outcome(folder: Path, outcome: dict[str, object] | SishError) -> None:
    """Leave metrics, or what went wrong, at once and whole."""
    new = folder / f"{OUTCOME_FILE}.{os.getpid()}.new"
    new.write_bytes(pickle.dumps(outcome))
    new.replace(folder / OUTCOME_FILE)


def read_outcome(folder: Path) -> dict[str, object] | None:
    """Return the metrics, raise what went wrong, or return None where neither was left."""
    if not has_outcome(folder):
        return None
    # Written by our own workers, moments ago, in a folder that was made for them.
    found: Any = pickle.loads((folder / OUTCOME_FILE).read_bytes())
    if isinstance(found, SishError):
        raise found
    assert isinstance(found, dict)
    return found
