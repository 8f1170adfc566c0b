"""Embeddings out of the store: each record checked, each slide complete, straight into their blocks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from sish_cluster.core.errors import Corrupt
from sish_cluster.shard import records
from sish_cluster.shard.records import Kind
from sish_cluster.shard.store import LAST_SERIAL, Rows
from sish_cluster.shard.vectors import SlideVectors


class StoredVectors:
    """A collection's embeddings as they are read; embeddings that no slide should have are damage.

    Parameters
    ----------
    dimensions
        Numbers of an embedding; 0 where the collection keeps none.
    postings
        Serial -> rows of each slide that has a header.
    keeps_rows
        Whether the embeddings are wanted, or only their check.

    Attributes
    ----------
    damage
        Serial -> what was first found wrong with its records.
    """

    def __init__(self, dimensions: int, postings: Mapping[int, int], *, keeps_rows: bool) -> None:
        self._dimensions = dimensions
        self._postings = postings
        self._chunks = dict.fromkeys(postings, 0)
        self._keeps_rows = keeps_rows
        self._blocks: dict[int, SlideVectors] = {}
        self.damage: dict[int, Corrupt] = {}

    def fill(self, rows: Rows, span: tuple[int, int] = (0, LAST_SERIAL)) -> None:
        """Read every record of a span of serials."""
        for address, record in rows(Kind.EMBEDDING, *span):
            serial = records.serial_of(address)
            try:
                self._take(serial, address, record)
            except Corrupt as error:
                self.damage.setdefault(serial, error)
        for serial, n_rows in self._postings.items():
            self._check_count(serial, n_rows)

    def blocks(self) -> dict[int, SlideVectors]:
        """Return serial -> embeddings of every sound slide that has postings, measured."""
        sound = [serial for serial in self._blocks if serial not in self.damage]
        return {serial: self._blocks[serial].measured() for serial in sound}

    def _take(self, serial: int, address: Any, record: Any) -> None:
        payload = records.opened(Kind.EMBEDDING, address, record)
        start = self._start(serial, int.from_bytes(address[12:16], "big"), address)
        n_rows = min(self._rows_per_chunk, self._postings[serial] - start)
        if len(payload) != 2 * self._dimensions * n_rows:
            raise records.damaged(
                Kind.EMBEDDING, address, f"holds {len(payload)} bytes for {n_rows} rows"
            )
        self._chunks[serial] += 1
        if self._keeps_rows:
            if serial not in self._blocks:
                room = SlideVectors.room(self._postings[serial], self._dimensions)
                self._blocks[serial] = room
            halves = np.frombuffer(payload, "<f2").reshape(n_rows, self._dimensions)
            self._blocks[serial].rows[start : start + n_rows, : self._dimensions] = halves

    @property
    def _rows_per_chunk(self) -> int:
        return records.embedding_rows_of(self._dimensions)

    def _start(self, serial: int, chunk: int, address: Any) -> int:
        """Return the first row of a chunk."""
        start = chunk * self._rows_per_chunk if self._dimensions else 0
        if not self._dimensions or start >= self._postings.get(serial, 0):
            raise records.damaged(
                Kind.EMBEDDING, address, "belongs to no sound slide header with embeddings"
            )
        return start

    def _check_count(self, serial: int, n_rows: int) -> None:
        expected = -(-n_rows // self._rows_per_chunk) if self._dimensions else 0
        if self._chunks[serial] == expected or serial in self.damage:
            return
        self.damage[serial] = Corrupt(
            f"it has {self._chunks[serial]} of its {expected} EMBEDDING records: restore a backup, or"
            " drop it with `sish shard check --drop-damaged` and ingest it again",
            metadata={"serial": str(serial), "kind": "EMBEDDING"},
        )
