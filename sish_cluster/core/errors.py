"""Every error of the project, in one tree whose second level is the retry policy.

::

    SishError
      Refused            the caller's fault: do not retry
        BadRequest  BadKey  BadSlide  BadLabels  BadFilter  BadTopology  BadWeights  BadMessage  BadFile
        NoDeadline  UnknownSlide  UnknownCollection  CollectionExists
        CheckpointMismatch  FingerprintMismatch  NotPermitted  HomeInUse
      Moved              right question, wrong shard or epoch: refresh the topology
      Unavailable        later or elsewhere: retry after ``retry_after_s``
        ShardUnavailable  StoreFull  EncoderBusy  EncoderUnavailable
      DeadlineExceeded   the time given was used up
      Cancelled          the caller went away
      Corrupt            a checksum or an invariant is broken: stop serving that range
      Internal           a bug of ours, reported as one

A message says what was asked, what was found, the bound, and what to do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

ERROR_DOMAIN = "sish.cluster"
"""Domain of every ``google.rpc.ErrorInfo`` this project sends."""


class SishError(Exception):
    """Root of the tree.

    Parameters
    ----------
    message
        What was asked, what was found, the bound, and what to do.
    metadata
        Machine-readable facts (slide, shard, epoch, ...), sent as ``ErrorInfo.metadata``.
    field
        Dotted name of the offending request field, when there is one.
    """

    grpc_code = "INTERNAL"
    """Name of the gRPC status code this error travels as."""

    def __init__(
        self,
        message: str,
        *,
        metadata: Mapping[str, str] | None = None,
        field: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.metadata: dict[str, str] = dict(metadata or {})
        self.field = field

    @classmethod
    def reason(cls) -> str:
        """Return the stable name used on the wire, e.g. ``BAD_KEY`` for `BadKey`.

        Examples
        --------
        >>> StoreFull.reason()
        'STORE_FULL'
        """
        return "".join("_" + c if c.isupper() else c.upper() for c in cls.__name__).lstrip("_")

    def __str__(self) -> str:
        return self.message


class Refused(SishError):
    """The caller's fault; the same call will fail again."""

    grpc_code = "INVALID_ARGUMENT"


class BadRequest(Refused):
    """A request whose fields contradict each other or exceed a bound."""


class BadKey(Refused):
    """A key outside ``0 <= key < 2**50``, or keys that are not sorted where they must be."""


class BadSlide(Refused):
    """A slide file that cannot be read, has no tissue, or lacks what reading needs."""


class BadLabels(Refused):
    """A labels table with a missing, doubled or contradictory row."""


class BadFilter(Refused):
    """A filter that cannot be parsed or names an unknown label."""


class BadTopology(Refused):
    """A topology whose shards overlap, leave a gap, or cannot be parsed."""


class BadWeights(Refused):
    """A weights file whose names or shapes differ from the network."""


class BadMessage(Refused):
    """A wire message whose lengths, checksum or layout version are wrong."""


class BadFile(Refused):
    """A file of another program that is not what it should be, or would do more than hold data."""


class NoDeadline(Refused):
    """A call without a deadline; every call must carry one."""


class UnknownSlide(Refused):
    """No such slide in the collection."""

    grpc_code = "NOT_FOUND"


class UnknownCollection(Refused):
    """No such collection on this shard or cluster."""

    grpc_code = "NOT_FOUND"


class CollectionExists(Refused):
    """A collection of that name exists with other properties."""

    grpc_code = "ALREADY_EXISTS"


class CheckpointMismatch(Refused):
    """A checkpoint written by another layout or for another collection."""

    grpc_code = "FAILED_PRECONDITION"


class FingerprintMismatch(Refused):
    """Keys and codes of another encoder than the collection's."""

    grpc_code = "FAILED_PRECONDITION"


class NotPermitted(Refused):
    """The server's settings do not allow this."""

    grpc_code = "PERMISSION_DENIED"


class HomeInUse(Refused):
    """Another process holds the data directory."""

    grpc_code = "FAILED_PRECONDITION"


class Moved(SishError):
    """Right question, wrong shard: the slide or key belongs elsewhere at this epoch."""

    grpc_code = "FAILED_PRECONDITION"


class Unavailable(SishError):
    """Later or elsewhere: the call may be repeated after ``retry_after_s``."""

    grpc_code = "UNAVAILABLE"
    default_retry_after_s = 1.0

    def __init__(
        self,
        message: str,
        *,
        retry_after_s: float | None = None,
        metadata: Mapping[str, str] | None = None,
        field: str | None = None,
    ) -> None:
        super().__init__(message, metadata=metadata, field=field)
        self.retry_after_s = self.default_retry_after_s if retry_after_s is None else retry_after_s


class ShardUnavailable(Unavailable):
    """A shard did not answer; ``metadata['shards']`` names it."""


class StoreFull(Unavailable):
    """The store's map or disk is full; searches go on, writes wait for space."""

    grpc_code = "RESOURCE_EXHAUSTED"
    default_retry_after_s = 30.0


class EncoderBusy(Unavailable):
    """The encoder's queue is full."""

    grpc_code = "RESOURCE_EXHAUSTED"


class EncoderUnavailable(Unavailable):
    """No encoder actor could be started or reached."""


class DeadlineExceeded(SishError):
    """The time the caller gave was used up."""

    grpc_code = "DEADLINE_EXCEEDED"


class Cancelled(SishError):
    """The caller went away; the work was stopped between two blocks."""

    grpc_code = "CANCELLED"


class Corrupt(SishError):
    """A checksum or an invariant is broken; what is named is not served."""

    grpc_code = "DATA_LOSS"


class Internal(SishError):
    """A bug of ours; the message carries what the operator needs to report it."""

    grpc_code = "INTERNAL"


def error_classes() -> Iterator[type[SishError]]:
    """Yield every class of the tree, root first."""
    pending: list[type[SishError]] = [SishError]
    while pending:
        cls = pending.pop()
        yield cls
        pending.extend(cls.__subclasses__())


def error_class_of(reason: str) -> type[SishError] | None:
    """Return the class whose `SishError.reason` is ``reason``, or None.

    Examples
    --------
    >>> error_class_of("BAD_KEY").__name__
    'BadKey'
    """
    return next((cls for cls in error_classes() if cls.reason() == reason), None)
