"""What a shard is told when it starts: where its data lies, what it owns, how much it may use."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from sish_cluster.core.errors import BadRequest
from sish_cluster.core.topology import KeyRange, Selector

DEFAULT_MAP_BYTES = 1 << 40
"""1 TiB of address space for a new store: sparse, so only what is written takes disk; far above what
one shard's memory can index."""

EVERY_SLIDE = Selector()
"""The selector of a shard that owns every slide."""

EVERY_KEY = KeyRange()
"""The range of a shard that owns every key."""

CHECKPOINT_POSTINGS = 100_000
"""1e5: fewer load from the store in a fraction of a second, so that a checkpoint gains nothing."""

SMALLEST_MAP_BYTES = 256 << 10
"""256 KiB: below this LMDB cannot hold even the tables."""


@dataclasses.dataclass(frozen=True, slots=True)
class ShardSettings:
    """Settings of one shard; the defaults suit a server with the machine to itself."""

    data_dir: Path
    """Folder on a local disk that holds the store; made when missing, one process at a time."""
    name: str = "shard"
    """Name in the topology, in logs and in errors."""
    selector: Selector = EVERY_SLIDE
    """Labels a slide must have to belong here; none means every slide."""
    range: KeyRange = EVERY_KEY
    """Keys this shard owns, half-open."""
    map_bytes: int | None = None
    """Bytes the store may grow to; None keeps the data directory's own limit (new: 1 TiB)."""
    group_slides: int = 64
    """Most changes of one durable commit: 64 slides reach 8 times the rate of single commits."""
    group_wait_s: float = 0.002
    """Seconds a commit waits for company: 2 ms, about the time one durable commit takes."""
    queue_slides: int = 1024
    """Changes waiting for the writer before callers have to wait: 15 MB of 100-patch slides."""
    search_threads: int = dataclasses.field(default_factory=lambda: os.cpu_count() or 1)
    """Threads that search; a search that is alone uses all of them."""
    search_queue: int = 256
    """Searches waiting for a thread before more are sent away with `Unavailable`."""

    checkpoint_postings: int = CHECKPOINT_POSTINGS
    """Postings that must have come or gone before a checkpoint is written, while serving or when the
    shard closes."""
    checkpoint_share: float = 0.25
    """Share of a collection's postings that must have come or gone before a checkpoint is written
    while serving: growing then writes each posting about five times, and a restart after a kill reads at
    most this share from the store."""
    checkpoint_every_s: float = 300.0
    """Seconds after which one is written whatever the share, where changes never pause: five minutes, so
    that slides that trickle in do not keep a restart far behind; the disk writes the whole each time."""
    checkpoint_idle_s: float = 30.0
    """Seconds without a change after which one is written whatever the share: 30 s, so that bulk ingest
    does not pay for it, and a kill some time after it finds a checkpoint with everything in it."""

    def __post_init__(self) -> None:
        if self.map_bytes is not None and self.map_bytes < SMALLEST_MAP_BYTES:
            raise BadRequest(
                f"the store's map size must be at least {SMALLEST_MAP_BYTES} bytes (256 KiB);"
                f" found {self.map_bytes}",
                field="map_bytes",
            )
        counts = (
            "group_slides",
            "queue_slides",
            "search_threads",
            "search_queue",
            "checkpoint_postings",
        )
        for name in counts:
            if getattr(self, name) < 1:
                raise BadRequest(
                    f"{name} must be at least 1; found {getattr(self, name)}", field=name
                )
        for name in ("checkpoint_every_s", "checkpoint_idle_s"):
            if getattr(self, name) <= 0.0:
                raise BadRequest(f"{name} must be above 0; found {getattr(self, name)}", field=name)
        if not 0.0 <= self.checkpoint_share <= 1.0:
            raise BadRequest(
                f"checkpoint_share must be 0..1; found {self.checkpoint_share}",
                field="checkpoint_share",
            )
