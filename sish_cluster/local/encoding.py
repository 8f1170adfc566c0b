"""Who encodes: this machine's actors, or an encoder service elsewhere; one protocol for both.

Nothing heavy is imported here until a `LocalEncoder` is asked: a core install can index and search through
an encoder service.
"""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import dataclasses
import functools
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from sish_cluster.client import EncoderClient, EncoderDescription
from sish_cluster.client.loop_thread import LoopThread
from sish_cluster.client.retry import UNLIMITED, Retry
from sish_cluster.client.settings import ClientSettings
from sish_cluster.core.clock import Deadline
from sish_cluster.core.errors import BadRequest, SishError
from sish_cluster.core.posting import EncodedSlide
from sish_cluster.core.slide import Slide

if TYPE_CHECKING:
    from sish_cluster.encoder.region import Region
    from sish_cluster.encoder.settings import EncoderSettings

SERVICE_TIMEOUT_S = 3600.0
"""Seconds for one slide at an encoder service, waiting for its queue included."""


@dataclasses.dataclass(frozen=True, slots=True)
class SlideToEncode:
    """One file to encode: where it is, who it is, its mpp where the file states none; or a region of it."""

    path: Path
    slide: Slide
    mpp: float | None = None
    region: Region | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class SlideFailure:
    """A slide that could not be encoded or stored, and what to do about it."""

    slide_id: str
    problem: str


@dataclasses.dataclass(frozen=True, slots=True)
class SlideProgress:
    """How far one slide is: patches done of patches in all (0 while unknown)."""

    slide_id: str
    stage: str
    done: int
    total: int


Encoding = Generator[EncodedSlide | SlideFailure, None, None]
"""Slides as they are ready; closing it stops those that are still being encoded."""

Watch = Callable[[SlideProgress], None]
"""Called, on any thread, as slides advance."""


def unwatched(progress: SlideProgress) -> None:
    """Ignore progress."""


class SlideEncoder(Protocol):
    """Turns slide files into encoded slides."""

    @property
    def description(self) -> EncoderDescription:
        """What it is: fingerprint, code bits, where the weights come from."""

    def encoded(
        self,
        slides: Sequence[SlideToEncode],
        *,
        watch: Watch = unwatched,
        wants_embeddings: bool = False,
    ) -> Encoding:
        """Yield each slide as it is ready, in any order; a failure never stops the others."""


@dataclasses.dataclass(frozen=True)
class LocalEncoder:
    """An encoder on this machine: actors that Ray manages, or one in this process.

    Parameters
    ----------
    settings
        Networks and mosaic; None takes the defaults.
    use_ray
        Whether Ray manages the actors.
    ray_address
        A running Ray cluster; None starts one here.
    n_actors, min_actors
        Most actors, None for one per core; those there always are, None for all of them.
    n_readers
        Readers of slides; None takes one an actor.
    cache
        Folder of encoded slides; None keeps none.
    """

    settings: EncoderSettings | None = None
    use_ray: bool = False
    ray_address: str | None = None
    n_actors: int | None = None
    min_actors: int | None = None
    n_readers: int | None = None
    cache: Path | None = None

    @functools.cached_property
    def _settings(self) -> EncoderSettings:
        from sish_cluster.encoder.settings import EncoderSettings

        return self.settings or EncoderSettings()

    @functools.cached_property
    def description(self) -> EncoderDescription:
        """What it is; reads the weights once."""
        from sish_cluster.encoder.pipeline import description_of

        found = description_of(self._settings)
        return EncoderDescription(
            found.profile,
            found.fingerprint,
            found.code_bits,
            found.key_weights,
            found.texture_weights,
            dimensions=found.dimensions,
            has_keys=found.has_keys,
            mosaic=found.mosaic,
        )

    def encoded(
        self,
        slides: Sequence[SlideToEncode],
        *,
        watch: Watch = unwatched,
        wants_embeddings: bool = False,
    ) -> Encoding:
        """Yield each slide as it is ready; see `encoder.pool.encode_all`."""
        from sish_cluster.encoder import pool
        from sish_cluster.encoder.catalogue import CatalogueEntry
        from sish_cluster.encoder.encoded_store import EncodedStore
        from sish_cluster.encoder.settings import ActorSettings

        entries = [CatalogueEntry(s.path, s.slide, s.mpp, s.region) for s in slides]
        outcomes = pool.encode_all(
            entries,
            self._settings,
            ray=self.use_ray,
            ray_address=self.ray_address,
            actors=ActorSettings(
                n_actors=self.n_actors, min_actors=self.min_actors, n_readers=self.n_readers
            ),
            cache=None if self.cache is None else EncodedStore(self.cache),
            on_progress=lambda p: watch(SlideProgress(p.slide_id, p.stage, p.done, p.total)),
        )
        # A generator: closing it tells the actors to stop before their next patch.
        with contextlib.closing(cast(Any, outcomes)):
            for outcome in outcomes:
                if isinstance(outcome, EncodedSlide):
                    yield outcome if wants_embeddings else _codes_alone(outcome)
                else:
                    yield SlideFailure(outcome.slide_id, outcome.error.message)

    def close(self) -> None:
        """Keep nothing: the actors end with the iteration that used them."""


class ServiceEncoder:
    """An encoder service elsewhere, which reads the files itself; a context manager.

    Parameters
    ----------
    address
        Its ``host:port``.
    folder
        The folder it serves, as this machine sees it: paths are sent relative to it.
    settings
        Patience between tries while its queue is full.
    """

    def __init__(
        self, address: str, folder: Path, *, settings: ClientSettings | None = None
    ) -> None:
        self._folder = folder.resolve()
        self._retry = Retry(settings or ClientSettings(), UNLIMITED)
        self._thread = LoopThread()
        self._client = self._thread.result_of(_connected(address))

    def __enter__(self) -> ServiceEncoder:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the connection."""
        self._thread.result_of(self._client.__aexit__(None, None, None))
        self._thread.close()

    @functools.cached_property
    def description(self) -> EncoderDescription:
        """What it is."""
        return self._thread.result_of(self._client.describe())

    def encoded(
        self,
        slides: Sequence[SlideToEncode],
        *,
        watch: Watch = unwatched,
        wants_embeddings: bool = False,
    ) -> Encoding:
        """Yield each slide in order; as many are asked for at once as the service has actors."""
        window = max(1, self.description.actors)
        asked: collections.deque[concurrent.futures.Future[EncodedSlide | SlideFailure]]
        asked = collections.deque()
        try:
            for slide in slides:
                work = self._outcome_of(slide, watch, wants_embeddings=wants_embeddings)
                asked.append(self._thread.submitted(work))
                if len(asked) >= window:
                    yield asked.popleft().result()
            while asked:
                yield asked.popleft().result()
        finally:
            for future in asked:
                future.cancel()

    async def _outcome_of(
        self, slide: SlideToEncode, watch: Watch, *, wants_embeddings: bool
    ) -> EncodedSlide | SlideFailure:
        slide_id = slide.slide.slide_id
        deadline = Deadline.after(SERVICE_TIMEOUT_S)
        try:
            return await self._retry.answer_of(
                lambda: self._client.encode_slide(
                    self._relative(slide.path),
                    dataclasses.replace(slide.slide, mpp=slide.mpp or 0.0),
                    region="" if slide.region is None else slide.region.text,
                    wants_embeddings=wants_embeddings,
                    on_progress=lambda *step: watch(SlideProgress(slide_id, *step)),
                    timeout_s=max(0.001, deadline.remaining_s()),
                ),
                deadline=deadline,
            )
        except SishError as error:
            return SlideFailure(slide_id, error.message)

    def _relative(self, path: Path) -> str:
        try:
            return path.resolve().relative_to(self._folder).as_posix()
        except ValueError:
            raise BadRequest(
                f"{path} is not inside {self._folder}, the folder the encoder service reads: index that"
                " folder, or name it with --encoder-folder",
                field="path",
            ) from None


def _codes_alone(slide: EncodedSlide) -> EncodedSlide:
    return EncodedSlide.whole(slide.slide, slide.patches.without_embeddings(), slide.fingerprint)


async def _connected(address: str) -> EncoderClient:
    return EncoderClient(address)
