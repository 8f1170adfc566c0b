"""How fast this cluster scans, learned from the exact searches it has run.

An exact search compares every eligible posting's code with every query patch's: its work is their
product in bytes, and that is what a speed is counted in, so that short and long codes teach one another.
Only searches long enough to be more scan than call teach anything; what was learned is forgotten after a
while, so that one slow hour does not decide the next.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections import deque

from sish_cluster.core.clock import SYSTEM_CLOCK, Clock

LEAST_TAUGHT_S = 0.02
"""Seconds below which a search teaches nothing: its calls and merge are most of it."""

MEMORY_S = 600.0
"""Seconds a measurement counts: long enough for an evening's evaluation, short enough that a machine
that was busy for a while gets exact searches again."""

MEMORY_SEARCHES = 9
"""Most measurements kept; their median is the speed, so that up to four stalled searches change nothing and
five slow ones do."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Measured:
    at_s: float
    bytes_per_s: float


class ScanSpeed:
    """A rolling estimate of scan speed.

    Parameters
    ----------
    assumed_bytes_per_s
        What counts until something was measured.
    clock
        For forgetting.

    Examples
    --------
    >>> speed = ScanSpeed(1e9)
    >>> speed.learn(4_000_000_000, elapsed_s=2.0)
    >>> speed.bytes_per_s
    2000000000.0
    """

    def __init__(self, assumed_bytes_per_s: float, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._assumed = assumed_bytes_per_s
        self._clock = clock
        self._measured: deque[_Measured] = deque(maxlen=MEMORY_SEARCHES)

    def learn(self, scanned_bytes: float, *, elapsed_s: float) -> None:
        """Take one exact search's work and wall time; too short a one teaches nothing."""
        if elapsed_s >= LEAST_TAUGHT_S and scanned_bytes > 0:
            self._measured.append(_Measured(self._clock.now_s(), scanned_bytes / elapsed_s))

    @property
    def bytes_per_s(self) -> float:
        """Bytes of codes compared per second."""
        oldest_s = self._clock.now_s() - MEMORY_S
        while self._measured and self._measured[0].at_s < oldest_s:
            self._measured.popleft()
        if not self._measured:
            return self._assumed
        return statistics.median(measured.bytes_per_s for measured in self._measured)
