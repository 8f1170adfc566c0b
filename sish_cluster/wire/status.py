"""Errors as google.rpc.Status and back: the same class on both sides of a call.

A status carries ErrorInfo (domain, reason, metadata), BadRequest when a field is at fault, and
RetryInfo when the call may be repeated.
"""

from __future__ import annotations

from typing import Any, NoReturn, Protocol

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

from sish_cluster.core.errors import (
    ERROR_DOMAIN,
    BadRequest,
    Cancelled,
    DeadlineExceeded,
    Internal,
    SishError,
    Unavailable,
    error_class_of,
)

DETAILS_KEY = "grpc-status-details-bin"
"""Trailing metadata under which gRPC carries a google.rpc.Status."""

_CLASS_BY_CODE: dict[grpc.StatusCode, type[SishError]] = {
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.CANCELLED: Cancelled,
    grpc.StatusCode.INVALID_ARGUMENT: BadRequest,
    grpc.StatusCode.UNIMPLEMENTED: BadRequest,
}
"""Class of a status that carries no details of ours: from a proxy, or from gRPC itself."""


def code_of(error: SishError) -> grpc.StatusCode:
    """Return the gRPC status code an error travels as."""
    return grpc.StatusCode[error.grpc_code]


def status_of(error: SishError) -> status_pb2.Status:
    """Return an error as a google.rpc.Status with its details."""
    details = [
        _packed(
            error_details_pb2.ErrorInfo(
                domain=ERROR_DOMAIN, reason=error.reason(), metadata=error.metadata
            )
        )
    ]
    if error.field:
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=error.field, description=error.message
        )
        details.append(_packed(error_details_pb2.BadRequest(field_violations=[violation])))
    if isinstance(error, Unavailable):
        delay = duration_pb2.Duration()
        delay.FromNanoseconds(int(error.retry_after_s * 1e9))
        details.append(_packed(error_details_pb2.RetryInfo(retry_delay=delay)))
    return status_pb2.Status(code=code_of(error).value[0], message=error.message, details=details)


def _packed(message: object) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)  # type: ignore[arg-type]
    return packed


def status_bytes_of(error: SishError) -> bytes:
    """Return an error as serialised google.rpc.Status, for fields and trailers."""
    return status_of(error).SerializeToString()  # type: ignore[no-any-return]


def error_from_bytes(data: bytes) -> SishError:
    """Return the error of a serialised google.rpc.Status."""
    return error_from_status(status_pb2.Status.FromString(data))


def error_from_status(status: status_pb2.Status) -> SishError:
    """Return the error of a status: its own class when it is ours, else the code's."""
    info, violation, retry = (
        error_details_pb2.ErrorInfo(),
        error_details_pb2.BadRequest(),
        error_details_pb2.RetryInfo(),
    )
    for detail in status.details:
        for message in (info, violation, retry):
            if detail.Is(message.DESCRIPTOR):
                detail.Unpack(message)
    cls = error_class_of(info.reason) if info.domain == ERROR_DOMAIN else None
    if cls is None:
        cls = _CLASS_BY_CODE.get(_code_from(status.code), Internal)
    error = cls(status.message, metadata=dict(info.metadata))
    if violation.field_violations:
        error.field = violation.field_violations[0].field
    if isinstance(error, Unavailable) and retry.HasField("retry_delay"):
        error.retry_after_s = retry.retry_delay.ToNanoseconds() / 1e9
    return error


def _code_from(number: int) -> grpc.StatusCode:
    return next(code for code in grpc.StatusCode if code.value[0] == number)


def error_from_rpc(error: grpc.RpcError) -> SishError:
    """Return the error a failed call carried; plain gRPC failures map by their code."""
    trailing: Any = error.trailing_metadata() or ()
    for key, value in trailing:
        if key == DETAILS_KEY:
            return error_from_bytes(value)
    code = error.code()
    text = error.details() or code.name
    return _CLASS_BY_CODE.get(code, Internal)(f"{code.name}: {text}")


class AbortingContext(Protocol):
    """The part of a gRPC aio servicer context that `abort` needs."""

    async def abort(
        self,
        code: grpc.StatusCode,
        details: str = "",
        trailing_metadata: tuple[tuple[str, bytes], ...] = (),
    ) -> NoReturn:
        """End the call with a status."""


async def abort(context: AbortingContext, error: SishError) -> NoReturn:
    """End a call with an error's status and details."""
    await context.abort(code_of(error), error.message, ((DETAILS_KEY, status_bytes_of(error)),))
