"""What became of one slide of an ingest."""

from __future__ import annotations

import dataclasses

from sish_cluster.core.errors import SishError


@dataclasses.dataclass(frozen=True, slots=True)
class SlideOutcome:
    """One slide's fate: durable, or refused with its error.

    Parameters
    ----------
    slide_id, version
        Which slide.
    was_stored
        Whether this version was stored already.
    error
        Why it is not stored; None when it is durable on every shard concerned.
    """

    slide_id: str
    version: str
    was_stored: bool = False
    error: SishError | None = None

    @property
    def is_durable(self) -> bool:
        """Whether the slide is stored."""
        return self.error is None
