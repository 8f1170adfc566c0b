"""Many slides through a few actors, with back-pressure.

Each actor has one slide at a time and slides are taken from the caller's iterator only when an actor is
free, so memory does not grow with the number of slides. What is in the store is not encoded again,
and no actor is started before something has to be. Results come as they are ready.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Protocol

from sish_cluster.core.errors import EncoderUnavailable, SishError
from sish_cluster.core.key import spread_keys
from sish_cluster.core.posting import EncodedSlide
from sish_cluster.core.seams import Pixels
from sish_cluster.core.slide import digest_of
from sish_cluster.encoder.actor import ray_actors
from sish_cluster.encoder.catalogue import CatalogueEntry
from sish_cluster.encoder.encoded_store import EncodedStore
from sish_cluster.encoder.lane import Stage
from sish_cluster.encoder.local_actor import local_actors
from sish_cluster.encoder.outcome import EncodeFailure, Outcome
from sish_cluster.encoder.pipeline import description_of
from sish_cluster.encoder.reading import EncodedPatches
from sish_cluster.encoder.settings import ActorSettings, EncoderSettings
from sish_cluster.encoder.slide import open_slide

STORED = "stored"
"""Stage of a slide that was found in the store: nothing is encoded."""


@dataclasses.dataclass(frozen=True, slots=True)
class SlideProgress:
    """How far a slide is: stage ``reading``, ``mosaic``, ``encoding`` or ``stored``; patches."""

    slide_id: str
    stage: str
    done: int
    total: int


class Actor(Protocol):
    """An encoder actor, in this process or under Ray."""

    def encode(self, entry: CatalogueEntry, ticket: str) -> Future[Outcome]:
        """Begin a slide."""

    def encode_patches(self, pixels: Pixels) -> Future[EncodedPatches]:
        """Begin a batch of patches."""

    def stage(self) -> Stage | None:
        """Return how far the actor is, or None while it does not answer."""

    def cancel(self, ticket: str) -> None:
        """Ask the actor to stop a job before its next patch."""

    def restart(self) -> None:
        """Give up what the actor does and make it ready for another job."""


@contextlib.contextmanager
def started_actors(
    settings: EncoderSettings, actors: ActorSettings, *, ray: bool, ray_address: str | None = None
) -> Iterator[list[Actor]]:
    """Start the actors and stop them at the end.

    Raises
    ------
    EncoderUnavailable
        If Ray cannot be reached or an actor cannot be placed.
    BadWeights
        If a weights file does not fit.
    """
    with contextlib.ExitStack() as stack:
        if ray:
            yield [*stack.enter_context(ray_actors(settings, actors, address=ray_address))]
        else:
            yield [*stack.enter_context(local_actors(settings, actors))]


def encode_all(
    entries: Iterable[CatalogueEntry],
    settings: EncoderSettings,
    *,
    ray: bool = True,
    ray_address: str | None = None,
    actors: ActorSettings = ActorSettings(),  # noqa: B008
    cache: EncodedStore | None = None,
    on_progress: Callable[[SlideProgress], None] | None = None,
) -> Iterator[Outcome]:
    """Yield every entry's encoded slide or failure, as they are ready.

    Parameters
    ----------
    entries
        Taken one by one, never more than there are free actors.
    settings
        Everything that decides what an encoded slide is.
    ray, ray_address
        Whether Ray runs the actors, and the cluster to join (None starts one of our own).
    actors
        How many actors, what each may take, and its time-outs.
    cache
        Where encoded slides are kept; None keeps nothing.
    on_progress
        Told about slides as they advance, from this thread.

    Raises
    ------
    EncoderUnavailable
        If the actors cannot be started; a bad slide never raises.

    Notes
    -----
    Closing the iterator stops the slides that are being encoded before their next patch.
    """
    tell = on_progress or _ignored
    with contextlib.ExitStack() as stack:
        queue: _Queue | None = None
        for entry in entries:
            entry, outcome = _looked_up(entry, settings, cache)
            if outcome is not None:
                n = len(outcome.patches) if isinstance(outcome, EncodedSlide) else 0
                tell(SlideProgress(entry.slide.slide_id, STORED, n, n))
                yield outcome
                continue
            if queue is None:
                started = started_actors(settings, actors, ray=ray, ray_address=ray_address)
                queue = _Queue(stack.enter_context(started), actors, tell)
            while not queue.has_room:
                yield from _kept(queue.finished(), settings, cache)
            queue.begin(entry)
        while queue is not None and queue.is_busy:
            yield from _kept(queue.finished(), settings, cache)


@dataclasses.dataclass(slots=True)
class _Job:
    entry: CatalogueEntry
    actor: Actor
    ticket: str
    future: Future[Outcome]
    stage: Stage
    moved_s: float


class _Queue:
    """The slides that are being encoded, at most one an actor."""

    def __init__(
        self, actors: list[Actor], settings: ActorSettings, tell: Callable[[SlideProgress], None]
    ) -> None:
        self._idle = list(actors)
        self._settings = settings
        self._tell = tell
        self._jobs: dict[Future[Outcome], _Job] = {}

    @property
    def has_room(self) -> bool:
        """Whether an actor is free."""
        return bool(self._idle)

    @property
    def is_busy(self) -> bool:
        """Whether a slide is being encoded."""
        return bool(self._jobs)

    def begin(self, entry: CatalogueEntry) -> None:
        """Give a slide to a free actor."""
        actor, ticket = self._idle.pop(0), uuid.uuid4().hex
        future = actor.encode(entry, ticket)
        self._jobs[future] = _Job(entry, actor, ticket, future, Stage(ticket), time.monotonic())

    def finished(self) -> list[tuple[CatalogueEntry, Outcome]]:
        """Wait a moment and return what became ready; tell progress and end stalled slides."""
        done, _ = wait(self._jobs, timeout=self._settings.poll_s, return_when=FIRST_COMPLETED)
        ready = [self._taken(future) for future in done]
        ready += [ended for job in [*self._jobs.values()] if (ended := self._watched(job))]
        return ready

    def _taken(self, future: Future[Outcome]) -> tuple[CatalogueEntry, Outcome]:
        job = self._jobs.pop(future)
        self._idle.append(job.actor)
        outcome = future.result(timeout=0)
        if isinstance(outcome, EncodedSlide):
            n = len(outcome.patches)
            self._tell(SlideProgress(job.entry.slide.slide_id, "encoding", n, n))
        return job.entry, outcome

    def _watched(self, job: _Job) -> tuple[CatalogueEntry, Outcome] | None:
        """Tell a job's progress; end it when it has made none for too long."""
        stage = job.actor.stage()
        if stage is not None and stage.ticket == job.ticket and stage != job.stage:
            job.stage, job.moved_s = stage, time.monotonic()
            slide_id = job.entry.slide.slide_id
            self._tell(SlideProgress(slide_id, stage.name, stage.done, stage.total))
        if time.monotonic() - job.moved_s < self._settings.stall_timeout_s:
            return None
        del self._jobs[job.future]
        job.actor.restart()
        self._idle.append(job.actor)
        return job.entry, _stalled(job, self._settings.stall_timeout_s)


def _stalled(job: _Job, timeout_s: float) -> EncodeFailure:
    where = f"{job.stage.name}, patch {job.stage.done} of {job.stage.total or 'an unknown number'}"
    error = EncoderUnavailable(
        f"{job.entry.path}: made no progress for {timeout_s:g} s (at {where}) and was given up:"
        " check the disk it lies on, or allow a longer silence"
    )
    return EncodeFailure(job.entry.slide.slide_id, job.entry.path, error)


def _looked_up(
    entry: CatalogueEntry, settings: EncoderSettings, cache: EncodedStore | None
) -> tuple[CatalogueEntry, Outcome | None]:
    """Return an entry, its content's digest known, with what the store has of it.

    The outcome is a failure when the file cannot be opened, None when it is to be encoded.
    """
    if cache is None:
        return entry, None
    try:
        with open_slide(entry.path, mpp=entry.mpp) as reader:
            entry = dataclasses.replace(entry, digest=reader.digest)
    except SishError as error:
        return entry, EncodeFailure(entry.slide.slide_id, entry.path, error)
    return entry, _stored(entry, settings, cache)


def _stored(
    entry: CatalogueEntry, settings: EncoderSettings, cache: EncodedStore
) -> EncodedSlide | None:
    """Return what the store has of an entry whose digest is known, or None."""
    found = cache.found(
        entry.slide,
        digest=entry.digest,
        fingerprint=description_of(settings).fingerprint,
        mosaic_digest=_chosen_digest(entry, settings),
        mpp=entry.mpp,
    )
    if found is None or settings.profile.key_network:
        return found
    # Keys that only spread postings follow the slide's name, which the store does not keep.
    keys = spread_keys(entry.slide.slide_id, found.patches.numbers)
    patches = dataclasses.replace(found.patches, keys=keys)
    return EncodedSlide.whole(found.slide, patches, found.fingerprint)


def _chosen_digest(entry: CatalogueEntry, settings: EncoderSettings) -> str:
    """Return the digest of what decides which patches of an entry are encoded."""
    if entry.region is None:
        return settings.mosaic_digest
    return digest_of(settings.mosaic_digest.encode(), entry.region.digest.encode())


def _kept(
    ready: list[tuple[CatalogueEntry, Outcome]],
    settings: EncoderSettings,
    cache: EncodedStore | None,
) -> Iterator[Outcome]:
    """Yield outcomes, having stored the encoded ones."""
    for entry, outcome in ready:
        if cache is not None and isinstance(outcome, EncodedSlide):
            cache.put(outcome, mosaic_digest=_chosen_digest(entry, settings), mpp=entry.mpp)
        yield outcome


def _ignored(progress: SlideProgress) -> None:
    """Take no notice of progress."""
