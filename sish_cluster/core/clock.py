"""Time as a value: deadlines and cancellation, with a clock a test can move.

A deadline is an absolute time of a monotonic clock; ``timeout_s`` is relative.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Protocol

from sish_cluster.core.errors import Cancelled, DeadlineExceeded


class Clock(Protocol):
    """A source of monotonic time."""

    def now_s(self) -> float:
        """Return seconds since an arbitrary start; never goes backwards."""


class SystemClock:
    """The machine's monotonic clock."""

    def now_s(self) -> float:
        """Return ``time.monotonic()``."""
        return time.monotonic()


SYSTEM_CLOCK = SystemClock()
"""The clock everything uses unless a test passes its own."""


@dataclasses.dataclass(frozen=True, slots=True)
class Deadline:
    """A moment by which an answer is wanted.

    Examples
    --------
    >>> Deadline.after(10.0).remaining_s() > 9.0
    True
    """

    at_s: float
    clock: Clock = SYSTEM_CLOCK

    @classmethod
    def after(cls, timeout_s: float, clock: Clock = SYSTEM_CLOCK) -> Deadline:
        """Return the deadline ``timeout_s`` seconds from now."""
        return cls(clock.now_s() + timeout_s, clock)

    def remaining_s(self) -> float:
        """Return the seconds left; negative when past."""
        return self.at_s - self.clock.now_s()


class Cancellation:
    """Asked between blocks of work whether to go on.

    Parameters
    ----------
    deadline
        Raise `DeadlineExceeded` after it; None for no deadline.
    is_cancelled
        Returns True once the caller went away.
    """

    def __init__(
        self,
        deadline: Deadline | None = None,
        is_cancelled: Callable[[], bool] = lambda: False,
    ) -> None:
        self._deadline = deadline
        self._is_cancelled = is_cancelled

    def check(self) -> None:
        """Return quietly, or raise `Cancelled` or `DeadlineExceeded`."""
        if self._is_cancelled():
            raise Cancelled("the caller cancelled the call; the work was stopped")
        if self._deadline is not None and self._deadline.remaining_s() <= 0:
            raise DeadlineExceeded(
                "the deadline passed before the answer was ready: allow more time (timeout_s),"
                " or ask for less (mode GUIDED, fewer patches)"
            )


NEVER_CANCELLED = Cancellation()
"""A cancellation that never fires."""
