"""A shard: the part of every collection it owns, durable in a store, searchable in memory.

Opening loads and checks every record; there is no log to replay, so opening after a kill is opening.
Changes go to the one writer and return when they are durable *and* visible. Reads take the current
view and never wait. The methods here block; `direct` and `server` call them from asyncio.
"""

from __future__ import annotations

import importlib.metadata
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import psutil

from sish_cluster.core.candidate import ShardAnswer
from sish_cluster.core.clock import NEVER_CANCELLED, Cancellation
from sish_cluster.core.collection import Collection, CollectionState
from sish_cluster.core.errors import BadRequest, Moved, UnknownCollection
from sish_cluster.core.posting import EncodedSlide
from sish_cluster.core.query import Filter, Query
from sish_cluster.core.seams import (
    ForgetOutcome,
    IngestOutcome,
    PendingSlide,
    ShardStatus,
    SlideState,
    StoredSlide,
)
from sish_cluster.shard import reads
from sish_cluster.shard.backup import backed_up
from sish_cluster.shard.changes import Change, Commit, Create, Forget, Ingest
from sish_cluster.shard.check import Report, check_in_another_process
from sish_cluster.shard.checkpointer import Checkpointer
from sish_cluster.shard.data_dir import DataDir
from sish_cluster.shard.held import HeldCollection
from sish_cluster.shard.loading import stored_patches
from sish_cluster.shard.opening import held_collection
from sish_cluster.shard.settings import ShardSettings
from sish_cluster.shard.store import Store
from sish_cluster.shard.writer import Writer

WRITE_TIMEOUT_S = 60.0
"""Seconds a blocking call waits for room in the writer's queue when it gives no deadline."""

EVERY_POSTING = Filter()
"""The filter that every committed posting passes."""


class Shard:
    """One open shard; `close` it, or use it as a context manager.

    Parameters
    ----------
    settings
        Where it lies and what it owns.

    Raises
    ------
    HomeInUse
        If another process has the data directory.
    Corrupt
        If a record is damaged; the message names it.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> with Shard(ShardSettings(pathlib.Path(tempfile.mkdtemp()) / "data")) as shard:
    ...     shard.create_collection(Collection("demo", fingerprint="f", code_bits=1024))
    ...     [collection.name for collection in shard.list_collections()]
    True
    ['demo']
    """

    def __init__(self, settings: ShardSettings) -> None:
        self.settings = settings
        self._opened_s = time.monotonic()
        self._searching = 0
        self._counting = threading.Lock()
        self._data_dir = DataDir(settings.data_dir).made()
        self._data_dir.lock()
        try:
            self._raise_limit()
            self._store, self._shelf = _opened(self._data_dir)
        except BaseException:
            self._data_dir.unlock()
            raise
        self._checkpointer = Checkpointer(self._data_dir, settings)
        self._writer = Writer(self._store, settings, self._checkpointer)
        for held in self._shelf.values():
            self._writer.tend(held)

    def __enter__(self) -> Shard:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Finish queued changes, write the checkpoints that are worth it, let go of the folder.

        Repeating it changes nothing.
        """
        self._writer.close()
        self._checkpointer.close(self._shelf.values() if self._writer.fault is None else ())
        self._store.close()
        self._data_dir.unlock()

    def grow(self, map_bytes: int) -> None:
        """Let the store grow to ``map_bytes``; writes refused for want of room go on."""
        self._data_dir.set_limit(map_bytes)

    def backup(self, target: Path) -> Report:
        """Copy everything durable as of now to the new folder ``target``, while writes go on."""
        return backed_up(self.settings.data_dir, target, store=self._store)

    def search(
        self,
        collection: str,
        query: Query,
        *,
        wants_examined: bool = False,
        cancellation: Cancellation = NEVER_CANCELLED,
    ) -> ShardAnswer:
        """Return the candidates of a slide query; see `reads.answer`."""
        held = self._held(collection)
        view = held.view
        mode = reads.resolved_mode(view, held.collection, query)
        reads.check_query(held.collection, query, mode)
        with self._counting:
            self._searching += 1
            n_threads = max(1, self.settings.search_threads // self._searching)
        try:
            return reads.answer(
                view,
                query,
                mode,
                wants_examined=wants_examined,
                cancellation=cancellation,
                n_threads=n_threads,
            )
        finally:
            with self._counting:
                self._searching -= 1

    def encoded_slide(self, collection: str, slide_id: str) -> EncodedSlide | None:
        """Return this shard's share of a committed slide as it was ingested; None when it has none.

        Raises
        ------
        Corrupt
            If one of its records is damaged.
        """
        while True:
            held = self._held(collection)
            entry = held.view.slides.committed_entry(slide_id)
            if entry is None:
                return None
            patches = stored_patches(self._store, held.number, held.collection, entry)
            if patches is not None:
                record = entry.record
                return EncodedSlide(record.slide, patches, record.fingerprint, record.version)
            # Replaced or forgotten after the view was taken: the next one will tell.

    def range_lookup(
        self,
        collection: str,
        start: int,
        end: int,
        *,
        where: Filter = EVERY_POSTING,
        page_size: int = 0,
        page_token: str = "",
    ) -> reads.Page:
        """Return a page of the committed postings of a key range; see `reads.page`."""
        held = self._held(collection)
        return reads.page(
            held.view,
            held.collection,
            (start, end),
            where=where,
            page_size=page_size,
            page_token=page_token,
        )

    def neighbours(
        self,
        collection: str,
        key: int,
        *,
        predecessors: int,
        successors: int,
        where: Filter = EVERY_POSTING,
    ) -> reads.Neighbours:
        """Return the occupied keys around a key; see `reads.neighbours`."""
        view = self._held(collection).view
        return reads.neighbours(
            view, key, predecessors=predecessors, successors=successors, where=where
        )

    def begin_ingest(
        self,
        collection: str,
        encoded: EncodedSlide,
        *,
        state: SlideState = SlideState.COMMITTED,
        is_home: bool = True,
        home: str = "",
        timeout_s: float = WRITE_TIMEOUT_S,
    ) -> Future[IngestOutcome]:
        """Check a slide and queue it; the future ends once it is durable and visible.

        Raises
        ------
        Moved
            If the selector does not own the slide, or a key lies outside the range.
        FingerprintMismatch, BadMessage, BadRequest, UnknownCollection
            If the slide does not fit the collection.
        """
        held = self._held(collection)
        self._check_slide(held.collection, encoded)
        home = home or self.settings.name
        change = Ingest(held, encoded, state=state, is_home=is_home, home=home)
        return self._submit(change, timeout_s)

    def ingest(
        self,
        collection: str,
        encoded: EncodedSlide,
        *,
        state: SlideState = SlideState.COMMITTED,
        is_home: bool = True,
        home: str = "",
    ) -> IngestOutcome:
        """Store a slide durably; see `begin_ingest`."""
        begun = self.begin_ingest(collection, encoded, state=state, is_home=is_home, home=home)
        return begun.result()

    def begin_commit(
        self, collection: str, slide_id: str, version: str, *, timeout_s: float = WRITE_TIMEOUT_S
    ) -> Future[None]:
        """Queue making a pending version eligible in place of the committed one."""
        return self._submit(Commit(self._held(collection), slide_id, version), timeout_s)

    def commit_slide(self, collection: str, slide_id: str, version: str) -> None:
        """Make a pending version eligible; raise `UnknownSlide` where it is not here."""
        self.begin_commit(collection, slide_id, version).result()

    def begin_forget(
        self,
        collection: str,
        slide_id: str,
        *,
        pending_version: str = "",
        timeout_s: float = WRITE_TIMEOUT_S,
    ) -> Future[ForgetOutcome]:
        """Queue removing a slide, or one pending version of it."""
        return self._submit(Forget(self._held(collection), slide_id, pending_version), timeout_s)

    def forget(self, collection: str, slide_id: str, *, pending_version: str = "") -> ForgetOutcome:
        """Remove a slide durably; a slide that is not here is no error."""
        return self.begin_forget(collection, slide_id, pending_version=pending_version).result()

    def begin_create(
        self, collection: Collection, *, timeout_s: float = WRITE_TIMEOUT_S
    ) -> Future[bool]:
        """Queue creating a collection."""
        return self._submit(Create(self._shelf, collection), timeout_s)

    def create_collection(self, collection: Collection) -> bool:
        """Create a collection durably; return whether this call did."""
        return self.begin_create(collection).result()

    def list_pending(self, collection: str) -> list[PendingSlide]:
        """Return the pending slides in slide id order."""
        held = self._held(collection)
        now_s = time.time()
        with held.changing:
            found = [held.ledger.entry(ordinal).record for ordinal in held.ledger.pending()]
        return [
            PendingSlide(r.slide.slide_id, r.version, r.home, max(0.0, now_s - r.stored_at_s))
            for r in found
        ]

    def list_slides(self, collection: str, *, slide_id: str = "") -> Iterator[StoredSlide]:
        """Yield the committed slides at home here, of one moment, in slide id order."""
        view = self._held(collection).view
        for entry in view.slides.home_entries(slide_id):
            record = entry.record
            yield StoredSlide(record.slide, record.version, record.postings)

    def list_collections(self) -> list[Collection]:
        """Return the collections in name order."""
        return [self._shelf[name].collection for name in sorted(self._shelf)]

    def describe_collection(self, collection: str) -> CollectionState:
        """Return what is held of a collection."""
        return self._held(collection).state()

    def status(self) -> ShardStatus:
        """Return how the shard is; a shard whose writer failed raises what it failed of."""
        self._check_fault()
        return ShardStatus(
            version=importlib.metadata.version("sish-cluster"),
            uptime_s=time.monotonic() - self._opened_s,
            selector=self.settings.selector,
            range=self.settings.range,
            collections=[self._shelf[name].state() for name in sorted(self._shelf)],
            store_used_bytes=self._store.used_bytes,
            store_map_bytes=self._store.map_bytes,
            resident_bytes=psutil.Process().memory_info().rss,
        )

    def _raise_limit(self) -> None:
        asked = self.settings.map_bytes
        if asked is not None and (
            not self._data_dir.has_limit() or asked > self._data_dir.limit_bytes()
        ):
            self._data_dir.set_limit(asked)

    def _submit(self, change: Change, timeout_s: float) -> Future:  # type: ignore[type-arg]
        return self._writer.submit(change, timeout_s=timeout_s)

    def _check_fault(self) -> None:
        if self._writer.fault is not None:
            raise self._writer.fault

    def _held(self, collection: str) -> HeldCollection:
        self._check_fault()
        held = self._shelf.get(collection)
        if held is None:
            known = ", ".join(sorted(self._shelf)) or "none"
            raise UnknownCollection(
                f"shard {self.settings.name!r} has no collection {collection!r} (it has: {known}):"
                " create it first, or correct the name",
                metadata={"collection": collection, "shard": self.settings.name},
            )
        return held

    def _check_slide(self, collection: Collection, encoded: EncodedSlide) -> None:
        slide, keys = encoded.slide, encoded.patches.keys
        reads.check_patches(collection, encoded.patches, encoded.fingerprint)
        if not encoded.version:
            raise BadRequest(f"slide {slide.slide_id!r} has no version", field="version")
        owned = self.settings
        where = {"shard": owned.name, "slide": slide.slide_id, "range": str(owned.range)}
        if not owned.selector.owns(slide):
            raise Moved(
                f"slide {slide.slide_id!r} does not belong on shard {owned.name!r}, which owns"
                f" {owned.selector}: refresh the topology, or correct the slide's labels",
                metadata=where,
            )
        outside = keys[(keys < owned.range.start) | (keys >= owned.range.end)]
        if len(outside):
            raise Moved(
                f"slide {slide.slide_id!r} has {len(outside)} keys outside shard {owned.name!r},"
                f" which owns {owned.range}; the first is {int(outside[0])}: refresh the topology and"
                " send each shard its own keys",
                metadata={**where, "key": str(int(outside[0]))},
            )


def _opened(data_dir: DataDir) -> tuple[Store, dict[str, HeldCollection]]:
    """Open the store and load it; where the last load died, check it in another process first."""
    if data_dir.died_opening():
        check_in_another_process(data_dir).raise_store_damage()
    store = Store(data_dir.store, limit_bytes=data_dir.limit_bytes)
    try:
        if store.is_truncated():
            check_in_another_process(data_dir).raise_store_damage()
        with data_dir.opening():
            shelf = {
                collection.name: held_collection(
                    store, number, collection, data_dir.checkpoint(collection.name)
                )
                for number, collection in store.collections()
            }
        store.reopen()
    except BaseException:
        store.close()
        raise
    return store, shelf
