"""``results.pkl``: what the published search leaves for the published evaluation.

A dict, query slide -> ``{"results": ..., "label_query": ...}``. ``results`` has a list per query patch, in
patch order, of that patch's candidates in the search's order; each candidate is a dict with

- ``slide_name``, ``diagnosis``, ``site``: whose it is,
- ``hamming_dist``: the distance, bits,
- ``x``, ``y``: its corner, level-0 pixels (ours; published tools ignore what they do not know).

``label_query`` is the query slide's own label. Slides are ranked by the tool that reads the file, as published.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from sish_cluster.core.result import PatchesResult
from sish_cluster.core.slide import Slide
from sish_cluster.exchange.pickle_stream import write_pickled_items


def write_results(
    path: Path, searches: Iterable[tuple[Slide, PatchesResult]], *, label_field: str = "diagnosis"
) -> int:
    """Write searches, (query slide, its candidates) each, as they come; return how many there were.

    Parameters
    ----------
    path
        Where to.
    searches
        Drawn one at a time.
    label_field
        The label of ``label_query``: ``diagnosis``, or ``site`` for organ retrieval.
    """
    return write_pickled_items(path, _items(searches, label_field))


def _items(
    searches: Iterable[tuple[Slide, PatchesResult]], label_field: str
) -> Iterator[tuple[str, dict[str, object]]]:
    for query, found in searches:
        patches = [_candidates(found, row) for row in range(found.candidates.n_query_patches)]
        yield query.slide_id, {"results": patches, "label_query": query.label(label_field)}


def _candidates(found: PatchesResult, patch: int) -> list[dict[str, object]]:
    rows = found.candidates.rows_of(patch)
    columns = zip(
        found.candidates.slides[rows].tolist(),
        found.candidates.distances[rows].tolist(),
        found.candidates.corners[rows].tolist(),
        strict=True,
    )
    return [
        {
            "slide_name": found.slides[slide].slide_id,
            "hamming_dist": distance,
            "diagnosis": found.slides[slide].diagnosis,
            "site": found.slides[slide].site,
            "x": corner[0],
            "y": corner[1],
        }
        for slide, distance, corner in columns
    ]
