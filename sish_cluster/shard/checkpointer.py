"""The checkpointer: writes checkpoints once enough has changed, when changes pause, and at the end.

It works from a view, at a low priority, and syncs often, so that neither changes nor searches wait for
it. What the disk refuses is said once and tried again after as much change again: a shard without a
checkpoint is right all the same and only starts more slowly.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Iterable

from sish_cluster.shard.checkpoint import write_checkpoint
from sish_cluster.shard.checkpoint_file import Abandoned
from sish_cluster.shard.data_dir import DataDir
from sish_cluster.shard.held import HeldCollection
from sish_cluster.shard.settings import ShardSettings

_LOG = logging.getLogger(__name__)

_NICENESS = 10
"""What the thread adds to its niceness: searches that want the processor get most of it."""


class Checkpointer:
    """A thread that writes the checkpoints of the collections it is told of, one at a time.

    Parameters
    ----------
    data_dir
        Where they go.
    settings
        When one is due.
    """

    def __init__(self, data_dir: DataDir, settings: ShardSettings) -> None:
        self._data_dir = data_dir
        self._settings = settings
        self._due: queue.SimpleQueue[HeldCollection | None] = queue.SimpleQueue()
        self._noted: set[int] = set()
        self._changed: dict[int, tuple[HeldCollection, float]] = {}
        self._refused_at: dict[int, int] = {}
        self._written_s: dict[int, float] = {}
        self._is_closing = threading.Event()
        name = f"checkpointer-{settings.name}"
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        with contextlib.suppress(OSError):  # a folder that cannot be changed has none to come
            data_dir.drop_unfinished()
        self._thread.start()

    def note(self, held: HeldCollection) -> None:
        """Have a checkpoint written soon if one is due; called by the writer only."""
        self._changed[held.number] = (held, time.monotonic())
        if held.number not in self._noted and self._is_due(held, self._share_of(held)):
            self._noted.add(held.number)
            self._due.put(held)

    def close(self, shelf: Iterable[HeldCollection]) -> None:
        """Call off what is being written, then write what is worth it; repeating changes nothing."""
        if self._is_closing.is_set():
            return
        self._is_closing.set()
        self._due.put(None)
        self._thread.join()
        for held in shelf:
            if held.uncovered >= self._settings.checkpoint_postings:
                self._write(held, lambda: False)

    def _share_of(self, held: HeldCollection) -> float:
        """Return the share that must have changed; none once the last checkpoint is old."""
        now_s = time.monotonic()
        written_s = self._written_s.setdefault(held.number, now_s)
        is_old = now_s - written_s >= self._settings.checkpoint_every_s
        return 0.0 if is_old else self._settings.checkpoint_share

    def _is_due(self, held: HeldCollection, share: float) -> bool:
        enough = max(
            self._settings.checkpoint_postings,
            share * held.index.n_postings,
            2 * self._refused_at.get(held.number, 0),
        )
        return held.uncovered >= enough

    def _run(self) -> None:
        with contextlib.suppress(
            OSError
        ):  # a system that refuses it only makes searches wait a bit
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
        while not self._is_closing.is_set():
            try:
                held = self._due.get(timeout=self._settings.checkpoint_idle_s / 2)
            except queue.Empty:
                self._write_idle()
                continue
            if held is not None:
                self._write(held, self._is_closing.is_set)
                self._noted.discard(held.number)

    def _write_idle(self) -> None:
        """Write what is worth it of the collections that did not change for a while."""
        latest_s = time.monotonic() - self._settings.checkpoint_idle_s
        for number, change in list(self._changed.items()):
            held, changed_s = change
            if changed_s <= latest_s and self._changed[number] is change:
                del self._changed[number]
                if self._is_due(held, 0.0):
                    self._write(held, self._is_closing.is_set)

    def _write(self, held: HeldCollection, is_called_off: Callable[[], bool]) -> None:
        with held.changing:
            view, covered = held.view, held.uncovered
        path = self._data_dir.checkpoint(held.collection.name)
        try:
            write_checkpoint(path, held.number, held.collection, view, is_called_off=is_called_off)
        except Abandoned:
            return
        except Exception as error:
            self._refused_at[held.number] = covered
            _LOG.warning(
                "no checkpoint %s (%s): the next start reads the store instead, which takes longer;"
                " free disk space or make the folder writable",
                path,
                error,
            )
            return
        self._refused_at.pop(held.number, None)
        self._written_s[held.number] = time.monotonic()
        with held.changing:
            held.uncovered -= covered
