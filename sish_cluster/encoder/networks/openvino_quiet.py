"""OpenVINO without the part of it that calls out.

``import openvino`` also imports its model converter (``openvino.tools.ovc``), which reports the import to
its vendor's analytics unless the user once opted out. Encoders work where patients' slides lie: nothing may
leave. The converter and the package that reports are therefore made impossible to import in this process,
before the rest of OpenVINO is imported; `openvino_graph` makes the converter unnecessary.

Notes
-----
This is the only file that imports openvino. OpenVINO goes on without its converter: it expects installations
that lack it.
"""

from __future__ import annotations

import functools
import sys
from types import ModuleType
from typing import Any, cast

from sish_cluster.core.errors import EncoderUnavailable

CALL_OUT = ("openvino.tools.ovc", "openvino_telemetry")
"""Modules that report to the vendor; a name that stands for None cannot be imported."""


@functools.cache
def openvino_parts() -> tuple[Any, Any]:
    """Return the module ``openvino`` and its operations.

    Raises
    ------
    EncoderUnavailable
        If it is not installed, or does not load on this machine.
    """
    modules = cast("dict[str, ModuleType | None]", sys.modules)
    for name in CALL_OUT:
        modules.setdefault(name, None)
    try:
        import openvino
        from openvino import opset13
    except (ImportError, OSError) as error:
        raise EncoderUnavailable(
            f"OpenVINO cannot be used here ({error}): install openvino, or use --engine torch"
        ) from error
    return openvino, opset13


def has_openvino() -> bool:
    """Whether OpenVINO is installed and loads."""
    try:
        openvino_parts()
    except EncoderUnavailable:
        return False
    return True
