"""How the router behaves: times, bounds, ranking."""

from __future__ import annotations

import dataclasses

from sish_cluster.core.errors import BadRequest
from sish_cluster.router.ranking.settings import RankingSettings


@dataclasses.dataclass(frozen=True, slots=True)
class RouterSettings:
    """Settings of one router."""

    slack_s: float = 0.05
    """Seconds kept back from a caller's deadline for merge, ranking and the way home."""
    call_cap_s: float = 120.0
    """Most seconds any one call to a shard may take, however long the caller would wait."""
    slides_in_flight: int = 32
    """Slides of one ingest stream that are on their way to shards at a time: enough for the shards'
    group commits to fill, few enough to bound memory (a slide is some tens of kB)."""
    pending_limit_s: float = 900.0
    """Age in seconds at which a slide that is not committed at home is given up: well beyond
    ``call_cap_s``, so that no living ingest is cancelled."""
    pending_grace_s: float = 5.0
    """Age in seconds below which the janitor leaves a pending slide to the ingest that began it."""
    janitor_interval_s: float = 60.0
    """Seconds between the janitor's sweeps."""
    scan_bytes_per_s: float = 2e10
    """Bytes of codes an exact search is taken to compare per second until this router has measured its own:
    half of what a machine of two cores did (1e6 codes of 128 bytes and 87 patches in 0.2 to 0.3 s)."""
    exact_share: float = 0.25
    """AUTO runs EXACT only while its estimate is at most this share of the time left: an estimate may be
    off by a few times, and merge and ranking need some too."""
    exact_limit_s: float = 5.0
    """AUTO runs EXACT for at most this many estimated seconds, however late the deadline: other searches
    wait for the same cores."""
    ranking: RankingSettings = RankingSettings()  # noqa: RUF009 (frozen)
    """Constants of ranking."""

    def __post_init__(self) -> None:
        if min(self.slack_s, self.pending_grace_s) < 0 or self.slides_in_flight < 1:
            raise BadRequest(
                "a router needs slack_s >= 0, pending_grace_s >= 0 and slides_in_flight >= 1;"
                f" found {self.slack_s}, {self.pending_grace_s}, {self.slides_in_flight}"
            )
        if not (
            self.scan_bytes_per_s > 0 and 0 <= self.exact_share <= 1 and self.exact_limit_s >= 0
        ):
            raise BadRequest(
                "a router needs scan_bytes_per_s > 0, exact_share 0..1 and exact_limit_s >= 0; found"
                f" {self.scan_bytes_per_s}, {self.exact_share}, {self.exact_limit_s}"
            )
        if self.pending_limit_s <= self.call_cap_s:
            raise BadRequest(
                f"pending_limit_s ({self.pending_limit_s}) must exceed call_cap_s"
                f" ({self.call_cap_s}), or a slow ingest would be cancelled while it runs"
            )
