"""A network of one's own: a command that sees only its own loopback device.

Ray listens on every interface of a machine. Tests run it where the only interface is loopback and nobody
else is: a fresh network namespace, which Linux gives to unprivileged users on most machines.
"""

from __future__ import annotations

import functools
import shutil
import subprocess
import sys
from collections.abc import Sequence

_UP_THEN = """import fcntl, os, socket, struct, sys
fcntl.ioctl(socket.socket(), 0x8914, struct.pack("16sH14s", b"lo", 0x1 | 0x40, b""))
os.execvp(sys.argv[1], sys.argv[1:])
"""
"""Brings the loopback device up (SIOCSIFFLAGS, IFF_UP | IFF_RUNNING), then becomes the command."""

PROBE_TIMEOUT_S = 10.0
"""Seconds the probe may take: it starts three small programs."""


def isolated(command: Sequence[str]) -> list[str]:
    """Return ``command`` so that it runs in a network namespace with only loopback.

    Examples
    --------
    >>> isolated(["ray", "--version"])[-2:]
    ['ray', '--version']
    """
    return ["unshare", "-r", "-n", sys.executable, "-c", _UP_THEN, *command]


@functools.cache
def can_isolate() -> bool:
    """Return whether this machine lets its users have a network namespace of their own."""
    if not shutil.which("unshare"):
        return False
    try:
        done = subprocess.run(isolated(["true"]), capture_output=True, timeout=PROBE_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0
