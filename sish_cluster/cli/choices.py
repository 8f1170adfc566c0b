"""Options that take several values at once: ``--mode guided,exact``, ``-k 1,3,5``, ``exact:Acc@1=0.92``."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

Value = TypeVar("Value")


class Several(click.ParamType):  # type: ignore[type-arg]
    """Values separated by commas, each read by ``read`` (which raises ValueError for what it cannot).

    Parameters
    ----------
    read
        Reads one value.
    known
        The values there are, for the message; empty where any may be given.
    """

    name = "list"

    def __init__(self, read: Callable[[str], Any], known: Sequence[str] = ()) -> None:
        self._read, self._known = read, known

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[Any, ...]:
        """Return the values in the order given, each once."""
        if not isinstance(value, str):
            return tuple(value)
        read = []
        for part in value.split(","):
            try:
                read.append(self._read(part.strip()))
            except ValueError:
                offered = f": choose from {', '.join(self._known)}" if self._known else ""
                self.fail(f"{part.strip()!r} is not one of the values{offered}", param, ctx)
        return tuple(dict.fromkeys(read))


@dataclasses.dataclass(frozen=True, slots=True)
class AtLeast:
    """A figure that is asked of the runs of one mode.

    Parameters
    ----------
    mode
        Whose runs.
    measure
        Name as in the tables, such as ``Acc@1``; the mean over queries counts.
    least
        Smallest value that holds.
    """

    mode: str
    measure: str
    least: float

    def __str__(self) -> str:
        return f"{self.mode}: {self.measure} at least {self.least:g}"


class AtLeastType(click.ParamType):  # type: ignore[type-arg]
    """Reads ``MODE:MEASURE=VALUE``."""

    name = "mode:measure=value"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> AtLeast:
        """Return what is asked."""
        if isinstance(value, AtLeast):
            return value
        mode, colon, rest = str(value).partition(":")
        measure, equals, least = rest.partition("=")
        try:
            if not (mode and colon and measure and equals):
                raise ValueError
            return AtLeast(mode.strip(), measure.strip(), float(least))
        except ValueError:
            self.fail(f"{value!r} is not of the form exact:Acc@1=0.92", param, ctx)
