"""A table of postings as Parquet: a row group a slide or more, the heading in the file's metadata."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from sish_cluster.core.errors import BadFile, BadRequest
from sish_cluster.core.posting import EncodedSlide
from sish_cluster.exchange.source import SlideSource
from sish_cluster.exchange.table_rows import Heading, Row, rows_of, slides_of

HEADING = b"sish"
"""Key of the heading in the file's metadata."""

ROWS_AT_ONCE = 1024
"""Rows read at once: 8 MiB of 2,048 numbers."""

ROWS_PER_GROUP = 16_384
"""Rows gathered before they are written: few slides have as many, so groups hold several."""


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow  # type: ignore[import-untyped]
        import pyarrow.parquet  # type: ignore[import-untyped]
    except ModuleNotFoundError as error:
        raise BadRequest(
            "Parquet needs pyarrow, which is not installed: pip install 'sish-cluster[exchange]', or use"
            " JSON Lines (--to jsonl)"
        ) from error
    return pyarrow, pyarrow.parquet


def _schema(pyarrow: Any, heading: Heading) -> Any:
    text, whole = pyarrow.string(), pyarrow.int64()
    names = ("slide_id", "patient", "site", "diagnosis", "institution", "labels")
    columns = [(name, text) for name in names]
    columns += [("mpp", pyarrow.float64())]
    columns += [(name, whole) for name in ("width_px", "height_px", "patch_side_px")]
    columns += [("digest", text), ("number", whole), ("key", whole), ("code", text)]
    columns += [("x", whole), ("y", whole), ("embedding", pyarrow.list_(pyarrow.float32()))]
    return pyarrow.schema(columns, metadata={HEADING: heading.as_json().encode()})


def write_parquet(path: Path, heading: Heading, slides: Iterable[EncodedSlide]) -> int:
    """Write slides as they come; return the rows written."""
    pyarrow, parquet = _pyarrow()
    schema = _schema(pyarrow, heading)
    count = 0
    pending: list[Row] = []
    with parquet.ParquetWriter(str(path), schema, compression="zstd") as writer:
        for slide in slides:
            for row in rows_of(slide):
                pending.append({**row, "labels": json.dumps(row["labels"], ensure_ascii=False)})
            if len(pending) >= ROWS_PER_GROUP:
                count += _flushed(writer, pyarrow, pending, schema)
        count += _flushed(writer, pyarrow, pending, schema)
    return count


def _flushed(writer: Any, pyarrow: Any, pending: list[Row], schema: Any) -> int:
    if pending:
        writer.write_table(pyarrow.Table.from_pylist(pending, schema=schema))
    count = len(pending)
    pending.clear()
    return count


def parquet_source(path: Path) -> SlideSource:
    """Return the slides of a Parquet table.

    Raises
    ------
    BadFile
        If it cannot be read or has no heading.
    """
    pyarrow, parquet = _pyarrow()
    try:
        with parquet.ParquetFile(str(path)) as file:
            metadata = file.schema_arrow.metadata or {}
    except (OSError, pyarrow.ArrowException) as error:
        raise BadFile(f"{path}: cannot be read as Parquet ({error}); check it") from error
    heading = Heading.parsed(metadata.get(HEADING), source=str(path))
    return SlideSource(heading.collection, heading.n_slides, slides_of(_rows(path), heading))


def _rows(path: Path) -> Iterator[tuple[str, Row]]:
    _, parquet = _pyarrow()
    number = 0
    with parquet.ParquetFile(str(path)) as file:
        for batch in file.iter_batches(batch_size=ROWS_AT_ONCE):
            for row in batch.to_pylist():
                yield f"{path} row {number}", _with_labels(row)
                number += 1


def _with_labels(row: Row) -> Row:
    try:
        return {**row, "labels": json.loads(row["labels"]), "embedding": row["embedding"] or []}
    except (KeyError, TypeError, ValueError):
        return {}
