"""Entries: what ordinals stand for.

Headers are asked for rarely and weigh as much as three postings each. Those of slides that a checkpoint
has stay in its file, which is mapped, and come to memory when they are asked for; the latest understood
are remembered. Headers of slides that came later are kept here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

import numpy as np
import numpy.typing as npt

from sish_cluster.shard import records
from sish_cluster.shard.records import SlideRecord

MOST_UNDERSTOOD = 4096
"""Entries of a checkpoint's slides that are remembered: 5 MB, more slides than some searches find."""


class Entry:
    """One (slide, version) held: its header, and its serial in the store.

    Parameters
    ----------
    serial
        Number of the slide in the store.
    header
        The header, or its payload, which is understood when it is first asked for.
    """

    __slots__ = ("_header", "serial")

    def __init__(self, serial: int, header: SlideRecord | bytes) -> None:
        self.serial = serial
        self._header = header

    @property
    def record(self) -> SlideRecord:
        """The header."""
        header = self._header
        if isinstance(header, bytes):
            header = self._header = records.header_from(header)
        return header

    @property
    def payload(self) -> bytes:
        """The header as the store keeps it; kept so, since it is smaller and the next asker's too."""
        header = self._header
        if not isinstance(header, bytes):
            header = self._header = records.slide_payload(header)
        return header


class Headers:
    """Serials and headers of a checkpoint's slides, by row.

    Parameters
    ----------
    serials
        uint64 (slides,).
    payloads
        uint8: all headers as the store keeps them, one after another.
    ends
        int64 (slides,): where each header ends.
    """

    def __init__(
        self,
        serials: npt.NDArray[np.uint64],
        payloads: npt.NDArray[np.uint8],
        ends: npt.NDArray[np.int64],
    ) -> None:
        self._serials = serials
        self._payloads = payloads
        self._ends = ends

    def __len__(self) -> int:
        return len(self._serials)

    def entry(self, row: int) -> Entry:
        """Return a slide's entry."""
        start = int(self._ends[row - 1]) if row else 0
        return Entry(
            int(self._serials[row]), self._payloads[start : int(self._ends[row])].tobytes()
        )


NO_HEADERS = Headers(np.zeros(0, np.uint64), np.zeros(0, np.uint8), np.zeros(0, np.int64))
"""What there is without a checkpoint."""


class Entries(Sequence[Entry | None]):
    """Entries by ordinal; None for an ordinal that stands for no slide, or no more.

    The writer's thread changes them; any thread may read ordinals its view has.

    Parameters
    ----------
    headers
        Of the ordinals from 0 on.
    is_held
        bool (slides,): which of those stand for a slide.
    """

    def __init__(
        self, headers: Headers = NO_HEADERS, is_held: npt.NDArray[np.bool_] | None = None
    ) -> None:
        self._headers = headers
        self._is_held = np.zeros(len(headers), np.bool_) if is_held is None else is_held.copy()
        self._changed: dict[int, Entry] = {}
        self._understood: dict[int, Entry] = {}
        self._later: list[Entry | None] = []

    def __len__(self) -> int:
        return len(self._headers) + len(self._later)

    @overload
    def __getitem__(self, ordinal: int) -> Entry | None: ...
    @overload
    def __getitem__(self, ordinal: slice) -> Sequence[Entry | None]: ...
    def __getitem__(self, ordinal: int | slice) -> Entry | Sequence[Entry | None] | None:
        if isinstance(ordinal, slice):
            return [self[i] for i in range(*ordinal.indices(len(self)))]
        if not 0 <= ordinal < len(self):
            raise IndexError(f"ordinal {ordinal} of {len(self)}")
        n_kept = len(self._headers)
        return self._later[ordinal - n_kept] if ordinal >= n_kept else self._kept(ordinal)

    def append(self, entry: Entry | None) -> None:
        """Add the next ordinal's."""
        self._later.append(entry)

    def replace(self, ordinal: int, entry: Entry) -> None:
        """Let an ordinal stand for another header of the same slide."""
        if ordinal >= len(self._headers):
            self._later[ordinal - len(self._headers)] = entry
            return
        self._changed[ordinal] = entry
        self._understood.pop(ordinal, None)

    def release(self, ordinal: int) -> None:
        """Let go of an ordinal's entry."""
        if ordinal >= len(self._headers):
            self._later[ordinal - len(self._headers)] = None
            return
        self._is_held[ordinal] = False
        self._changed.pop(ordinal, None)
        self._understood.pop(ordinal, None)

    def _kept(self, ordinal: int) -> Entry | None:
        entry = self._changed.get(ordinal) or self._understood.get(ordinal)
        if entry is not None or not self._is_held[ordinal]:
            return entry
        if len(self._understood) >= MOST_UNDERSTOOD:
            self._understood.clear()
        return self._understood.setdefault(ordinal, self._headers.entry(ordinal))
