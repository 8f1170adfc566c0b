"""How patient a client is, and how much it sends at once."""

from __future__ import annotations

import dataclasses

from sish_cluster.core.errors import BadRequest


@dataclasses.dataclass(frozen=True, slots=True)
class ClientSettings:
    """Time-outs, retries and back-pressure of a client."""

    timeout_s: float = 30.0
    """Seconds for a read, retries included: a 100-patch exact search of ten million postings takes
    about ten seconds on one core; beyond that a person has stopped waiting."""
    ingest_timeout_s: float = 120.0
    """Seconds for one slide's ingest, retries included: a shard that was killed is back within
    seconds, a drained node within a minute or two."""
    attempts: int = 4
    """Tries of a read that found the cluster unavailable; a person waits, so only a few."""
    backoff_s: float = 0.1
    """Seconds before the second try; doubled each time, with jitter, so that clients spread."""
    max_backoff_s: float = 5.0
    """Longest seconds between tries: longer would leave a cluster idle that is back."""
    window: int = 8
    """Slides on their way at once: enough for a shard to commit them as a group, few enough that
    memory holds only megabytes."""

    def __post_init__(self) -> None:
        for name in ("timeout_s", "ingest_timeout_s", "backoff_s", "max_backoff_s"):
            if not getattr(self, name) > 0:
                raise BadRequest(f"{name} must be above 0; found {getattr(self, name)}", field=name)
        for name in ("attempts", "window"):
            if getattr(self, name) < 1:
                raise BadRequest(
                    f"{name} must be 1 or more; found {getattr(self, name)}", field=name
                )
