"""What a writer can do to a shard: ingest, commit, forget, create; each durable, then visible.

A change first writes into a batch (deciding by the ledger, which cannot move meanwhile), and is applied
to the ledger and the index once the batch is on disk. Raising before the first write refuses the change
and leaves the others of its batch alone.
"""

from __future__ import annotations

import time
from typing import Protocol

from sish_cluster.core.collection import Collection
from sish_cluster.core.errors import CollectionExists, UnknownSlide
from sish_cluster.core.posting import EncodedSlide
from sish_cluster.core.seams import ForgetOutcome, IngestOutcome, SlideState
from sish_cluster.shard.held import HeldCollection
from sish_cluster.shard.records import SlideRecord, chunk_counts
from sish_cluster.shard.store import Batch


class Change(Protocol):
    """One change; `write` in the batch, then `apply` in memory, both on the writer's thread."""

    @property
    def target(self) -> tuple[str, str]:
        """(collection, slide id): a batch holds at most one change of each."""

    @property
    def held(self) -> HeldCollection | None:
        """The collection to publish after `apply`."""

    may_overdraw: bool
    """Whether it may use the store's reserve, because it frees or finishes something."""

    def write(self, batch: Batch) -> None:
        """Put the change into a batch, or raise before writing anything."""

    def apply(self) -> object:
        """Change the ledger and stage the index, after the batch became durable; return the outcome."""


class Ingest:
    """Store a slide, pending or committed; the same slide and version again changes nothing."""

    may_overdraw = False

    def __init__(
        self,
        held: HeldCollection,
        encoded: EncodedSlide,
        *,
        state: SlideState,
        is_home: bool,
        home: str,
    ) -> None:
        self.held = held
        self.target = (held.collection.name, encoded.slide.slide_id)
        self._encoded = encoded
        self._state = state
        self._record = SlideRecord(
            slide=encoded.slide,
            version=encoded.version,
            fingerprint=encoded.fingerprint,
            state=state,
            is_home=is_home,
            home=home,
            stored_at_s=time.time(),
            postings=len(encoded.patches),
        )
        self._serial = -1
        self._replaced: int | None = None
        self._finished: int | None = None
        self._was_stored = False

    def write(self, batch: Batch) -> None:
        """Write the slide unless it is stored; drop the version it replaces."""
        ledger, version = self.held.ledger, self._record.version
        committed = ledger.committed_of(self._record.slide.slide_id)
        pending = ledger.pending_of(self._record.slide.slide_id).get(version)
        is_committed = committed is not None and ledger.entry(committed).record.version == version
        self._was_stored = is_committed or pending is not None
        self._replaced = self._finished = None
        if not self._was_stored:
            self._serial = self.held.take_serial()
            batch.put_slide(self.held.number, self._serial, self._record, self._encoded.patches)
        if is_committed or self._state is SlideState.PENDING:
            return
        if pending is not None:
            self._finished = pending
            _put_committed(batch, self.held, pending)
        self._replaced = committed
        if committed is not None:
            _delete(batch, self.held, committed)

    def apply(self) -> IngestOutcome:
        """Show the slide."""
        if self._replaced is not None:
            self.held.stage_removed(self._replaced)
        if self._finished is not None:
            self.held.ledger.commit(self._finished)
        if not self._was_stored:
            self.held.stage_added(self._serial, self._record, self._encoded.patches)
        return IngestOutcome(self._record.slide.slide_id, self._record.version, self._was_stored)


class Commit:
    """Make a pending version eligible and drop the committed one; again changes nothing."""

    may_overdraw = True

    def __init__(self, held: HeldCollection, slide_id: str, version: str) -> None:
        self.held = held
        self.target = (held.collection.name, slide_id)
        self._version = version
        self._committed: int | None = None
        self._replaced: int | None = None

    def write(self, batch: Batch) -> None:
        """Rewrite the header, or raise `UnknownSlide`."""
        ledger, slide_id = self.held.ledger, self.target[1]
        pending = ledger.pending_of(slide_id).get(self._version)
        committed = ledger.committed_of(slide_id)
        self._committed = self._replaced = None
        if committed is not None and ledger.entry(committed).record.version == self._version:
            return
        if pending is None:
            raise UnknownSlide(
                f"slide {slide_id!r} of collection {self.target[0]!r} has no pending version"
                f" {self._version} on this shard: ingest it again, then commit",
                metadata={"slide": slide_id, "version": self._version},
            )
        self._committed, self._replaced = pending, committed
        _put_committed(batch, self.held, pending)
        if committed is not None:
            _delete(batch, self.held, committed)

    def apply(self) -> None:
        """Show the new version and hide the old one, in one step."""
        if self._replaced is not None:
            self.held.stage_removed(self._replaced)
        if self._committed is not None:
            self.held.ledger.commit(self._committed)


class Forget:
    """Remove a slide with all its versions, or one pending version."""

    may_overdraw = True

    def __init__(self, held: HeldCollection, slide_id: str, pending_version: str = "") -> None:
        self.held = held
        self.target = (held.collection.name, slide_id)
        self._pending_version = pending_version
        self._removed: list[int] = []

    def write(self, batch: Batch) -> None:
        """Delete the records."""
        ledger, slide_id = self.held.ledger, self.target[1]
        pending = ledger.pending_of(slide_id)
        if self._pending_version:
            self._removed = [o for v, o in pending.items() if v == self._pending_version]
        else:
            committed = ledger.committed_of(slide_id)
            self._removed = [*pending.values(), *([] if committed is None else [committed])]
        for ordinal in self._removed:
            _delete(batch, self.held, ordinal)

    def apply(self) -> ForgetOutcome:
        """Hide the slide."""
        postings = sum(self.held.ledger.entry(o).record.postings for o in self._removed)
        for ordinal in self._removed:
            self.held.stage_removed(ordinal)
        return ForgetOutcome(postings, bool(self._removed))


class Create:
    """Create a collection; with equal properties again changes nothing."""

    may_overdraw = False
    held = None

    def __init__(self, shelf: dict[str, HeldCollection], collection: Collection) -> None:
        self.target = ("", "")  # one creation at a time, so that numbers are unique
        self._shelf = shelf
        self._collection = collection
        self._number = -1

    def write(self, batch: Batch) -> None:
        """Write the definition, or raise `CollectionExists`."""
        held = self._shelf.get(self._collection.name)
        self._number = -1
        if held is None:
            self._number = 1 + max((other.number for other in self._shelf.values()), default=0)
            batch.put_collection(self._number, self._collection)
        elif held.collection != self._collection:
            raise CollectionExists(
                f"collection {self._collection.name!r} exists as {held.collection}; asked for"
                f" {self._collection}: use the existing properties, or another name",
                metadata={"collection": self._collection.name},
            )

    def apply(self) -> bool:
        """Put the empty collection on the shelf; return whether it is new."""
        if self._number < 0:
            return False
        self._shelf[self._collection.name] = HeldCollection.empty(self._number, self._collection)
        return True


def _put_committed(batch: Batch, held: HeldCollection, ordinal: int) -> None:
    entry = held.ledger.entry(ordinal)
    batch.put_header(held.number, entry.serial, entry.record.committed())


def _delete(batch: Batch, held: HeldCollection, ordinal: int) -> None:
    entry = held.ledger.entry(ordinal)
    chunks = chunk_counts(entry.record.postings, held.collection)
    batch.delete_slide(held.number, entry.serial, postings=entry.record.postings, chunks=chunks)
