"""An event loop on a thread of its own, for callers that have none."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

Answer = TypeVar("Answer")


class LoopThread:
    """An event loop on a daemon thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="sish", daemon=True)
        self._thread.start()

    def submitted(self, work: Coroutine[Any, Any, Answer]) -> concurrent.futures.Future[Answer]:
        """Return the future of work begun on the loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def result_of(self, work: Coroutine[Any, Any, Answer]) -> Answer:
        """Return what the work returns; cancel it when the wait is interrupted."""
        future = self.submitted(work)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        """Stop the loop and its thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
