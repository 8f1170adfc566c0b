"""A shard's folder: one process at a time, one layout, one limit for the store.

::

    DATA/LAYOUT       JSON: layout of this folder; another layout is refused
    DATA/LIMIT        bytes the store may grow to; `sish shard grow` raises it under a running server
    DATA/LOCK         flock of the process that serves it, with its pid
    DATA/OPENING      exists only while a shard loads: left behind, the last load died
    DATA/store/       the LMDB environment
    DATA/checkpoint/  COLLECTION.ckpt: sorted copies for a fast start; may be deleted at any time
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path

from sish_cluster.core.errors import BadRequest, CheckpointMismatch, HomeInUse, NotPermitted
from sish_cluster.shard.settings import DEFAULT_MAP_BYTES, SMALLEST_MAP_BYTES

DATA_DIR_LAYOUT = 1
"""Layout of the folder as drawn above."""


class DataDir:
    """The paths of a data directory and, once `locked`, the right to change it.

    Parameters
    ----------
    path
        The folder; `made` creates it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.store = path / "store"
        self.checkpoints = path / "checkpoint"
        self._lock: int | None = None

    def exists(self) -> bool:
        """Whether a shard has ever been started here."""
        return (self.path / "LAYOUT").exists()

    def checkpoint(self, collection: str) -> Path:
        """Return a collection's checkpoint file, there or not."""
        return self.checkpoints / f"{collection}.ckpt"

    def drop_unfinished(self) -> None:
        """Remove what a crash left of checkpoints that were being written; needs the lock."""
        for part in self.checkpoints.glob("*.part"):
            part.unlink(missing_ok=True)

    def made(self) -> DataDir:
        """Create what is missing, durably, and check the layout.

        Raises
        ------
        CheckpointMismatch
            If another layout wrote the folder.
        NotPermitted
            If the folder cannot be written.
        """
        try:
            self.store.mkdir(parents=True, exist_ok=True)
            if not self.exists():
                write_whole(self.path / "LAYOUT", json.dumps({"layout": DATA_DIR_LAYOUT}))
                sync_folder(self.path.parent)
        except OSError as error:
            raise NotPermitted(
                f"cannot write the data directory {self.path} ({error.strerror}): make it writable,"
                " or give another with --data-dir"
            ) from error
        self.check_layout()
        return self

    def check_layout(self) -> None:
        """Raise unless this is a data directory of this layout."""
        if not self.exists():
            raise BadRequest(
                f"{self.path} is no shard's data directory (it has no LAYOUT file): give the folder"
                " that `sish shard serve --data-dir` was started with"
            )
        try:
            found = json.loads((self.path / "LAYOUT").read_text())["layout"]
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointMismatch(f"{self.path}/LAYOUT cannot be read ({error})") from error
        if found != DATA_DIR_LAYOUT:
            raise CheckpointMismatch(
                f"{self.path} has layout {found}, this version reads layout {DATA_DIR_LAYOUT}: use"
                " the version that wrote it, or restore a backup made for this one"
            )

    def lock(self) -> None:
        """Take the folder for this process until `unlock`.

        Raises
        ------
        HomeInUse
            If another process has it, naming its pid.
        """
        try:
            lock = os.open(self.path / "LOCK", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise NotPermitted(
                f"cannot lock {self.path} ({error.strerror}): make the folder writable"
            ) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            pid = os.read(lock, 20).decode(errors="replace").strip() or "unknown"
            os.close(lock)
            raise HomeInUse(
                f"{self.path} is in use by process {pid}: stop it first, or give this shard a data"
                " directory of its own",
                metadata={"pid": pid, "data_dir": str(self.path)},
            ) from error
        self._lock = lock
        with contextlib.suppress(OSError):  # a full disk must not keep a shard from opening
            os.ftruncate(lock, 0)
            os.pwrite(lock, str(os.getpid()).encode(), 0)

    def unlock(self) -> None:
        """Let another process have the folder."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def has_limit(self) -> bool:
        """Whether a limit was ever set."""
        return (self.path / "LIMIT").exists()

    def limit_bytes(self) -> int:
        """Return the bytes the store may grow to."""
        try:
            return max(SMALLEST_MAP_BYTES, int((self.path / "LIMIT").read_text()))
        except (FileNotFoundError, ValueError):
            return DEFAULT_MAP_BYTES

    def set_limit(self, map_bytes: int) -> None:
        """Write the bytes the store may grow to; a running server reads it when it is full."""
        write_whole(self.path / "LIMIT", str(map_bytes))

    def died_opening(self) -> bool:
        """Whether the last load ended without an answer: a crash, or a kill."""
        return (self.path / "OPENING").exists()

    @contextlib.contextmanager
    def opening(self) -> Iterator[None]:
        """Mark the folder as being loaded; the mark goes unless the process dies inside."""
        mark = self.path / "OPENING"
        with contextlib.suppress(OSError):  # a full disk must not keep a shard from opening
            mark.touch()
        try:
            yield
        finally:
            mark.unlink(missing_ok=True)


def write_whole(path: Path, text: str) -> None:
    """Write a small file durably, whole or not at all."""
    part = path.with_name(path.name + ".part")
    with open(part, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)
    sync_folder(path.parent)


def read_ahead(path: Path) -> None:
    """Have the kernel bring a file into its cache, because all of it will be read soon."""
    if hasattr(os, "posix_fadvise"):
        with open(path, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)


def sync_folder(path: Path) -> None:
    """Make a folder's entries durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
