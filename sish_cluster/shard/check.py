"""The scrub: every checksum read again, the index rebuilt from the records, the checkpoint compared.

It reads while a shard serves (a second process may read an LMDB environment) and changes nothing,
unless asked to drop damaged slides, which needs the data directory for itself. Pages of LMDB's own tree
have no checksum: where damage there ends the reading process, the scrub, run in a process of its own,
says so instead of dying.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sish_cluster.core.collection import Collection
from sish_cluster.core.errors import Corrupt, SishError
from sish_cluster.core.key import UNIVERSE
from sish_cluster.shard import records
from sish_cluster.shard.checkpoint import Checkpoint, Unusable
from sish_cluster.shard.data_dir import DataDir
from sish_cluster.shard.index import PostingIndex
from sish_cluster.shard.loading import Loaded, joined, loaded
from sish_cluster.shard.records import Kind, Totals
from sish_cluster.shard.store import Batch, Store

CHECK_TIMEOUT_S = 3600.0
"""Seconds the other process may take: a damaged tree can be endless; 1e8 postings take minutes."""


@dataclasses.dataclass(frozen=True, slots=True)
class CheckedCollection:
    """One collection as the check found it: sound slides, their postings."""

    name: str
    slides: int
    postings: int


@dataclasses.dataclass(frozen=True, slots=True)
class Report:
    """What a check found.

    Parameters
    ----------
    collections
        The sound part of each collection.
    damage
        One message per damaged slide or record; none when all is well.
    dropped
        Damaged slides that were removed.
    checkpoint_damage
        One message per damaged checkpoint: the next start rebuilds it, nothing is lost.
    """

    collections: list[CheckedCollection]
    damage: list[str]
    dropped: int = 0
    checkpoint_damage: Sequence[str] = ()

    def raise_damage(self) -> None:
        """Raise `Corrupt` unless all is well."""
        self.raise_store_damage()
        if self.checkpoint_damage:
            raise joined([Corrupt(message) for message in self.checkpoint_damage])

    def raise_store_damage(self) -> None:
        """Raise `Corrupt` unless the store is sound."""
        if self.damage:
            raise joined([Corrupt(message) for message in self.damage])

    def to_json(self) -> str:
        """Return the report as one line of JSON."""
        return json.dumps(dataclasses.asdict(self))


def checked(data_dir: DataDir) -> Report:
    """Read and check every record in this process, and rebuild and compare the index."""
    store = Store(data_dir.store, limit_bytes=data_dir.limit_bytes, is_read_only=True)
    try:
        collections: list[CheckedCollection] = []
        damage: list[str] = []
        checkpoint_damage: list[str] = []
        for number, collection in store.collections():
            found = loaded(store, number, collection, keeps_vectors=False)
            damage.extend(error.message for error in found.damage)
            damage.extend(_index_damage(collection, found))
            path = data_dir.checkpoint(collection.name)
            checkpoint_damage.extend(_checkpoint_damage(path, number, collection, found))
            counts = (len(found.headers), sum(found.lengths()))
            collections.append(CheckedCollection(collection.name, *counts))
        return Report(collections, damage, checkpoint_damage=checkpoint_damage)
    except Corrupt as error:
        return Report([], [error.message])
    finally:
        store.close()


def check_in_another_process(data_dir: DataDir) -> Report:
    """Return `checked` of a data directory; a process that dies of it is damage, too."""
    command = [sys.executable, "-m", "sish_cluster.shard.check", str(data_dir.path)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=CHECK_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return _unreadable(data_dir, f"it did not end within {CHECK_TIMEOUT_S:.0f} s")
    try:
        values = json.loads(done.stdout)
    except ValueError:
        return _unreadable(
            data_dir, f"it ended with {done.returncode}: {done.stderr[-300:].strip()}"
        )
    collections = [CheckedCollection(**found) for found in values.pop("collections")]
    return Report(collections, **values)


def drop_damaged(data_dir: DataDir) -> Report:
    """Remove damaged slides from a store no process serves, and report what was found and dropped.

    Raises
    ------
    HomeInUse
        If a shard serves it.
    """
    data_dir.lock()
    try:
        store = Store(data_dir.store, limit_bytes=data_dir.limit_bytes)
        try:
            damage: list[str] = []
            collections, dropped = [], 0
            for number, collection in store.collections():
                found = loaded(store, number, collection, keeps_vectors=False)
                damage.extend(error.message for error in found.damage)
                _drop(store, number, found)
                dropped += len(found.broken)
                counts = (len(found.headers), sum(found.lengths()))
                collections.append(CheckedCollection(collection.name, *counts))
            return Report(collections, damage, dropped)
        finally:
            store.close()
    finally:
        data_dir.unlock()


def _drop(store: Store, number: int, found: Loaded) -> None:
    if not found.damage:
        return
    with store.rows(number) as rows:
        gone = [
            (kind, bytes(address))
            for kind in (Kind.SLIDE, *records.CHUNK_KINDS)
            for address, _ in rows(kind)
            if records.serial_of(address) in found.broken
        ]

    def fill(batch: Batch) -> None:
        for kind, address in gone:
            batch.delete_at(kind, address)
        batch.put_totals(number, Totals(len(found.headers), sum(found.lengths())))

    store.write(fill, may_overdraw=True)


def _index_damage(collection: Collection, found: Loaded) -> list[str]:
    """Build the index from the records and compare what it gives back with them."""
    ordinals = np.repeat(np.arange(len(found.headers), dtype=np.uint32), found.lengths())
    index = PostingIndex.bulk(
        collection.code_bytes,
        keys=found.keys,
        codes=found.codes,
        ordinals=ordinals,
        numbers=found.numbers,
        corners=found.corners,
    )
    try:
        index.check()
    except (AssertionError, SishError) as error:
        return [f"the index of collection {collection.name!r} breaks its own rules: {error}"]
    if _is_same(index, found, np.ones(len(found.headers), bool)):
        return []
    return [f"the index of collection {collection.name!r} differs from its records"]


def _checkpoint_damage(path: Path, number: int, collection: Collection, found: Loaded) -> list[str]:
    """Read a checkpoint whole and compare the postings of every slide that the store has too."""
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        try:
            checkpoint = Checkpoint(path, number, collection, pool=pool)
        except FileNotFoundError:
            return []
        except Unusable as problem:
            return [] if problem.is_foreign else [_rebuilt_next(str(problem))]
        with contextlib.closing(checkpoint):
            try:
                segments = checkpoint.segments()
            except Unusable as problem:
                return [_rebuilt_next(str(problem))]
    places = np.full(len(checkpoint.serials) + 1, len(found.headers), np.uint32)
    for place, (serial, record) in enumerate(found.headers.items()):
        address = records.slide_address(number, serial)
        row = checkpoint.row_of(serial, address, records.slide_payload(record))
        if row is not None:
            places[row] = place
    segments = [dataclasses.replace(s, ordinals=places[s.ordinals]) for s in segments]
    index = PostingIndex.restored(collection.code_bytes, segments, [len(found.headers)])
    is_covered = np.zeros(len(found.headers), bool)
    is_covered[places[places < len(found.headers)]] = True
    if _is_same(index, found, is_covered):
        return []
    return [_rebuilt_next(f"{path} differs from the store's records")]


def _rebuilt_next(problem: str) -> str:
    return f"{problem}: nothing is lost; delete it, or restart the shard, which rebuilds it"


def _is_same(index: PostingIndex, found: Loaded, is_chosen: npt.NDArray[np.bool_]) -> bool:
    """Whether an index gives back just the records of the chosen slides, by place in the headers."""
    every = np.repeat(np.arange(len(found.headers), dtype=np.uint32), found.lengths())
    kept = np.flatnonzero(is_chosen[every])
    limit = max(1, len(found.keys))
    rows = index.snapshot().range_rows(0, UNIVERSE, eligible=is_chosen, limit=limit, after=None)
    here = kept[np.lexsort((found.numbers[kept], every[kept], found.keys[kept]))]
    there = np.lexsort((rows.numbers, rows.ordinals, rows.keys))
    return len(here) == len(there) and all(
        np.array_equal(ours[here], theirs[there].reshape(len(here), *ours.shape[1:]))
        for ours, theirs in (
            (found.keys, rows.keys),
            (every, rows.ordinals),
            (found.numbers, rows.numbers),
            (found.codes, rows.codes),
            (found.corners, rows.corners),
        )
    )


def _unreadable(data_dir: DataDir, why: str) -> Report:
    return Report(
        [],
        [
            f"{data_dir.store}/data.mdb cannot be walked: the process that read it was stopped ({why})."
            " Its tree is damaged: restore a backup with `sish shard restore`"
        ],
    )


if __name__ == "__main__":
    print(checked(DataDir(Path(sys.argv[1]))).to_json())
