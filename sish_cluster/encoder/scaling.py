"""How many encoder actors there should be, by how long patches wait for one.

One more while patches have waited without a break, one fewer while an actor has idled without a break:
never two at once, and slower down than up, so that the number does not swing.
"""

from __future__ import annotations

import dataclasses

from sish_cluster.core.clock import SYSTEM_CLOCK, Clock
from sish_cluster.core.errors import BadRequest


@dataclasses.dataclass(frozen=True, slots=True)
class ScalingSettings:
    """Between what bounds the number of actors moves, and how fast."""

    min_actors: int = 1
    """Actors there always are."""
    max_actors: int = 1
    """Actors there are at most."""
    grow_after_s: float = 5.0
    """Seconds patches wait without a break until an actor is added: longer than a batch takes."""
    shrink_after_s: float = 60.0
    """Seconds an actor idles without a break until one is ended: longer than reading a slide takes."""

    def __post_init__(self) -> None:
        if not 1 <= self.min_actors <= self.max_actors:
            raise BadRequest(
                "actors range from at least 1 up to a number that is not smaller; asked for"
                f" {self.min_actors} to {self.max_actors}",
                field="actors",
            )


class Scaler:
    """Tells how many actors there should be; asked again and again with what is to be seen."""

    def __init__(self, settings: ScalingSettings, clock: Clock = SYSTEM_CLOCK) -> None:
        self._settings = settings
        self._clock = clock
        self._waits_since_s: float | None = None
        self._idles_since_s: float | None = None

    def wanted(self, *, n_actors: int, n_busy: int, n_waiting: int) -> int:
        """Return how many actors there should be.

        Parameters
        ----------
        n_actors, n_busy
            Actors there are, and those at work.
        n_waiting
            Batches that wait for an actor.
        """
        now_s = self._clock.now_s()
        self._waits_since_s = _since(self._waits_since_s, now_s, is_so=n_waiting > 0)
        self._idles_since_s = _since(self._idles_since_s, now_s, is_so=n_busy < n_actors)
        wanted = n_actors
        if _has_lasted(self._waits_since_s, now_s, self._settings.grow_after_s):
            wanted, self._waits_since_s = n_actors + 1, None
        elif _has_lasted(self._idles_since_s, now_s, self._settings.shrink_after_s):
            wanted, self._idles_since_s = n_actors - 1, None
        return min(max(wanted, self._settings.min_actors), self._settings.max_actors)


def _since(since_s: float | None, now_s: float, *, is_so: bool) -> float | None:
    if not is_so:
        return None
    return now_s if since_s is None else since_s


def _has_lasted(since_s: float | None, now_s: float, long_s: float) -> bool:
    return since_s is not None and now_s - since_s >= long_s
