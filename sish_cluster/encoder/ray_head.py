"""Whether Ray's head is still there, asked without Ray.

A cluster whose head died answers nothing for seconds at a time, slide after slide, and after a minute ends the
processes that wait for it. A plain connection tells at once: what cannot be encoded any more is told
so, and whoever ingests and searches goes on.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from typing import Any

from sish_cluster.core.errors import EncoderUnavailable, SishError
from sish_cluster.encoder.outcome import unexpected

CONNECT_TIMEOUT_S = 2.0
"""Seconds a head may take to accept a connection: its kernel does, also while it is busy."""

PATIENCE_S = 20.0
"""Seconds a head of someone else's cluster may be away: those that keep their state are started again."""

LOOK_S = 0.25
"""Seconds between two looks while it is away."""


class RayHead:
    """The head of the cluster this process is connected to.

    Parameters
    ----------
    address
        Its ``host:port``. One that does not even answer now (behind a proxy) counts as always there.
    patience_s
        Seconds it may be away.

    Attributes
    ----------
    is_lost
        Whether it was away for longer when it was last looked for: what Ray is asked then, it waits a minute for.
    """

    def __init__(self, address: str, *, patience_s: float) -> None:
        self._address = address if _answers(address) else ""
        self._patience_s = patience_s
        self._lock = threading.Lock()
        self.is_lost = False

    def check(self, what: str) -> None:
        """Return if it is there.

        Raises
        ------
        EncoderUnavailable
            If it stayed away for longer than it may; says what to do about ``what``. The next call waits
            no more.
        """
        with self._lock:
            patience_s = 0.0 if self.is_lost else self._patience_s
            self.is_lost = not self._comes_back(patience_s)
            if self.is_lost:
                raise EncoderUnavailable(
                    f"{what}: cannot be encoded, because Ray's head at {self._address} is gone. Repeat the"
                    " command (--ray ADDRESS for a cluster that runs, --no-ray to do without): slides that"
                    " are stored are not encoded again, and searches go on meanwhile"
                )

    def error_of(self, what: str, error: BaseException) -> SishError:
        """Return what went wrong in an actor, or in all of Ray, as an error of ours."""
        try:
            self.check(what)
        except EncoderUnavailable as gone:
            return gone
        return as_sish_error(what, error)

    def _comes_back(self, patience_s: float) -> bool:
        until_s = time.monotonic() + patience_s
        while self._address and not _answers(self._address):
            if time.monotonic() >= until_s:
                return False
            time.sleep(LOOK_S)
        return True


def check_reachable(address: str, *, instead: str) -> None:
    """Return if somebody accepts connections at ``host:port``, or ``address`` is of another form.

    Parameters
    ----------
    address
        Of a Ray cluster, ``auto`` and ``ray://`` addresses included.
    instead
        The option that needs no Ray, for messages.

    Raises
    ------
    EncoderUnavailable
        At once, where Ray itself would try for minutes.
    """
    _, colon, port = address.rpartition(":")
    if colon and port.isdecimal() and "/" not in address and not _answers(address):
        raise EncoderUnavailable(
            f"Ray at {address} could not be reached: nobody accepts connections there. Start it"
            f" (`ray start --head --port {port}`), give the address of one that runs, or use {instead}"
        )


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    with contextlib.suppress(OSError, ValueError):
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_TIMEOUT_S).close()
        return True
    return False


def as_sish_error(what: str, error: BaseException) -> SishError:
    """Return what went wrong in an actor as an error of ours."""
    cause: Any = getattr(error, "cause", None)
    for found in (cause, error):
        if isinstance(found, SishError):
            return found
    if "Actor" in type(error).__name__:
        return EncoderUnavailable(
            f"{what}: the actor at it died, and died again when it was repeated: it may need more"
            " memory than there is, or break a decoder. Try it alone"
        )
    return unexpected(what, error)
