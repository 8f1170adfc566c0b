"""How a failure ends: one red line that says what to do, and an exit code a script can act on.

=====  ==========================================================================
code   meaning
=====  ==========================================================================
0      done
1      refused: the request or the data has to change (also: asked the wrong shard)
2      usage: the command line cannot be read
3      unavailable or out of time: the same command may succeed later
4      partly done: some slides failed, all others are done
5      broken: damaged data, or a bug of ours
130    interrupted (Control-C)
=====  ==========================================================================
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import NoReturn

import click
from rich.console import Console
from rich.markup import escape

from sish_cluster.core.errors import (
    Cancelled,
    DeadlineExceeded,
    Moved,
    Refused,
    SishError,
    Unavailable,
)

DONE = 0
REFUSED = 1
USAGE = 2
UNAVAILABLE = 3
PARTLY_DONE = 4
BROKEN = 5
INTERRUPTED = 130
"""The shell's own code for Control-C: 128 + SIGINT."""

EXIT_CODES: dict[type[SishError], int] = {
    Refused: REFUSED,
    Moved: REFUSED,
    Unavailable: UNAVAILABLE,
    DeadlineExceeded: UNAVAILABLE,
    Cancelled: INTERRUPTED,
    SishError: BROKEN,
}
"""Second level of the error tree -> exit code; the first class that fits decides."""

ENCODER_PACKAGES = frozenset(
    {"torch", "ray", "openslide", "cv2", "sklearn", "skimage", "safetensors", "h5py", "PIL"}
)
"""What the extra ``encoder`` installs: a core install has none of it."""


def exit_code_of(error: SishError) -> int:
    """Return the exit code of an error.

    Examples
    --------
    >>> from sish_cluster.core.errors import BadSlide, StoreFull
    >>> exit_code_of(BadSlide("x")), exit_code_of(StoreFull("x"))
    (1, 3)
    """
    return next(code for cls, code in EXIT_CODES.items() if isinstance(error, cls))


@contextlib.contextmanager
def told_plainly(*, is_debug: bool) -> Iterator[None]:
    """Turn what a command raises into a red line and an exit code; with ``is_debug``, a traceback too."""
    try:
        yield
    except SishError as error:
        _end(error.message, exit_code_of(error), error, is_debug=is_debug)
    except KeyboardInterrupt as error:
        _end("interrupted: what was stored stays stored", INTERRUPTED, error, is_debug=is_debug)
    except (click.ClickException, click.exceptions.Exit, click.Abort):
        raise
    except Exception as error:
        message, code = _explained(error)
        _end(message, code, error, is_debug=is_debug)


def _explained(error: Exception) -> tuple[str, int]:
    """Return what to say about an error nobody named, and its exit code."""
    if isinstance(error, ModuleNotFoundError):
        package = (error.name or "").partition(".")[0]
        if package in ENCODER_PACKAGES:
            message = (
                f"this command reads or encodes slides and needs {package}, which is not installed:"
                " pip install 'sish-cluster[encoder]', or use --encoder HOST:PORT"
            )
            return message, REFUSED
        if package == "matplotlib":
            message = (
                "figures need matplotlib, which is not installed: pip install 'sish-cluster[evaluation]',"
                " or leave out --out"
            )
            return message, REFUSED
    message = (
        f"{type(error).__name__}: {error}\nThis is a bug of sish: run the command again with"
        " `sish --debug ...` and report what it prints"
    )
    return message, BROKEN


def _end(message: str, code: int, error: BaseException, *, is_debug: bool) -> NoReturn:
    console = Console(stderr=True, soft_wrap=True)
    if is_debug:
        console.print_exception(show_locals=False)
    console.print(f"[bold red]error:[/] [red]{escape(message)}[/]", highlight=False)
    raise SystemExit(code) from (error if is_debug else None)


def warned(message: str) -> None:
    """Print one yellow line to standard error."""
    Console(file=sys.stderr, soft_wrap=True).print(
        f"[yellow]warning:[/] {escape(message)}", highlight=False
    )
