"""A table of postings as JSON Lines: the heading, then a row a line; read and written as a stream."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from sish_cluster.core.errors import BadFile
from sish_cluster.core.posting import EncodedSlide
from sish_cluster.exchange.source import SlideSource
from sish_cluster.exchange.table_rows import Heading, Row, rows_of, slides_of

MAX_LINE = 1 << 20
"""Characters of a line at most: a row of 16,384 numbers has a third of that."""


def write_jsonl(path: Path, heading: Heading, slides: Iterable[EncodedSlide]) -> int:
    """Write slides as they come; return the rows written."""
    count = 0
    with path.open("w", encoding="utf-8") as file:
        file.write(heading.as_json() + "\n")
        for slide in slides:
            for row in rows_of(slide):
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
                count += 1
    return count


def jsonl_source(path: Path) -> SlideSource:
    """Return the slides of a JSON Lines table.

    Raises
    ------
    BadFile
        If it cannot be read or has no heading.
    """
    try:
        with path.open(encoding="utf-8") as file:
            heading = Heading.parsed(file.readline(MAX_LINE), source=str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise BadFile(f"{path}: cannot be read ({error}); check it") from error
    return SlideSource(heading.collection, heading.n_slides, slides_of(_rows(path), heading))


def _rows(path: Path) -> Iterator[tuple[str, Row]]:
    with path.open(encoding="utf-8", errors="replace") as file:
        file.readline(MAX_LINE)
        line_number = 1
        while line := file.readline(MAX_LINE):
            line_number += 1
            place = f"{path} line {line_number}"
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = {}
            yield place, row if isinstance(row, dict) else {}
