"""The encoder as an actor: one slide at a time, its progress readable meanwhile.

`EncoderActor` is a plain class. In the process it is called as it is (`local_actor`); under Ray it runs
in processes of its own, which Ray starts again when they die, and both give equal bytes. This is the
only file that imports ray, and only when Ray is asked for.

Notes
-----
Ray runs a task again when its actor died under it (at least once); an encoding has no effect outside its
answer, so that is safe. A cluster of our own demands a random token from every peer, because Ray
listens on all interfaces.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from typing import Any, TypeVar

from sish_cluster.core.errors import Cancelled, EncoderUnavailable, SishError
from sish_cluster.core.posting import EncodedSlide
from sish_cluster.core.seams import Pixels
from sish_cluster.encoder.catalogue import CatalogueEntry
from sish_cluster.encoder.pipeline import (
    READING,
    EncodedPatches,
    EncodeFailure,
    Encoder,
    EncoderDescription,
    unexpected,
)
from sish_cluster.encoder.settings import ActorSettings, EncoderSettings

Answer = TypeVar("Answer")

WATCH = "watch"
"""Concurrency group that answers while a slide is being encoded."""

WATCH_TIMEOUT_S = 2.0
"""Seconds an actor has to tell its progress; a restarting actor takes longer and is asked again."""

MALLOC = {
    "MALLOC_MMAP_THRESHOLD_": "4294967296",
    "MALLOC_TRIM_THRESHOLD_": "8589934592",
    "MALLOC_TOP_PAD_": "268435456",
}
"""Keeps freed activations in the process instead of asking the kernel for zeroed pages at every layer."""

QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".*",
}
"""No usage reports, and nothing of Ray's printed over the progress bars; its log files stay."""


@dataclasses.dataclass(frozen=True, slots=True)
class Stage:
    """How far an actor is with the job ``ticket``."""

    ticket: str
    name: str = READING
    done: int = 0
    total: int = 0


class EncoderActor:
    """Encodes one slide or batch of patches at a time; says meanwhile how far it is.

    Parameters
    ----------
    settings
        Everything that decides what an encoded slide is.
    encoder
        Networks to share within a process; None to read them.
    """

    def __init__(self, settings: EncoderSettings, encoder: Encoder | None = None) -> None:
        self._encoder = encoder or Encoder(settings)
        self._stage = Stage("")
        self._cancelled = ""

    def encode(self, entry: CatalogueEntry, ticket: str) -> EncodedSlide | EncodeFailure:
        """Return the encoded slide of an entry, or its failure."""
        self._stage = Stage(ticket)

        def note(name: str, done: int, total: int) -> None:
            self._stage = Stage(ticket, name, done, total)
            if self._cancelled == ticket:
                raise Cancelled(f"{entry.path}: encoding was cancelled at patch {done} of {total}")

        return self._encoder.encode_entry(entry, progress=note)

    def encode_patches(self, pixels: Pixels) -> EncodedPatches:
        """Return keys, codes and embeddings of patches."""
        return self._encoder.encode_patches(pixels)

    def stage(self) -> Stage:
        """Return how far the last job is."""
        return self._stage

    def cancel(self, ticket: str) -> None:
        """Stop the job ``ticket`` before its next patch."""
        self._cancelled = ticket

    def describe(self) -> tuple[int, EncoderDescription]:
        """Return the process id and what the encoder is."""
        return os.getpid(), self._encoder.description


class RayActor:
    """One `EncoderActor` in a process that Ray keeps alive."""

    def __init__(self, handle: Any, ray: Any) -> None:
        self._handle = handle
        self._ray = ray

    def encode(self, entry: CatalogueEntry, ticket: str) -> Future[EncodedSlide | EncodeFailure]:
        """Begin a slide; the future never fails: a lost actor is a failure of the slide."""

        def lost(error: BaseException) -> EncodeFailure:
            found = _as_sish_error(str(entry.path), error)
            return EncodeFailure(entry.slide.slide_id, entry.path, found)

        return _settled(lambda: self._handle.encode.remote(entry, ticket), lost)

    def encode_patches(self, pixels: Pixels) -> Future[EncodedPatches]:
        """Begin a batch of patches; the future fails with a `SishError` only."""

        def lost(error: BaseException) -> EncodedPatches:
            raise _as_sish_error("a patch", error) from error

        return _settled(lambda: self._handle.encode_patches.remote(pixels), lost)

    def stage(self) -> Stage | None:
        """Return how far the actor is, or None while it does not answer."""
        with contextlib.suppress(self._ray.exceptions.RayError):
            asked = self._handle.stage.options(concurrency_group=WATCH).remote()
            stage: Stage = self._ray.get(asked, timeout=WATCH_TIMEOUT_S)
            return stage
        return None

    def cancel(self, ticket: str) -> None:
        """Ask the actor to stop a job before its next patch."""
        self._handle.cancel.options(concurrency_group=WATCH).remote(ticket)

    def describe(self, timeout_s: float) -> tuple[int, EncoderDescription]:
        """Return the actor's process id and what its encoder is."""
        asked = self._handle.describe.options(concurrency_group=WATCH).remote()
        answer: tuple[int, EncoderDescription] = self._ray.get(asked, timeout=timeout_s)
        return answer

    def restart(self) -> None:
        """Kill the actor's process; Ray starts another."""
        self._ray.kill(self._handle, no_restart=False)

    def close(self) -> None:
        """End the actor for good."""
        with contextlib.suppress(self._ray.exceptions.RayError):
            self._ray.kill(self._handle)


def _as_sish_error(what: str, error: BaseException) -> SishError:
    """Return what went wrong in an actor as an error of ours."""
    cause = getattr(error, "cause", None)
    for found in (cause, error):
        if isinstance(found, SishError):
            return found
    if "Actor" in type(error).__name__:
        return EncoderUnavailable(
            f"{what}: the actor encoding it died, and died again when it was repeated: it may need more"
            " memory than there is, or break a decoder. Try it alone"
        )
    return unexpected(what, error)


def _settled(ask: Callable[[], Any], lost: Callable[[BaseException], Answer]) -> Future[Answer]:
    """Return the future of what Ray is asked for, what ``lost`` makes of an error in its place."""
    outcome: Future[Answer] = Future()

    def fail(error: BaseException) -> None:
        try:
            outcome.set_result(lost(error))
        except SishError as found:
            outcome.set_exception(found)

    def settle(future: Future[Any]) -> None:
        error = future.exception()
        outcome.set_result(future.result()) if error is None else fail(error)

    try:
        ask().future().add_done_callback(settle)
    except Exception as error:  # Ray itself is gone: it raises what it likes.
        fail(error)
    return outcome


@contextlib.contextmanager
def ray_actors(
    settings: EncoderSettings, actors: ActorSettings, *, address: str | None
) -> Iterator[list[RayActor]]:
    """Start Ray (or join it at ``address``), place the actors, and undo both at the end.

    Raises
    ------
    EncoderUnavailable
        If Ray is missing or does not start, or an actor cannot be placed; the CPUs and GPUs asked for
        and there are named.
    """
    with _connected(actors, address) as ray:
        asked = _resources(ray, actors)
        _check_fits(ray, asked, actors.wanted_actors)
        remote = ray.remote(
            num_cpus=asked["CPU"],
            num_gpus=asked.get("GPU", 0.0),
            max_restarts=-1,
            max_task_retries=actors.task_retries,
            max_concurrency=1,
            concurrency_groups={WATCH: 1},
            runtime_env={"env_vars": MALLOC} if address else None,
        )(EncoderActor)
        placed = [RayActor(remote.remote(settings), ray) for _ in range(actors.wanted_actors)]
        try:
            _await_placed(ray, placed, asked, actors)
            yield placed
        finally:
            for actor in placed:
                actor.close()


@contextlib.contextmanager
def _connected(actors: ActorSettings, address: str | None) -> Iterator[Any]:
    environment = QUIET if address else {**QUIET, **MALLOC, **_own_token()}
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    try:
        ray = _imported()
        own = (
            {}
            if address
            else {"num_cpus": len(os.sched_getaffinity(0)), "include_dashboard": False}
        )
        if not address:
            own["object_store_memory"] = actors.object_store_bytes
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **own)
    except (RuntimeError, ConnectionError, OSError, ValueError) as error:
        _restore(before)
        where = f"Ray at {address}" if address else "a Ray of our own"
        raise EncoderUnavailable(
            f"{where} could not be reached: {error}. Or use --no-ray"
        ) from error
    except BaseException:
        _restore(before)
        raise
    try:
        yield ray
    finally:
        ray.shutdown()
        _restore(before)


def _imported() -> Any:
    try:
        import ray
    except ImportError as error:
        raise EncoderUnavailable(
            "Ray is not installed: install sish-cluster[encoder], or use --no-ray"
        ) from error
    if ray.is_initialized():
        raise EncoderUnavailable(
            "this process is connected to a Ray cluster already: leave it first"
        )
    return ray


@functools.cache
def _own_token() -> dict[str, str]:
    # Without a mode, Ray writes a token of its own into the home directory. One token a process: Ray
    # reads it once, and would turn away its own next cluster if it changed.
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}


def _restore(before: Mapping[str, str | None]) -> None:
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _resources(ray: Any, actors: ActorSettings) -> dict[str, float]:
    asked = {"CPU": actors.cpus_per_actor}
    if ray.cluster_resources().get("GPU", 0.0) > 0:
        asked["GPU"] = actors.gpus_per_actor
    return asked


def _check_fits(ray: Any, asked: Mapping[str, float], n_actors: int) -> None:
    there = ray.cluster_resources()
    short = [name for name, each in asked.items() if there.get(name, 0.0) < each * n_actors]
    if short:
        raise _not_placed(there, asked, n_actors, placed=0)


def _await_placed(
    ray: Any, placed: list[RayActor], asked: Mapping[str, float], actors: ActorSettings
) -> None:
    until_s = time.monotonic() + actors.place_timeout_s
    for number, actor in enumerate(placed):
        try:
            actor.describe(max(0.1, until_s - time.monotonic()))
        except ray.exceptions.GetTimeoutError as error:
            there = ray.available_resources()
            raise _not_placed(there, asked, len(placed), placed=number) from error
        except ray.exceptions.RayError as error:
            cause = getattr(error, "cause", None) or getattr(error, "__cause__", None)
            if isinstance(cause, SishError):
                raise cause from error
            raise EncoderUnavailable(f"an encoder actor did not start: {error}") from error


def _not_placed(
    there: Mapping[str, float], asked: Mapping[str, float], n_actors: int, *, placed: int
) -> EncoderUnavailable:
    each = ", ".join(f"{value:g} {name}" for name, value in asked.items())
    found = ", ".join(f"{there.get(name, 0.0):g} {name}" for name in asked)
    return EncoderUnavailable(
        f"{n_actors} encoder actors of {each} each were asked for and {placed} could be placed; there"
        f" is {found}. Ask for fewer actors or smaller shares, or free the machine"
    )
