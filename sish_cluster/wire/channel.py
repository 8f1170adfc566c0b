"""Channels to a server, with the options every client needs."""

from __future__ import annotations

import json
from typing import Any

import grpc
import grpc.aio

MAX_MESSAGE_BYTES = 16 << 20
"""Largest message accepted; streams are cut at 1 MiB, so this only bounds what a stranger sends."""

READ_METHODS = {
    "sish.v1.ShardService": (
        "Search", "EncodedSlide", "RangeLookup", "Neighbours", "ListPending", "ListSlides",
        "ListCollections", "DescribeCollection", "Status",
    ),
    "sish.v1.RouterService": (
        "Search", "SearchPatches", "EncodedSlide", "ListSlides", "ListCollections",
        "DescribeCollection", "Status",
    ),
    "sish.v1.EncoderService": ("DescribeEncoder",),
}  # fmt: skip
"""Calls that change nothing, and so are retried when a server cannot be reached."""

CHANNEL_OPTIONS: tuple[tuple[str, int | str], ...] = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.enable_http_proxy", 0),
)
"""A dead peer is noticed within 40 s, a restarted one found within 2 s; no proxy between services."""


def service_config() -> str:
    """Return gRPC's service config: retries of reads on UNAVAILABLE, within the call's deadline."""
    names = [
        {"service": service, "method": method}
        for service, methods in READ_METHODS.items()
        for method in methods
    ]
    policy: dict[str, Any] = {
        "maxAttempts": 4,
        "initialBackoff": "0.05s",
        "maxBackoff": "1s",
        "backoffMultiplier": 3,
        "retryableStatusCodes": ["UNAVAILABLE"],
    }
    return json.dumps({"methodConfig": [{"name": names, "retryPolicy": policy}]})


def open_channel(address: str, *, retries_reads: bool = True) -> grpc.aio.Channel:
    """Return an asyncio channel to ``host:port``; it connects on first use.

    Parameters
    ----------
    address
        Where to.
    retries_reads
        Whether gRPC repeats reads on UNAVAILABLE; False for callers that repeat calls themselves,
        or every layer would multiply the tries of the one below.
    """
    options = [*CHANNEL_OPTIONS]
    if retries_reads:
        options.append(("grpc.service_config", service_config()))
    return grpc.aio.insecure_channel(address, options=options)
