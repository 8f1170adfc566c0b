"""Find the slides and regions that look like a slide, in archives of any size and any number of sites."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sish_cluster.client import AsyncClient, Client, ClientSettings
    from sish_cluster.core.errors import SishError
    from sish_cluster.local import open_home

__all__ = ["AsyncClient", "Client", "ClientSettings", "SishError", "open_home"]

_HOMES = {
    "AsyncClient": "sish_cluster.client",
    "Client": "sish_cluster.client",
    "ClientSettings": "sish_cluster.client",
    "SishError": "sish_cluster.core.errors",
    "open_home": "sish_cluster.local",
}
"""Where each public name lives: fetched on first use, so that core imports stay light."""


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
