"""Lending: pages that readers were lent may not move; who moves them waits until nobody reads.

LMDB maps its file elsewhere when the store grows or is opened again, whatever readers of this process
still hold of the old map.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator


class Lending:
    """Counts who reads lent pages.

    Examples
    --------
    >>> lending = Lending()
    >>> with lending.reading(), lending.reading():
    ...     pass
    >>> with lending.moving():
    ...     pass
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._n_readers = 0

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Keep the pages where they are; any number may read."""
        with self._changed:
            self._n_readers += 1
        try:
            yield
        finally:
            with self._changed:
                self._n_readers -= 1
                self._changed.notify_all()

    @contextlib.contextmanager
    def moving(self) -> Iterator[None]:
        """Wait until nobody reads, and keep readers out."""
        with self._changed:
            self._changed.wait_for(lambda: self._n_readers == 0)
            yield
