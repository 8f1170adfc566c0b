"""Servers as processes of this machine, on loopback: started, watched, stopped, never left behind.

A server writes its address into a port file once it serves; until then its process is watched, so that
one that cannot start is reported with the end of its log, at once.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self

from sish_cluster.core.errors import Unavailable

START_TIMEOUT_S = 240.0
"""Seconds a server gets until it serves: on the first start numba compiles its kernels, which takes 20 s of
CPU, and several times that on a machine that is busy with other things."""

STOP_TIMEOUT_S = 15.0
"""Seconds a server gets to drain before it is killed: its own grace is 10 s."""

POLL_S = 0.02
"""Seconds between looks at a port file: far below what a start takes, and next to no work."""

LOG_LINES = 30
"""Last lines of a log that an error shows: a traceback fits."""

TIED_TO_STDIN = """
import os, runpy, signal, threading
def end_with_parent():
    os.read(0, 1)
    os.kill(os.getpid(), signal.SIGTERM)
threading.Thread(target=end_with_parent, daemon=True).start()
runpy.run_module("sish_cluster.cli", run_name="__main__", alter_sys=True)
"""
"""Runs ``sish``, and drains it when its standard input ends: that happens however its parent died."""

FREE_PORT = "127.0.0.1:0"
"""Loopback, a port the system picks."""


class ServerProcess:
    """One server, as ``sish GROUP serve ...`` in a process of its own.

    Parameters
    ----------
    name
        Names its log and port file.
    arguments
        Command line after ``sish``, without ``--listen`` and ``--port-file``.
    folder
        Where its log and port file lie.
    listen
        ``host:port``; port 0 takes a free one, and a restart takes the same again.
    environment
        Variables beside this process's own.
    """

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        folder: Path,
        *,
        listen: str = FREE_PORT,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.address = listen
        self.log_file = folder / f"{name}.log"
        self._arguments = list(arguments)
        self._environment = dict(environment or {})
        self._port_file = folder / f"{name}.port"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Process id; raises if it was never started."""
        assert self._process is not None, f"{self.name} was not started"
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.poll() is None

    def launch(self) -> None:
        """Start the process without waiting for it."""
        self._port_file.parent.mkdir(parents=True, exist_ok=True)
        self._port_file.unlink(missing_ok=True)
        command = [sys.executable, "-c", TIED_TO_STDIN, *self._arguments]
        command += ["--listen", self.address, "--port-file", str(self._port_file)]
        with self.log_file.open("ab") as log:
            # A process group of its own: Control-C ends this program, which then drains the server.
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self._environment},
                process_group=0,
            )
        atexit.register(self.kill)

    def wait_until_serving(self, timeout_s: float = START_TIMEOUT_S) -> str:
        """Return the bound ``host:port`` once the server reports SERVING.

        Raises
        ------
        Unavailable
            If it ended, or took longer than ``timeout_s``; with the end of its log.
        """
        end_s = time.monotonic() + timeout_s
        while not self._port_file.exists():
            if not self.is_running:
                raise self._failed(f"ended with exit code {self._exit_code()} before it served")
            if time.monotonic() > end_s:
                self.kill()
                raise self._failed(f"did not serve within {timeout_s:.0f} s")
            time.sleep(POLL_S)
        self.address = self._port_file.read_text().strip()
        return self.address

    def start(self) -> str:
        """Start the process and return its address once it serves."""
        self.launch()
        return self.wait_until_serving()

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """Drain and end the server; kill it when that takes longer than ``timeout_s``."""
        self.ask_to_stop()
        if self._process is None:
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout_s)
        self.kill()
        atexit.unregister(self.kill)

    def ask_to_stop(self) -> None:
        """Send SIGTERM, without waiting."""
        if self.is_running:
            self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL, as a power cut would: nothing is flushed or said."""
        if self.is_running:
            self._signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()
            if self._process.stdin is not None:
                self._process.stdin.close()

    def log_tail(self, lines: int = LOG_LINES) -> str:
        """Return the last lines of the log."""
        with contextlib.suppress(FileNotFoundError):
            text = self.log_file.read_text(errors="replace")
            return "\n".join(text.splitlines()[-lines:])
        return ""

    def _signal(self, number: int) -> None:
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    def _exit_code(self) -> int | None:
        return None if self._process is None else self._process.poll()

    def _failed(self, what: str) -> Unavailable:
        return Unavailable(
            f"server {self.name!r} ({' '.join(self._arguments)}) {what}; the end of"
            f" {self.log_file}:\n{self.log_tail() or '(empty)'}",
            metadata={"server": self.name},
        )


class Servers:
    """Several servers, started together and stopped together; a context manager."""

    def __init__(self) -> None:
        self._servers: list[ServerProcess] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def __iter__(self) -> Iterator[ServerProcess]:
        return iter(self._servers)

    def started(self, servers: Sequence[ServerProcess]) -> list[str]:
        """Start servers at the same time and return their addresses once all serve."""
        for server in servers:
            self._servers.append(server)
            server.launch()
        return [server.wait_until_serving() for server in servers]

    def stop(self) -> None:
        """Drain and end all, the last started first."""
        for server in reversed(self._servers):
            server.ask_to_stop()
        for server in reversed(self._servers):
            server.stop()
        self._servers.clear()
