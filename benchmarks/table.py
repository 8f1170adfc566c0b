"""The table of the index's benchmarks, written into a document between two markers.

    python -m benchmarks.table benchmarks/out/index.json README.md

The document has two lines ``<!-- index table -->`` and ``<!-- end of index table -->``; what stands between
them is replaced. With ``--check`` nothing is written, and a table that differs is an error.
"""

import argparse
import json
import sys
from pathlib import Path

from benchmarks.index.measure import Row, shown

START, END = "<!-- index table -->", "<!-- end of index table -->"


def table(report):
    """Return the Markdown table of a report, with the machine and the commit below it."""
    heads, *lines = shown([Row(**line) for line in report["rows"]])
    cells = [heads, ["---"] * len(heads), *lines]
    rows = ["| " + " | ".join(str(cell) for cell in line) + " |" for line in cells]
    machine = report["machine"]
    facts = (
        f"{machine['processor']}, {machine['cores']} cores, {machine['system']},"
        f" Python {machine['python']}, numpy {machine['numpy']}, numba {machine['numba']},"
        f" commit {machine['commit']}, load {machine['load_1min']:.1f} at the start."
    )
    return "\n".join([*rows, "", facts])


def written(document, text):
    """Return a document with the text between its markers.

    Raises
    ------
    SystemExit
        If the document does not have each marker once, in order.
    """
    before, found, rest = document.partition(START)
    _, ended, after = rest.partition(END)
    if not found or not ended or START in after or END in after:
        raise SystemExit(f"the document needs one line {START!r} and, after it, one line {END!r}")
    return f"{before}{START}\n{text}\n{END}{after}"


def main():
    """Write the table, or check it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("report", type=Path, help="JSON that make bench-index wrote")
    parser.add_argument("document", type=Path, help="Markdown file with the two markers")
    parser.add_argument("--check", action="store_true", help="only say whether it is up to date")
    flags = parser.parse_args()
    document = flags.document.read_text()
    whole = written(document, table(json.loads(flags.report.read_text())))
    if flags.check and whole != document:
        sys.exit(f"{flags.document} does not show {flags.report}: run this without --check")
    if not flags.check:
        flags.document.write_text(whole)


if __name__ == "__main__":
    main()
