"""The ledger: what a collection's slides are, in memory, by ordinal.

An ordinal is the place of one (slide, version) since the shard was opened; it is what the index stores
with every posting. Ordinals are never given twice, so a column's entry never changes once written, and
a reader may use the columns below its view's length without a lock. What does change, which ordinals
are committed, is copied into each view. Labels are columns of small integers, so that a filter over
1e5 slides is a few numpy operations.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from sish_cluster.core.query import Filter
from sish_cluster.core.seams import SlideState
from sish_cluster.core.slide import NAMED_LABELS, UNKNOWN, Slide
from sish_cluster.shard.entries import Entries, Entry, Headers
from sish_cluster.shard.records import SlideRecord
from sish_cluster.shard.scope import Passing
from sish_cluster.shard.selections import FILTERS_KEPT, FilterKey, Selections, key_of_filter

MOST_LABEL_VALUES = 1000
"""A label with more values than this is left out of a collection's description: it names things
(patients, blocks), and its counts would not fit a message."""

Flags = npt.NDArray[np.bool_]
Ordinals = npt.NDArray[np.uint32]


class Column:
    """A growing array that readers may hold while it grows."""

    def __init__(self, dtype: npt.DTypeLike, first: npt.ArrayLike = ()) -> None:
        self._array = np.zeros(max(64, len(np.asarray(first))), dtype)
        self._array[: len(np.asarray(first))] = first

    def put(self, place: int, value: int) -> None:
        """Write ``value`` at ``place``; cost O(1) amortised."""
        if place >= len(self._array):
            grown = np.zeros(max(2 * len(self._array), place + 1), self._array.dtype)
            grown[: len(self._array)] = self._array
            self._array = grown
        self._array[place] = value

    def at(self, place: int) -> int:
        """Return the value at a place, 0 where none was ever written."""
        return int(self._array[place]) if place < len(self._array) else 0

    def head(self, length: int) -> npt.NDArray[np.generic]:
        """Return the first ``length`` values; places never written hold 0."""
        array = self._array
        if length > len(array):
            return np.concatenate([array, np.zeros(length - len(array), array.dtype)])
        return array[:length]


class LabelColumn:
    """One label of every slide: values numbered from 0, which is the unknown value."""

    def __init__(self, values: Sequence[str] = (UNKNOWN,), numbers: npt.ArrayLike = ()) -> None:
        self.values: list[str] = list(values)
        self._number_of: dict[str, int] = {value: n for n, value in enumerate(self.values)}
        self._column = Column(np.int32, numbers)

    def put(self, ordinal: int, value: str) -> None:
        """Write an ordinal's value."""
        number = self._number_of.get(value)
        if number is None:
            number = len(self.values)
            self.values.append(value)
            self._number_of[value] = number
        if number:
            self._column.put(ordinal, number)

    def number_of(self, value: str) -> int | None:
        """Return a value's number, or None where no slide ever had it."""
        return self._number_of.get(value)

    def numbers(self, length: int) -> npt.NDArray[np.generic]:
        """Return the value number of the first ``length`` ordinals."""
        return self._column.head(length)

    def has_any(self, values: Iterable[str], length: int, first: int = 0) -> Flags:
        """Return which of the ordinals from ``first`` up to ``length`` have one of ``values``."""
        known = [self._number_of[value] for value in values if value in self._number_of]
        return np.asarray(np.isin(self.numbers(length)[first:], known))


class Ledger:
    """Every slide of one collection; changed by the writer's thread only."""

    def __init__(self) -> None:
        self.entries = Entries()
        self.labels: dict[str, LabelColumn] = {n: LabelColumn() for n in ("slide", *NAMED_LABELS)}
        self._postings = Column(np.int64)
        self._is_home = Column(np.bool_)
        self._is_committed = Column(np.bool_)
        self._committed_past = Column(np.int64)  # by a slide id's number: one past its ordinal
        self._pending: dict[str, dict[str, int]] = {}
        self._selections = Selections()

    @classmethod
    def restored(
        cls,
        headers: Headers,
        labels: Mapping[str, LabelColumn],
        *,
        is_held: Flags,
        postings: npt.NDArray[np.int64],
        is_home: Flags,
        is_committed: Flags,
    ) -> Ledger:
        """Return the ledger of columns kept by ordinal; an ordinal that is not held is gone."""
        ledger = cls()
        ledger.entries = Entries(headers, is_held)
        ledger.labels.update(labels)
        ledger._postings = Column(np.int64, postings)
        ledger._is_home = Column(np.bool_, is_home)
        ledger._is_committed = Column(np.bool_, is_committed & is_held)
        ids = ledger.labels["slide"]
        committed = np.flatnonzero(is_committed & is_held)
        past = np.zeros(len(ids.values), np.int64)
        past[ids.numbers(len(headers))[committed]] = committed + 1
        ledger._committed_past = Column(np.int64, past)
        for ordinal in np.flatnonzero(~is_committed & is_held).tolist():
            record = ledger.entry(ordinal).record
            ledger._pending.setdefault(record.slide.slide_id, {})[record.version] = ordinal
        return ledger

    def __len__(self) -> int:
        return len(self.entries)

    def add(self, serial: int, record: SlideRecord) -> int:
        """Add a slide and return its ordinal; a committed one takes its id's place."""
        ordinal = len(self.entries)
        slide = record.slide
        self.labels["slide"].put(ordinal, slide.slide_id)
        for name in NAMED_LABELS:
            self.labels[name].put(ordinal, getattr(slide, name))
        for name, value in slide.labels.items():
            if name not in self.labels:
                self.labels[name] = LabelColumn()
            self.labels[name].put(ordinal, value)
        self._postings.put(ordinal, record.postings)
        self._is_home.put(ordinal, record.is_home)
        self._is_committed.put(ordinal, record.state is SlideState.COMMITTED)
        self.entries.append(Entry(serial, record))
        if record.state is SlideState.COMMITTED:
            self._set_committed(slide.slide_id, ordinal)
        else:
            self._pending.setdefault(slide.slide_id, {})[record.version] = ordinal
        return ordinal

    def reserve(self) -> int:
        """Return an ordinal that stands for no slide, for rows that are forgotten already."""
        self.entries.append(None)
        return len(self.entries) - 1

    def commit(self, ordinal: int) -> None:
        """Turn a pending ordinal into its slide's committed one."""
        entry = self.entry(ordinal)
        self._forget_pending(entry.record)
        self._set_committed(entry.record.slide.slide_id, ordinal)
        self._is_committed.put(ordinal, True)
        self.entries.replace(ordinal, Entry(entry.serial, entry.record.committed()))

    def remove(self, ordinal: int) -> None:
        """Remove an ordinal; its slide's other versions stay."""
        record = self.entry(ordinal).record
        slide_id = record.slide.slide_id
        if self.committed_of(slide_id) == ordinal:
            self._set_committed(slide_id, None)
        if self._pending.get(slide_id, {}).get(record.version) == ordinal:
            self._forget_pending(record)
        self._is_committed.put(ordinal, False)

    def release(self, ordinal: int) -> None:
        """Let go of a removed ordinal's header, once no view can ask for it."""
        self.entries.release(ordinal)

    def entry(self, ordinal: int) -> Entry:
        """Return what an ordinal that was not released stands for."""
        entry = self.entries[ordinal]
        assert entry is not None, f"ordinal {ordinal} was released"
        return entry

    def committed_of(self, slide_id: str) -> int | None:
        """Return the ordinal of a slide's committed version."""
        number = self.labels["slide"].number_of(slide_id)
        past = 0 if number is None else self._committed_past.at(number)
        return past - 1 if past else None

    def pending_of(self, slide_id: str) -> Mapping[str, int]:
        """Return version -> ordinal of a slide's pending versions."""
        return self._pending.get(slide_id, {})

    def pending(self) -> list[int]:
        """Return the ordinals of all pending versions by slide id."""
        pending = list(self._pending.items())
        return [ordinal for _, versions in sorted(pending) for ordinal in list(versions.values())]

    def view(self) -> LedgerView:
        """Return what readers may see from now on; cost one byte per ordinal."""
        n = len(self.entries)
        committed = np.array(self._is_committed.head(n), np.bool_)
        committed.flags.writeable = False
        return LedgerView(
            entries=self.entries,
            labels=self.labels,
            committed=committed,
            is_home=np.asarray(self._is_home.head(n), np.bool_),
            postings=np.asarray(self._postings.head(n), np.int64),
            n_pending=sum(map(len, self._pending.values())),
            selections=self._selections,
        )

    def _set_committed(self, slide_id: str, ordinal: int | None) -> None:
        number = self.labels["slide"].number_of(slide_id)
        assert number is not None, f"slide {slide_id!r} has no ordinal"
        self._committed_past.put(number, 0 if ordinal is None else ordinal + 1)

    def _forget_pending(self, record: SlideRecord) -> None:
        versions = self._pending[record.slide.slide_id]
        del versions[record.version]
        if not versions:
            del self._pending[record.slide.slide_id]


@dataclasses.dataclass(frozen=True, eq=False)
class LedgerView:
    """The ledger at one moment, for any number of readers.

    Parameters
    ----------
    entries, labels
        The ledger's own, read only below this view's length.
    committed
        bool (n,): which ordinals may be found.
    is_home, postings
        bool and int64 (n,), by ordinal.
    n_pending
        Pending versions.
    selections
        What filters select, kept from view to view.
    """

    entries: Entries
    labels: Mapping[str, LabelColumn]
    committed: Flags
    is_home: Flags
    postings: npt.NDArray[np.int64]
    n_pending: int
    selections: Selections
    _eligible: dict[FilterKey, Flags] = dataclasses.field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.committed)

    def eligible(self, where: Filter) -> Flags:
        """Return which ordinals are committed and pass the filter: a read-only array, kept."""
        passing = self.passing(where)
        if passing is None:
            return self.committed
        key = key_of_filter(where)
        flags = self._eligible.get(key)
        if flags is None:
            flags = self.committed & passing.flags(len(self))
            flags.flags.writeable = False
            if len(self._eligible) >= FILTERS_KEPT:
                self._eligible.clear()
            flags = self._eligible.setdefault(key, flags)
        return flags

    def passing(self, where: Filter) -> Passing | None:
        """Return which ordinals pass the filter, committed or not; None where the filter is empty."""
        if not where:
            return None
        return self.selections.passing(
            where, len(self), lambda first: self._passes(where, first), self.n_held
        )

    @functools.cached_property
    def n_held(self) -> int:
        """Postings of all ordinals, committed or not."""
        return int(self.postings.sum())

    def _passes(self, where: Filter, first: int) -> Flags:
        flags = np.ones(len(self) - first, np.bool_)
        for name, values in where.keep.items():
            flags &= self._has_any(name, values, first)
        for name, values in where.leave_out.items():
            flags &= ~self._has_any(name, values, first)
        return flags

    def _has_any(self, name: str, values: frozenset[str], first: int = 0) -> Flags:
        column = self.labels.get(name)
        if column is None:
            return np.full(len(self) - first, UNKNOWN in values)
        return column.has_any(values, len(self), first)

    def label_counts(self, name: str, chosen: Flags) -> dict[str, int]:
        """Return value -> chosen slides; slides without the label are not counted."""
        column = self.labels.get(name)
        if column is None:
            return {}
        counts = np.bincount(column.numbers(len(self))[chosen].astype(np.int64))
        return {column.values[i]: int(counts[i]) for i in np.flatnonzero(counts) if i}

    def described_labels(self) -> dict[str, dict[str, int]]:
        """Return label -> value -> committed slides at home, without labels that name things."""
        chosen = self.committed & self.is_home
        described = {}
        for name in sorted(self.labels):
            counts = self.label_counts(name, chosen) if name != "slide" else {}
            if 0 < len(counts) <= MOST_LABEL_VALUES:
                described[name] = counts
        return described

    def entry(self, ordinal: int) -> Entry:
        """Return what an ordinal of this view stands for."""
        entry = self.entries[ordinal]
        assert entry is not None, f"ordinal {ordinal} was released under a view"
        return entry

    def committed_entry(self, slide_id: str) -> Entry | None:
        """Return a slide's committed version, at home here or not."""
        chosen = np.flatnonzero(self.committed & self._has_any("slide", frozenset({slide_id})))
        return self.entry(int(chosen[0])) if len(chosen) else None

    def slide_ids_of(self, ordinals: Ordinals) -> list[str]:
        """Return the slide ids of ordinals."""
        column = self.labels["slide"]
        return [column.values[n] for n in column.numbers(len(self))[ordinals].tolist()]

    def slides_of(self, ordinals: Ordinals) -> list[Slide]:
        """Return the slides of ordinals."""
        return [self.entry(o).record.slide for o in ordinals.tolist()]

    def home_entries(self, slide_id: str = "") -> Iterator[Entry]:
        """Yield the committed slides at home by slide id; only ``slide_id`` when given."""
        chosen = self.committed & self.is_home
        if slide_id:
            chosen = chosen & self._has_any("slide", frozenset({slide_id}))
        ordinals = np.flatnonzero(chosen).astype(np.uint32)
        listed = sorted(zip(self.slide_ids_of(ordinals), ordinals.tolist(), strict=True))
        yield from [self.entry(ordinal) for _, ordinal in listed]
