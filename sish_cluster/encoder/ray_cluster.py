"""Starting a Ray of one's own, or joining one that runs: the one place that imports ray.

Encoder actors and trainings on several workers come here. A cluster of our own demands a random token
from every peer, because Ray listens on all interfaces; it has no dashboard and sends no usage reports.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import secrets
from collections.abc import Iterator, Mapping
from typing import Any

from sish_cluster.core.errors import EncoderUnavailable
from sish_cluster.encoder.ray_head import check_reachable

QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".*",
}
"""No usage reports, and nothing of Ray's printed over the progress bars; its log files stay."""


@contextlib.contextmanager
def connected(
    address: str | None, *, object_store_bytes: int, own: Mapping[str, str], instead: str
) -> Iterator[Any]:
    """Start Ray, or join it at ``address``, yield the module, and leave it at the end.

    Parameters
    ----------
    address
        Of a cluster; None starts one of our own with the CPUs this process may use.
    object_store_bytes
        Memory of our own cluster's object store.
    own
        Environment of our own cluster's processes.
    instead
        The option that needs no Ray, for messages.

    Raises
    ------
    EncoderUnavailable
        If Ray is missing, does not start, or this process is connected already.
    """
    if address:
        check_reachable(address, instead=instead)
    environment = QUIET if address else {**QUIET, **own, **_own_token()}
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    try:
        ray = _imported(instead)
        shape: dict[str, Any] = {}
        if not address:
            shape = {"num_cpus": len(os.sched_getaffinity(0)), "include_dashboard": False}
            shape["object_store_memory"] = object_store_bytes
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **shape)
    except (RuntimeError, ConnectionError, OSError, ValueError) as error:
        _restore(before)
        where = f"Ray at {address}" if address else "a Ray of our own"
        raise EncoderUnavailable(
            f"{where} could not be reached: {error}. Or use {instead}"
        ) from error
    except BaseException:
        _restore(before)
        raise
    try:
        yield ray
    finally:
        ray.shutdown()
        _restore(before)


def _imported(instead: str) -> Any:
    try:
        import ray
    except ImportError as error:
        raise EncoderUnavailable(
            f"Ray is not installed: install sish-cluster[encoder], or use {instead}"
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
