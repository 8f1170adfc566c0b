"""How kernels are compiled: with numba, without the GIL, once per machine.

numba's disk cache notices a change of the file a kernel is written in, not of the files it calls. So
every kernel of this package shares one cache folder named by the digest of all its kernel files: an
edit or an upgrade anywhere compiles afresh, and a stale kernel can never answer.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
from numba import types

KERNEL_FILES = (
    "words.py",
    "veb_table.py",
    "veb_nodes.py",
    "veb_levels.py",
    "veb_neighbours.py",
    "veb_kernels.py",
    "layout.py",
    "cursors.py",
    "reaches.py",
    "spans.py",
    "walk.py",
    "published.py",
    "exact.py",
    "gather.py",
    "copying.py",
    "alone_kernels.py",
    "vectors_lanes.py",
    "vectors_kernels.py",
)
"""Files whose functions run compiled; their content names the cache folder."""

_Function = TypeVar("_Function", bound=Callable[..., Any])


def _digest_of_kernels() -> str:
    digest = hashlib.blake2b(digest_size=8)
    for name in KERNEL_FILES:
        digest.update((Path(__file__).parent / name).read_bytes())
    return digest.hexdigest()


def _cache_folder() -> Path:
    """Return a writable folder: under NUMBA_CACHE_DIR, else beside this file, else in the temp folder."""
    chosen = os.environ.get("NUMBA_CACHE_DIR")
    folders = [Path(chosen)] if chosen else []
    folders += [
        Path(__file__).parent / "__pycache__",
        Path(tempfile.gettempdir()) / f"sish-kernels-{os.getuid()}",
    ]
    name = f"kernels-{_digest_of_kernels()}"
    for folder in folders:
        try:
            (folder / name).mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(folder / name, os.W_OK):
            return folder / name
    return Path(tempfile.mkdtemp(prefix="sish-kernels-"))


CACHE = _cache_folder()
"""Where compiled kernels are kept."""

setattr(numba.config, "CACHE_DIR", str(CACHE))  # noqa: B010 - numba makes it at run time


_COMPLETE = CACHE / "complete"


def is_compiled() -> bool:
    """Whether a process of this machine has compiled every kernel."""
    return _COMPLETE.exists()


@contextlib.contextmanager
def compiled_once() -> Iterator[None]:
    """Run what compiles every kernel: of several processes on a new machine one compiles, the rest load.

    The lock is the kernel's own, so it ends with a process that dies. Once a process has been through, nobody
    waits for anybody.
    """
    if is_compiled():
        yield
        return
    with (CACHE / "compiling.lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
        _COMPLETE.touch()


def kernel(function: _Function) -> _Function:
    """Compile ``function`` at its first call (or load it from the cache); it runs without the GIL."""
    compiled: Any = numba.njit(cache=True, nogil=True, boundscheck=False)(function)
    return cast(_Function, compiled)


def inner(function: _Function) -> _Function:
    """Compile ``function`` for use inside kernels only; it has no cache entry of its own.

    numba would compile it anew for every constant it is called with; taking constants as plain
    integers halves the time a first start takes.
    """
    compiled: Any = numba.njit(nogil=True, boundscheck=False)(function)
    template_of = compiled.get_call_template

    def get_call_template(args: Any, kws: Any) -> Any:
        plain = tuple(types.unliteral(arg) for arg in args)  # type: ignore[no-untyped-call]
        return template_of(plain, kws)

    compiled.get_call_template = get_call_template
    return cast(_Function, compiled)
