"""What a collection's calibration says about one search: a warning where its recall falls below the target."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sish_cluster.core.query import Mode, Query
from sish_cluster.core.result import SearchResult
from sish_cluster.local.home import home_folder


def recall_warning(query: Query, result: SearchResult, options: Mapping[str, Any]) -> str:
    """Return the warning of a search that has run, or ``""``.

    Parameters
    ----------
    query, result
        What was asked, what came back.
    options
        Of a command with ``collection``, ``home`` and ``calibration`` (a file of ``sish calibrate``; None
        looks beside the embedded cluster).
    """
    if result.mode not in (Mode.SISH, Mode.GUIDED):
        return ""
    from sish_cluster.evaluation.calibration import (
        calibration_path,
        read_calibration,
        warning_for,
    )

    given: Path | None = options["calibration"]
    path = given or calibration_path(home_folder(options["home"]), options["collection"])
    calibration = read_calibration(path)
    if calibration is None or calibration.fingerprint != query.fingerprint:
        return ""
    return warning_for(result.mode, query.settings, calibration, postings=result.eligible)
