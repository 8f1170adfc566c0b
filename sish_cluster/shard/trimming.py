"""Giving back what only starting needed: the compiler's code and freed heap; and not taking what nobody needs.

Loading kernels from their cache runs through a hundred megabytes of compiler that no search will touch
again. Those pages are the library's file, unchanged: the system reads one again if it is ever wanted.
The compiler also loads linear algebra where that is installed, 19 MB that no kernel calls.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

MAPS = Path("/proc/self/smaps")
"""Where Linux tells a process what it has mapped, and what of it is its own."""

SMALLEST_BYTES = 4 << 20
"""Mapped libraries from this size on are worth it: 4 MiB; there are a handful."""

_DO_NOT_NEED = 4
"""``MADV_DONTNEED``: pages go, and come back from the file."""


@contextlib.contextmanager
def not_loading(module: str) -> Iterator[None]:
    """Let a module that is not loaded yet seem not to be installed, for what can do without it."""
    if module in sys.modules:
        yield
        return
    sys.modules[module] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[module]


def release_startup_memory() -> None:
    """Give back libraries' unchanged pages and freed heap; does nothing where that cannot be asked for."""
    libc = ctypes.CDLL(None)
    trim, madvise = getattr(libc, "malloc_trim", None), getattr(libc, "madvise", None)
    if trim is not None:
        trim(0)
    if madvise is None or not MAPS.exists():
        return
    for start, end in unchanged_libraries(MAPS.read_text().splitlines()):
        madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), _DO_NOT_NEED)


def unchanged_libraries(smaps: Iterable[str]) -> Iterator[tuple[int, int]]:
    """Yield where large mappings of libraries start and end that are as their files are.

    A mapping counts only if it cannot be written to and no page of it is the process's own: pages that
    the loader has changed would not come back.
    """
    library = None
    for line in smaps:
        words = line.split()
        if not words[0].endswith(":"):
            start, end = (int(address, 16) for address in words[0].split("-"))
            is_large = end - start >= SMALLEST_BYTES and ".so" in words[-1] and "w" not in words[1]
            library = (start, end) if is_large else None
        elif words[0] == "Anonymous:" and library is not None and words[1] == "0":
            yield library
