"""One writer per slide at a time, within this router.

Two versions of a slide that are ingested at once would overtake each other between shards; an ingest
and the janitor would disagree about what is stale. Locks exist only while someone wants them.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator


class SlideLocks:
    """Locks by (collection, slide id)."""

    def __init__(self) -> None:
        self._locks: dict[tuple[str, str], asyncio.Lock] = {}
        self._wanted: Counter[tuple[str, str]] = Counter()

    @contextlib.asynccontextmanager
    async def held(self, collection: str, slide_id: str) -> AsyncIterator[None]:
        """Hold the slide's lock, after whoever came first."""
        name = (collection, slide_id)
        lock = self._locks.setdefault(name, asyncio.Lock())
        self._wanted[name] += 1
        try:
            async with lock:
                yield
        finally:
            self._wanted[name] -= 1
            if not self._wanted[name]:
                del self._wanted[name], self._locks[name]

    def __len__(self) -> int:
        return len(self._locks)
