"""``sish train``: make weights from one's own slides and tiles; each training loads when it is used."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Self

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

if TYPE_CHECKING:
    from sish_cluster.encoder.training.loop import StepReport

TRAININGS: dict[str, tuple[str, str]] = {
    "vqvae": ("sish_cluster.cli.train_vqvae:vqvae", "The key network and its codeword order."),
    "retccl": ("sish_cluster.cli.train_retccl:retccl", "An embedding by clustered contrast."),
    "sslp": ("sish_cluster.cli.train_sslp:sslp", "An embedding by spatial neighbours."),
    "wsisum": ("sish_cluster.cli.train_wsisum:wsisum", "A summary model for mosaics."),
}
"""Name -> (module:attribute, one line of help)."""


class TrainingGroup(click.Group):
    """A group that imports a training only when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the trainings in pipeline order."""
        return list(TRAININGS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a training."""
        if cmd_name not in TRAININGS:
            return None
        module, _, attribute = TRAININGS[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of trainings without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in TRAININGS.items()])


@click.group(cls=TrainingGroup)
def train() -> None:
    """Train networks on your own slides and tiles; an interrupted command goes on when repeated."""


class TrainingBar:
    """A bar over the steps of a training; a context manager. On no terminal, one line a log row.

    Parameters
    ----------
    title
        What is trained.
    shown
        Names of the logged values beside the bar; those a row lacks are left out.
    """

    def __init__(self, title: str, *, shown: tuple[str, ...] = ("loss",)) -> None:
        self._console = Console(file=sys.stderr, highlight=False)
        self._progress = Progress(
            TextColumn("[bold]{task.description}[/]"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("[dim]{task.fields[values]}[/]"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._progress.add_task(title, total=None, values="")
        self._shown = shown

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._progress.stop()

    def say(self, text: str) -> None:
        """Show what is done before the first step."""
        self._progress.update(self._task, values=text)

    def report(self, report: StepReport) -> None:
        """Show a step: the loop's reporter."""
        self._progress.update(self._task, completed=report.step, total=report.n_steps)
        if report.row is None:
            return
        row = report.row
        values = "  ".join(f"{name} {row[name]:.4g}" for name in self._shown if name in row)
        self._progress.update(self._task, values=values)
        if not self._console.is_terminal:
            self._console.print(f"step {report.step}/{report.n_steps}  {values}")
