"""A table of postings as Parquet: a row group a slide or more, the heading in the file's metadata."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from sish_cluster.core.errors import BadFile, BadRequest
from sish_cluster.core.posting import EncodedSlide
from sish_cluster.exchange.source import SlideSource
from sish_cluster.exchange.table_rows import SLIDE_COLUMNS, Heading, Row, slides_of

HEADING = b"sish"
"""Key of the heading in the file's metadata."""

ROWS_AT_ONCE = 1024
"""Rows read at once: 8 MiB of 2,048 numbers."""

ROWS_PER_GROUP = 4096
"""Rows gathered before they are written, 32 MiB of 2,048 numbers: a group holds several mosaics."""


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
    with parquet.ParquetWriter(
        str(path), schema, compression="zstd", write_page_checksum=True
    ) as writer:
        pending: list[Any] = []
        for slide in slides:
            for start in range(0, len(slide.patches), ROWS_PER_GROUP):
                pending.append(_table_of(pyarrow, schema, slide, start))
                count += pending[-1].num_rows
                if sum(table.num_rows for table in pending) >= ROWS_PER_GROUP:
                    writer.write_table(pyarrow.concat_tables(pending))
                    pending.clear()
        if pending:
            writer.write_table(pyarrow.concat_tables(pending))
    return count


def _table_of(pyarrow: Any, schema: Any, encoded: EncodedSlide, start: int) -> Any:
    """Return at most `ROWS_PER_GROUP` rows of a slide, column by column: embeddings stay packed."""
    rows = slice(start, start + ROWS_PER_GROUP)
    patches = encoded.patches
    n, d = patches.embeddings[rows].shape
    about = encoded.slide.to_dict()
    about["labels"] = json.dumps(about["labels"], ensure_ascii=False)
    values = pyarrow.array(patches.embeddings[rows].astype(np.float32).ravel())
    offsets = pyarrow.array(np.arange(n + 1, dtype=np.int32) * d)
    columns = {
        **{name: [about[name]] * n for name in SLIDE_COLUMNS},
        "number": patches.numbers[rows].astype(np.int64),
        "key": patches.keys[rows].astype(np.int64),
        "code": [code.tobytes().hex() for code in patches.codes[rows]],
        "x": patches.corners[rows, 0].astype(np.int64),
        "y": patches.corners[rows, 1].astype(np.int64),
        "embedding": pyarrow.ListArray.from_arrays(offsets, values),
    }
    arrays = [pyarrow.array(columns[field.name], field.type) for field in schema]
    return pyarrow.Table.from_arrays(arrays, schema=schema)


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
    pyarrow, parquet = _pyarrow()
    number = 0
    try:
        with parquet.ParquetFile(str(path), page_checksum_verification=True) as file:
            for batch in file.iter_batches(batch_size=ROWS_AT_ONCE):
                for row in batch.to_pylist():
                    yield f"{path} row {number}", _with_labels(row)
                    number += 1
    except (OSError, pyarrow.ArrowException) as error:
        raise BadFile(
            f"{path}: is damaged after row {number} ({error}); what was read before stays imported"
        ) from error


def _with_labels(row: Row) -> Row:
    """Return a row with its labels as a mapping; where they are none, as they are: then they are refused."""
    if row.get("embedding", 0) is None:
        row["embedding"] = []
    with contextlib.suppress(KeyError, TypeError, ValueError):
        row["labels"] = json.loads(row["labels"])
    return row
