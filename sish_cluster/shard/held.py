"""A collection as a shard holds it: its ledger, index and vectors, shown to readers as one view.

The writer's thread stages what a durable commit changed and then publishes: all three change
together, in one assignment, so that a search sees either all of a commit or nothing of it.
"""

from __future__ import annotations

import collections
import dataclasses
import threading
import weakref

import numpy as np

from sish_cluster.core.collection import Collection, CollectionState
from sish_cluster.core.posting import PatchColumns
from sish_cluster.shard.index import PostingIndex, Snapshot
from sish_cluster.shard.ledger import Ledger, LedgerView
from sish_cluster.shard.records import SlideRecord
from sish_cluster.shard.steps import reached
from sish_cluster.shard.vectors import SlideVectors, Vectors, VectorsView


@dataclasses.dataclass(frozen=True, eq=False)
class View:
    """What a reader sees: postings, slides and embeddings of one moment; whoever reads them holds it."""

    snapshot: Snapshot
    slides: LedgerView
    vectors: VectorsView


class HeldCollection:
    """One collection's ledger, index and current view.

    Parameters
    ----------
    number
        The collection's number in the store.
    collection
        Its definition.
    ledger, index, vectors
        What was loaded; all empty for a new collection.
    next_serial
        Serial of the next slide in the store.

    Attributes
    ----------
    changing
        Held while the view is replaced.
    uncovered
        Postings that came or went since the last checkpoint; all of them where there is none.
    """

    def __init__(
        self,
        number: int,
        collection: Collection,
        ledger: Ledger,
        index: PostingIndex,
        vectors: Vectors,
        *,
        next_serial: int = 0,
    ) -> None:
        self.number = number
        self.collection = collection
        self.ledger = ledger
        self.index = index
        self.vectors = vectors
        self.changing = threading.Lock()
        self.uncovered = 0
        self._next_serial = next_serial
        self._inserts: list[tuple[int, PatchColumns]] = []
        self._forgotten: list[int] = []
        self._retired: collections.deque[tuple[weakref.ref[View], list[int]]] = collections.deque()
        self.view = self._new_view()

    @classmethod
    def empty(cls, number: int, collection: Collection) -> HeldCollection:
        """Return a new collection without slides."""
        index, vectors = PostingIndex(collection.code_bytes), Vectors(collection.dimensions)
        return cls(number, collection, Ledger(), index, vectors)

    def take_serial(self) -> int:
        """Return a serial nobody has; one that is not used leaves a harmless gap."""
        self._next_serial += 1
        return self._next_serial - 1

    def stage_added(self, serial: int, record: SlideRecord, patches: PatchColumns) -> int:
        """Add a stored slide, to be seen after `publish`; return its ordinal."""
        ordinal = self.ledger.add(serial, record)
        if len(patches):
            self._inserts.append((ordinal, patches.without_embeddings()))
        if self.collection.dimensions:
            self.vectors.put(ordinal, SlideVectors.of(patches.embeddings))
        return ordinal

    def stage_removed(self, ordinal: int) -> None:
        """Remove a slide, to be gone after `publish`."""
        self.ledger.remove(ordinal)
        self._forgotten.append(ordinal)

    def publish(self) -> None:
        """Show everything staged to the readers that come from now on."""
        if self._inserts:
            self._insert()
        if self._forgotten:
            self.index.forget(np.array(self._forgotten, np.uint32))
        self.uncovered += sum(len(patches) for _, patches in self._inserts)
        self.uncovered += sum(self.ledger.entry(o).record.postings for o in self._forgotten)
        self._show(self._forgotten)
        self._inserts, self._forgotten = [], []

    def compact(self) -> bool:
        """Compact the index where it asks for it, beside the writer; return whether it did."""
        if not self.index.needs_compaction():
            return False
        self.index.compact()
        with self.changing:
            self._show([])
        reached("compaction shown")
        return True

    def state(self) -> CollectionState:
        """Return what is held."""
        slides = self.view.slides
        return CollectionState(
            collection=self.collection,
            slides=int(np.count_nonzero(slides.committed & slides.is_home)),
            postings=int(slides.postings[slides.committed].sum()),
            pending=slides.n_pending,
            label_counts=slides.described_labels(),
        )

    def _show(self, removed: list[int]) -> None:
        """Replace the view; headers of ``removed`` go once it and all views before it are gone."""
        self._retired.append((weakref.ref(self.view), removed))
        self.view = self._new_view()
        while self._retired and self._retired[0][0]() is None:
            for ordinal in self._retired.popleft()[1]:
                self.ledger.release(ordinal)
                self.vectors.release(ordinal)

    def _new_view(self) -> View:
        vectors = self.vectors.view(len(self.ledger))
        return View(self.index.snapshot(), self.ledger.view(), vectors)

    def _insert(self) -> None:
        ordinals, patches = zip(*self._inserts, strict=True)
        lengths = [len(columns) for columns in patches]
        self.index.insert(
            keys=np.concatenate([columns.keys for columns in patches]),
            codes=np.concatenate([columns.codes for columns in patches]),
            ordinals=np.repeat(np.array(ordinals, np.uint32), lengths),
            numbers=np.concatenate([columns.numbers for columns in patches]),
            corners=np.concatenate([columns.corners for columns in patches]),
        )
