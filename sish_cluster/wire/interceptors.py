"""What happens to every call of every server: a deadline is required, errors become statuses."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import grpc.aio

from sish_cluster.core.clock import Deadline
from sish_cluster.core.errors import Internal, NoDeadline, SishError
from sish_cluster.wire.status import abort

_EXEMPT = ("/grpc.health.v1.", "/grpc.reflection.")
_LOG = logging.getLogger(__name__)


def deadline_of(context: grpc.aio.ServicerContext[Any, Any]) -> Deadline:
    """Return the call's deadline (the interceptor has refused calls without one)."""
    remaining_s = context.time_remaining()
    return Deadline.after(remaining_s if remaining_s is not None else 0.0)


class CallGuard(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    """Wraps every handler: refuses calls without deadline, answers `SishError` with its status.

    Anything else a handler raises is logged with its traceback and answered as `Internal`: callers
    see no traceback.
    """

    async def intercept_service(
        self,
        continuation: Callable[
            [grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any]]
        ],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any]:
        """Return the method's handler, guarded unless it is health or reflection."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or method.startswith(_EXEMPT):
            return handler
        return _guarded(handler, method)


def _guarded(
    handler: grpc.RpcMethodHandler[Any, Any], method: str
) -> grpc.RpcMethodHandler[Any, Any]:
    codec = {
        "request_deserializer": handler.request_deserializer,
        "response_serializer": handler.response_serializer,
    }
    if handler.unary_unary:
        call = _guarded_unary(handler.unary_unary, method)
        return grpc.unary_unary_rpc_method_handler(call, **codec)
    if handler.stream_unary:
        call = _guarded_unary(handler.stream_unary, method)
        return grpc.stream_unary_rpc_method_handler(call, **codec)
    if handler.unary_stream:
        stream = _guarded_stream(handler.unary_stream, method)
        return grpc.unary_stream_rpc_method_handler(stream, **codec)
    stream = _guarded_stream(handler.stream_stream, method)
    return grpc.stream_stream_rpc_method_handler(stream, **codec)


def _guarded_unary(inner: Any, method: str) -> Any:
    async def call(request: Any, context: Any) -> Any:
        try:
            _check_deadline(context, method)
            return await inner(request, context)
        except Exception as error:
            await abort(context, _as_sish_error(error, method))

    return call


def _guarded_stream(inner: Any, method: str) -> Any:
    async def call(request: Any, context: Any) -> AsyncIterator[Any]:
        try:
            _check_deadline(context, method)
            async for response in inner(request, context):
                yield response
        except Exception as error:
            await abort(context, _as_sish_error(error, method))

    return call


def _check_deadline(context: Any, method: str) -> None:
    # gRPC reports "no deadline" as None or as an absurdly long time, depending on the transport.
    remaining_s = context.time_remaining()
    if remaining_s is None or remaining_s > 10 * 365 * 86_400:
        raise NoDeadline(
            f"{method} was called without a deadline: pass timeout= (in seconds) with every call,"
            " so that a slow cluster cannot hold the caller for ever",
            metadata={"method": method},
        )


def _as_sish_error(error: Exception, method: str) -> SishError:
    if isinstance(error, SishError):
        return error
    if isinstance(error, grpc.aio.AbortError | asyncio.CancelledError):
        raise error
    _LOG.error("%s failed unexpectedly", method, exc_info=error)
    return Internal(
        f"{method} failed unexpectedly ({type(error).__name__}): see the server's log; please report it",
        metadata={"method": method},
    )
