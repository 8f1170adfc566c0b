"""Trying again: reads a few times, writes until their time is up.

Only `Unavailable` is tried again (the second level of the error tree is the retry policy). A write may
be repeated because a slide's version names its content: the same version twice is one ingest.
"""

from __future__ import annotations

import asyncio
import dataclasses
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from sish_cluster.client.settings import ClientSettings
from sish_cluster.core.clock import Deadline
from sish_cluster.core.errors import Unavailable

Answer = TypeVar("Answer")

UNLIMITED = 1 << 30
"""Attempts of a write: its deadline ends it, not a count."""


@dataclasses.dataclass(frozen=True)
class Retry:
    """Repeats a call that found the cluster unavailable.

    Parameters
    ----------
    settings
        Back-off and its bounds.
    attempts
        Most tries.
    sleep
        Waits some seconds; a test passes its own.
    jitter
        Returns a factor in [0.5, 1] for each wait.
    """

    settings: ClientSettings
    attempts: int
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    jitter: Callable[[], float] = lambda: random.uniform(0.5, 1.0)

    async def answer_of(
        self, call: Callable[[], Awaitable[Answer]], *, deadline: Deadline
    ) -> Answer:
        """Return the call's answer, or raise its last error.

        Raises
        ------
        Unavailable
            If the tries are used up, or the next would start after the deadline.
        """
        for attempt in range(1, self.attempts):
            try:
                return await call()
            except Unavailable as error:
                wait_s = self._wait_s(attempt, error)
                if wait_s >= deadline.remaining_s():
                    raise
            await self.sleep(wait_s)
        return await call()

    def _wait_s(self, attempt: int, error: Unavailable) -> float:
        doubled = self.settings.backoff_s * 2.0 ** min(attempt - 1, 32)
        backoff_s = min(doubled, self.settings.max_backoff_s) * self.jitter()
        return max(backoff_s, error.retry_after_s)
