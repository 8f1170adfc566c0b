"""Compaction in the background: merges an index's segments while inserts and searches go on."""

from __future__ import annotations

import logging
import queue
import threading

from sish_cluster.shard.held import HeldCollection

_LOG = logging.getLogger(__name__)


class Compactor:
    """A thread that compacts the collections it is told of, one at a time.

    Parameters
    ----------
    name
        The shard's, for the thread's name.
    """

    def __init__(self, name: str) -> None:
        self._due: queue.SimpleQueue[HeldCollection | None] = queue.SimpleQueue()
        self._noted: set[int] = set()
        self._thread = threading.Thread(target=self._run, name=f"compactor-{name}", daemon=True)
        self._thread.start()

    def note(self, held: HeldCollection) -> None:
        """Have a collection compacted soon if its index asks for it; called by the writer only."""
        if held.number not in self._noted and held.index.needs_compaction():
            self._noted.add(held.number)
            self._due.put(held)

    def close(self) -> None:
        """End the thread after what it is doing; what was noted is not lost, only not compacted."""
        self._due.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (held := self._due.get()) is not None:
            self._noted.discard(held.number)
            try:
                held.compact()
            except Exception:
                # The index is as it was: searches stay right and only get slower.
                _LOG.exception("compacting collection %r failed", held.collection.name)
