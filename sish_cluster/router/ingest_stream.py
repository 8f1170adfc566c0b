"""A stream of slides, many on their way at once, each with its own fate.

The stream is read only as fast as slides are stored and their fates are taken, so memory stays bounded;
a fate is told as soon as it is known, whether or not another slide follows. A slide that fails never
stops the others.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable

from sish_cluster.core.errors import Internal, SishError
from sish_cluster.core.posting import EncodedSlide
from sish_cluster.core.seams import IngestOutcome

_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class IngestFailure:
    """Why one slide of a stream is not acknowledged."""

    slide_id: str
    version: str
    error: SishError


Fate = IngestOutcome | IngestFailure
"""What became of one slide."""


class IngestStream:
    """Ingests a stream of slides.

    Parameters
    ----------
    ingest
        Stores one slide.
    slides
        The stream; a failure in it (a slide that came damaged) is passed on as that slide's fate.
    in_flight
        Most slides between being read and their fate being taken.
    """

    def __init__(
        self,
        ingest: Callable[[EncodedSlide], Awaitable[IngestOutcome]],
        slides: AsyncIterator[EncodedSlide | IngestFailure],
        *,
        in_flight: int,
    ) -> None:
        self._ingest = ingest
        self._slides = slides
        self._room = asyncio.Semaphore(in_flight)
        self._fates: asyncio.Queue[Fate | None] = asyncio.Queue()
        self._running: set[asyncio.Task[None]] = set()

    async def fates(self) -> AsyncGenerator[Fate, None]:
        """Yield the fate of each slide, in the order they come true; to be run once.

        When the reader leaves early, slides on their way are cancelled; they are repeated safely.
        """
        reader = asyncio.create_task(self._read())
        try:
            while (fate := await self._fates.get()) is not None:
                self._room.release()
                yield fate
            await reader
        finally:
            tasks = [reader, *self._running]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _read(self) -> None:
        try:
            async for slide in self._slides:
                await self._room.acquire()
                task = asyncio.create_task(self._tell(slide))
                self._running.add(task)
                task.add_done_callback(self._running.discard)
            await asyncio.gather(*self._running)
        finally:
            self._fates.put_nowait(None)

    async def _tell(self, slide: EncodedSlide | IngestFailure) -> None:
        self._fates.put_nowait(await self._fate_of(slide))

    async def _fate_of(self, slide: EncodedSlide | IngestFailure) -> Fate:
        if isinstance(slide, IngestFailure):
            return slide
        slide_id, version = slide.slide.slide_id, slide.version
        try:
            return await self._ingest(slide)
        except SishError as error:
            return IngestFailure(slide_id, version, error)
        except Exception as error:
            _LOG.exception("ingest of slide %r failed unexpectedly", slide_id)
            bug = f"ingest of slide {slide_id!r} failed unexpectedly ({type(error).__name__})"
            return IngestFailure(slide_id, version, Internal(f"{bug}: please report it"))
