"""Backups: a compacted copy of the store as of one moment, made while a shard serves.

A backup is a data directory like any other, so restoring is copying it back, and it can be checked
like one. Both ways every record is checked before the copy gets its name; a copy that is not whole
never looks like one.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from sish_cluster.core.errors import BadRequest, NotPermitted, StoreFull
from sish_cluster.shard.check import Report, check_in_another_process
from sish_cluster.shard.data_dir import DataDir, sync_folder
from sish_cluster.shard.steps import reached
from sish_cluster.shard.store import Store


def backed_up(data_dir: Path, target: Path, *, store: Store | None = None) -> Report:
    """Copy a shard's data directory, served or not, to ``target``; return the copy's check.

    Parameters
    ----------
    data_dir, target
        The shard's folder; a folder that does not exist or is empty.
    store
        The open store when this process serves the shard itself.

    Raises
    ------
    BadRequest
        If ``target`` exists, or ``data_dir`` is none.
    Corrupt
        If a record of the copy is damaged; there is no ``target`` then.
    """
    return _copied(data_dir, target, what="backup", store=store)


def restored(backup: Path, data_dir: Path) -> Report:
    """Make ``data_dir`` from a backup; return its check.

    Raises
    ------
    BadRequest
        If ``data_dir`` exists: a restore never overwrites a store.
    Corrupt
        If the backup is damaged; there is no ``data_dir`` then.
    """
    return _copied(backup, data_dir, what="restore")


def _copied(source: Path, target: Path, *, what: str, store: Store | None = None) -> Report:
    origin = DataDir(source)
    origin.check_layout()
    if target.exists() and any(target.iterdir()):
        raise BadRequest(
            f"{target} exists and is not empty: a {what} goes to a new folder; move the old one away"
        )
    part = target.with_name(target.name + ".part")
    try:
        shutil.rmtree(part, ignore_errors=True)
        copy = DataDir(part).made()
        reached("backup begun")
        _copy_store(origin, copy, store)
        reached("backup copied")
        report = check_in_another_process(copy)
        report.raise_damage()
        reached("backup checked")
        os.replace(part, target)
        reached("backup renamed")
        sync_folder(target.parent)
    except OSError as error:
        problem = f"cannot write {target} ({error.strerror})"
        if error.errno in (28, 122):  # ENOSPC, EDQUOT
            raise StoreFull(f"{problem}: free space there, or choose another disk") from error
        raise NotPermitted(f"{problem}: choose a folder that can be written") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return report


def _copy_store(origin: DataDir, copy: DataDir, store: Store | None) -> None:
    if store is not None:
        store.copy(copy.store)
    else:
        reader = Store(origin.store, limit_bytes=origin.limit_bytes, is_read_only=True)
        try:
            reader.copy(copy.store)
        finally:
            reader.close()
    if origin.has_limit():
        copy.set_limit(origin.limit_bytes())
