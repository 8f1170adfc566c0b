"""A reader of slides as an actor: one slide at a time, and how far it is.

The same class reads on a thread of this process and in a process of its own under Ray. It needs OpenSlide,
OpenCV and numpy, and no network: importing this module imports no torch, which would cost each reader 300 MB.
"""

from __future__ import annotations

from collections.abc import Iterator

from sish_cluster.core.errors import Cancelled
from sish_cluster.core.seams import Embedder, Pixels
from sish_cluster.encoder.catalogue import CatalogueEntry
from sish_cluster.encoder.lane import Stage
from sish_cluster.encoder.reading import Cut, read_slide
from sish_cluster.encoder.settings import EncoderSettings


class SlideReaderActor:
    """Reads one slide at a time; says meanwhile how far it is. The same class here and under Ray.

    Parameters
    ----------
    settings
        Which patches, and the side they are read at.
    embedder
        Embeds candidates for the selectors that go by embeddings.
    batch_patches
        Patches read together.
    """

    def __init__(
        self, settings: EncoderSettings, embedder: Embedder, *, batch_patches: int = 1
    ) -> None:
        self._settings = settings
        self._embedder = embedder
        self._batch_patches = batch_patches
        self._stage = Stage("")
        self._cancelled = ""

    def items(self, entry: CatalogueEntry, ticket: str) -> Iterator[Cut | Pixels]:
        """Yield a slide's `Cut`, then its batches of patches."""
        self._stage = Stage(ticket)

        def note(name: str, done: int, total: int) -> None:
            if self._stage.ticket != ticket or self._cancelled == ticket:
                raise Cancelled(f"{entry.path}: encoding was cancelled at patch {done} of {total}")
            self._stage = Stage(ticket, name, done, total)

        return read_slide(
            entry, self._settings, self._embedder, batch_patches=self._batch_patches, tell=note
        )

    def stage(self) -> Stage:
        """Return how far the last slide is read."""
        return self._stage

    def cancel(self, ticket: str) -> None:
        """Stop the job ``ticket`` before its next patch."""
        self._cancelled = ticket

    def restart(self) -> None:
        """Give up what is being read: its thread stops at its next patch, if there ever is one."""
        self._stage = Stage("")

    def close(self) -> None:
        """Give up what is being read."""
        self.restart()
