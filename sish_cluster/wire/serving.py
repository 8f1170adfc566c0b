"""How every server starts, tells its health, and drains.

A server binds, says where (one line, and a port file for supervisors), reports SERVING, and on SIGTERM
or SIGINT reports NOT_SERVING, waits a moment for balancers to notice, lets running calls finish, and
closes what it owns.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import signal
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from sish_cluster.core.errors import BadRequest
from sish_cluster.wire.channel import MAX_MESSAGE_BYTES
from sish_cluster.wire.interceptors import CallGuard


@dataclasses.dataclass(frozen=True, slots=True)
class ServingSettings:
    """Where a server listens and how it ends."""

    listen: str
    """``host:port``; port 0 takes a free one."""
    port_file: Path | None = None
    """File that gets the bound ``host:port``, written whole, once the server is ready."""
    drain_s: float = 0.2
    """Seconds between NOT_SERVING and refusing new calls, for balancers to notice."""
    grace_s: float = 10.0
    """Seconds running calls get to finish."""


class Server:
    """A gRPC aio server with health, reflection and guarded calls.

    Parameters
    ----------
    settings
        Where it listens and how it ends.
    services
        Full names of the services added, for health and reflection.
    add_services
        Adds the servicers to the aio server.
    """

    def __init__(
        self,
        settings: ServingSettings,
        services: Sequence[str],
        add_services: Callable[[grpc.aio.Server], None],
    ) -> None:
        self.settings = settings
        self._services = ("", *services)
        # The stubs of grpc-health-checking leave the asyncio servicer out.
        self._health: Any = health.aio.HealthServicer()  # type: ignore[attr-defined]
        limit = ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES)
        options = [
            limit,
            ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
            ("grpc.so_reuseport", 0),
        ]
        self.server = grpc.aio.server(interceptors=[CallGuard()], options=options)
        add_services(self.server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self.server)
        names = (*services, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self.server)
        self.address = ""

    async def start(self) -> str:
        """Bind, report SERVING, and return the bound ``host:port``.

        Raises
        ------
        BadRequest
            If the address cannot be bound.
        """
        host, colon, port = self.settings.listen.rpartition(":")
        if not (host and colon and port.isdigit()):
            raise BadRequest(
                f"--listen is HOST:PORT, such as 127.0.0.1:7001; found {self.settings.listen!r}"
            )
        try:
            bound = self.server.add_insecure_port(self.settings.listen)
        except RuntimeError as error:
            raise BadRequest(
                f"cannot listen on {self.settings.listen}: {error}; is another server using the port?"
            ) from error
        self.address = f"{host}:{bound}"
        await self.server.start()
        await self._report(health_pb2.HealthCheckResponse.SERVING)
        if self.settings.port_file:
            _write_whole(self.settings.port_file, self.address)
        return self.address

    async def stop(self) -> None:
        """Report NOT_SERVING, wait, and let running calls finish."""
        await self._report(health_pb2.HealthCheckResponse.NOT_SERVING)
        await asyncio.sleep(self.settings.drain_s)
        await self.server.stop(self.settings.grace_s)

    async def _report(self, status: health_pb2.HealthCheckResponse.ServingStatus) -> None:
        for name in self._services:
            await self._health.set(name, status)


async def serve(
    server: Server,
    *,
    announce: Callable[[str], None] = print,
    on_stop: Callable[[], Awaitable[None]] | None = None,
) -> None:
    """Run a server until SIGTERM or SIGINT, then drain it and close what it owns.

    Parameters
    ----------
    server
        What to run.
    announce
        Called with the bound address once it serves.
    on_stop
        Closes stores and channels after the last call has ended.
    """
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    try:
        announce(await server.start())
        await stopping.wait()
        await server.stop()
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
        if on_stop is not None:
            await on_stop()
        if server.settings.port_file:
            with contextlib.suppress(FileNotFoundError):
                server.settings.port_file.unlink()


def _write_whole(path: Path, text: str) -> None:
    part = path.with_name(path.name + ".part")
    part.write_text(text)
    os.replace(part, path)
