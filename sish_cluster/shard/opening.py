"""Opening: a collection from its checkpoint, as far as that goes, and from the store for the rest."""

from __future__ import annotations

import contextlib
import gc
import itertools
import logging
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from sish_cluster.core.collection import Collection
from sish_cluster.shard.checkpoint import Checkpoint, Unusable
from sish_cluster.shard.held import HeldCollection
from sish_cluster.shard.index import PostingIndex
from sish_cluster.shard.ledger import Ledger
from sish_cluster.shard.loading import Loaded, joined, loaded
from sish_cluster.shard.store import Store
from sish_cluster.shard.vectors import Vectors

_LOG = logging.getLogger(__name__)


def held_collection(
    store: Store, number: int, collection: Collection, path: Path
) -> HeldCollection:
    """Return a collection ready to be searched.

    Parameters
    ----------
    store, number, collection
        Where it is stored.
    path
        Its checkpoint, there or not; one that cannot be used is named in the log and left aside, a
        damaged one removed.

    Raises
    ------
    Corrupt
        If a record that is needed is damaged: a shard never serves a part as if it were the whole.
    """
    with _without_collecting(), ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        try:
            with contextlib.closing(Checkpoint(path, number, collection, pool=pool)) as checkpoint:
                return _continued(store, number, collection, checkpoint)
        except FileNotFoundError:
            _LOG.info("no checkpoint %s: building the index from the store", path)
        except Unusable as problem:
            _LOG.warning("checkpoint left aside, rebuilding the index from the store: %s", problem)
            if not problem.is_foreign:
                with contextlib.suppress(OSError):  # where nothing changes, none may replace it
                    path.unlink()
        return _begun(store, number, collection)


def _begun(store: Store, number: int, collection: Collection) -> HeldCollection:
    """Return a collection from the store alone."""
    found = _sound(loaded(store, number, collection))
    ledger, index = Ledger(), PostingIndex(collection.code_bytes)
    vectors = Vectors(collection.dimensions)
    _add(ledger, index, vectors, found)
    next_serial = _after(found.headers)
    held = HeldCollection(number, collection, ledger, index, vectors, next_serial=next_serial)
    held.uncovered = len(found.keys)
    return held


def _continued(
    store: Store, number: int, collection: Collection, checkpoint: Checkpoint
) -> HeldCollection:
    """Return a collection from its checkpoint and what the store says came or went since."""
    found = _sound(loaded(store, number, collection, checkpoint))
    is_held = np.zeros(len(checkpoint.serials), np.bool_)
    is_held[[kept.row for kept in found.kept.values()]] = True
    ledger = checkpoint.ledger(is_held)
    gone = np.flatnonzero(~is_held).tolist()
    forgotten = ledger.reserve()
    segments = checkpoint.segments()
    index = PostingIndex.restored(collection.code_bytes, segments, [*gone, forgotten])
    n_gone = int(checkpoint.postings[gone].sum())
    for kept in found.kept.values():
        if kept.is_committed_since:
            ledger.commit(kept.row)
    vectors = Vectors(collection.dimensions)
    for serial, kept in found.kept.items():
        if serial in found.vectors:
            vectors.put(kept.row, found.vectors[serial])
    _add(ledger, index, vectors, found)
    next_serial = _after(itertools.chain(found.headers, checkpoint.serials))
    held = HeldCollection(number, collection, ledger, index, vectors, next_serial=next_serial)
    held.uncovered = len(found.keys) + n_gone
    return held


def _sound(found: Loaded) -> Loaded:
    if found.damage:
        raise joined(found.damage)
    return found


def _add(ledger: Ledger, index: PostingIndex, vectors: Vectors, found: Loaded) -> None:
    """Add what was read from the store."""
    ordinals = [ledger.add(serial, record) for serial, record in found.headers.items()]
    for ordinal, serial in zip(ordinals, found.headers, strict=True):
        if serial in found.vectors:
            vectors.put(ordinal, found.vectors[serial])
    index.insert(
        keys=found.keys,
        codes=found.codes,
        ordinals=np.repeat(np.array(ordinals, np.uint32), found.lengths()),
        numbers=found.numbers,
        corners=found.corners,
    )


def _after(serials: Iterable[int]) -> int:
    return max(serials, default=-1) + 1


@contextlib.contextmanager
def _without_collecting() -> Iterator[None]:
    """Keep the garbage collector from walking 1e5 new headers again and again; none is garbage."""
    was_collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_collecting:
            gc.enable()
