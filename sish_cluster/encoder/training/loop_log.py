"""What a training says of itself: mean losses of every interval, in memory and as JSON Lines.

The log is part of the checkpoint, and a resumed run writes the file again from it: rows that a killed
run had written after its last checkpoint would otherwise stand there twice.

Source
------
Ours.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

import torch

Row = dict[str, float]
"""One line of the log: ``step`` and the named values; losses are means since the row before."""

CLOCK = "elapsed_s"
"""The one value of a row that differs from run to run: seconds of training so far."""


@dataclasses.dataclass(slots=True)
class TrainingLog:
    """The rows of a training, oldest first."""

    rows: list[Row] = dataclasses.field(default_factory=list)

    def curve(self, name: str = "loss") -> list[tuple[int, float]]:
        """Return (step, value) of every row that has the value.

        Examples
        --------
        >>> TrainingLog([{"step": 10, "loss": 0.5}, {"step": 20, "accuracy": 1.0}]).curve()
        [(10, 0.5)]
        """
        return [(int(row["step"]), row[name]) for row in self.rows if name in row]

    def names(self) -> list[str]:
        """Return the names of all values, in the order they first appear."""
        seen = dict.fromkeys(name for row in self.rows for name in row)
        return [name for name in seen if name not in ("step", CLOCK)]

    def latest(self, name: str) -> float | None:
        """Return the newest value of a name, or None."""
        return next((row[name] for row in reversed(self.rows) if name in row), None)

    def write(self, path: Path) -> None:
        """Write all rows as JSON Lines, replacing the file at once."""
        new = path.with_suffix(path.suffix + ".new")
        new.write_text("".join(json.dumps(row) + "\n" for row in self.rows), "utf-8")
        new.replace(path)

    def append(self, row: Row, path: Path | None) -> None:
        """Add a row, and write it behind the others where there is a file."""
        self.rows.append(row)
        if path is None:
            return
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


class Means:
    """Running sums of named losses since the last row.

    Kept as tensors where the losses are: reading a number from a GPU would wait for it at every step.
    """

    def __init__(self) -> None:
        self._sums: dict[str, torch.Tensor] = {}
        self._counts: dict[str, int] = {}

    def add(self, losses: Mapping[str, torch.Tensor]) -> None:
        """Add the losses of one step."""
        for name, loss in losses.items():
            value = loss.detach().double()
            self._sums[name] = self._sums[name] + value if name in self._sums else value
            self._counts[name] = self._counts.get(name, 0) + 1

    def taken(self) -> Row:
        """Return the means since the last call, and begin again."""
        means = {name: float(total) / self._counts[name] for name, total in self._sums.items()}
        self._sums, self._counts = {}, {}
        return means

    def state_dict(self) -> dict[str, dict[str, float]]:
        """Return the sums and counts as plain values."""
        sums = {name: float(total) for name, total in self._sums.items()}
        return {"sums": sums, "counts": dict(self._counts)}

    def load_state_dict(self, state: Mapping[str, Mapping[str, float]]) -> None:
        """Go on from the values of `state_dict`."""
        self._sums = {n: torch.tensor(v, dtype=torch.float64) for n, v in state["sums"].items()}
        self._counts = {name: int(count) for name, count in state["counts"].items()}
