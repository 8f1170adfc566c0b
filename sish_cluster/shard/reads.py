"""What readers ask of one view of a collection: a search, a page of a key range, a key's neighbours.

Everything here works on one `View`, so an answer is of one moment whatever the writer does meanwhile.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from sish_cluster.core.candidate import Candidates, Examined, ShardAnswer
from sish_cluster.core.clock import Cancellation
from sish_cluster.core.code import Codes
from sish_cluster.core.collection import Collection
from sish_cluster.core.errors import BadMessage, BadRequest
from sish_cluster.core.key import UNIVERSE, Keys
from sish_cluster.core.posting import Corners, PatchColumns
from sish_cluster.core.query import AUTO_EXACT_POSTINGS, Filter, Mode, Query
from sish_cluster.core.slide import Slide
from sish_cluster.shard.held import View
from sish_cluster.shard.index import Found
from sish_cluster.shard.ledger import Flags, LedgerView
from sish_cluster.shard.vectors_search import direct

DEFAULT_PAGE_ROWS = 10_000
"""Postings of a page when the caller does not say: about 1.5 MB of 1024-bit codes."""

MOST_PAGE_ROWS = 1_000_000
"""Most postings of a page, before the last key is completed: bounds the memory of one call."""

MOST_NEIGHBOURS = 100_000
"""Most keys each way of one `neighbours` call."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Page:
    """Postings of a key range in (key, slide id, patch number) order.

    Parameters
    ----------
    keys, codes, corners, numbers
        uint64 (n,), uint8 (n, code_bytes), int32 (n, 2), uint32 (n,).
    slide_rows
        uint32 (n,): index into ``slides``.
    slides
        The slides of the page.
    next_page_token
        Where the next page starts; empty at the end.
    """

    keys: Keys
    codes: Codes
    corners: Corners
    numbers: npt.NDArray[np.uint32]
    slide_rows: npt.NDArray[np.uint32]
    slides: Sequence[Slide]
    next_page_token: str


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Neighbours:
    """The occupied keys around a key: descending below it, ascending above it."""

    predecessors: Keys
    successors: Keys
    is_occupied: bool


def check_patches(collection: Collection, patches: PatchColumns, fingerprint: str) -> None:
    """Raise unless a slide was made by the collection's encoder, with just its codes and embeddings."""
    collection.check_fingerprint(fingerprint)
    wanted = (collection.code_bytes, collection.dimensions)
    found = (patches.code_bytes, patches.dimensions)
    if len(patches) and found != wanted:
        raise BadMessage(
            f"collection {collection.name!r} keeps codes of {wanted[0]} bytes ({collection.code_bits}"
            f" bits) and embeddings of {wanted[1]} dimensions; found codes of {found[0]} bytes and"
            f" embeddings of {found[1]} dimensions: encode with the collection's encoder settings",
            field="patches.code_bytes" if found[0] != wanted[0] else "patches.embeddings",
        )


def check_query(collection: Collection, query: Query, mode: Mode) -> None:
    """Raise unless a query can be searched in ``mode`` (not AUTO): it needs only what that compares.

    Raises
    ------
    FingerprintMismatch
        If another encoder made it.
    BadRequest
        If the collection lacks what the mode compares.
    BadMessage
        If the query does, or has it of another length.
    """
    collection.check_fingerprint(query.fingerprint)
    collection.check_mode(mode)
    what, wanted, found = "codes", collection.code_bytes, query.patches.code_bytes
    if mode is Mode.DIRECT:
        what, wanted, found = "embeddings", collection.dimensions, query.patches.dimensions
    if len(query.patches) and found != wanted:
        unit = "dimensions" if mode is Mode.DIRECT else "bytes"
        raise BadMessage(
            f"a search of collection {collection.name!r} in mode {mode.value!r} compares {what} of"
            f" {wanted} {unit}; found {found}: send the query's {what}, made with the collection's"
            " encoder settings",
            field="patches.embeddings" if mode is Mode.DIRECT else "patches.code_bytes",
        )


def resolved_mode(view: View, collection: Collection, query: Query) -> Mode:
    """Return the mode that runs: AUTO becomes one that the collection and the query have what it needs for."""
    if query.settings.mode is not Mode.AUTO:
        return query.settings.mode
    lacks_codes = len(query.patches) > 0 and query.patches.code_bytes == 0
    if Mode.DIRECT in collection.modes and (lacks_codes or not collection.code_bits):
        return Mode.DIRECT
    if Mode.GUIDED not in collection.modes:
        return Mode.EXACT
    eligible = view.slides.eligible(query.where)
    is_small = int(view.slides.postings[eligible].sum()) <= AUTO_EXACT_POSTINGS
    return Mode.EXACT if is_small else Mode.GUIDED


def answer(
    view: View,
    query: Query,
    mode: Mode,
    *,
    wants_examined: bool,
    cancellation: Cancellation,
    n_threads: int,
) -> ShardAnswer:
    """Return the candidates of a slide query.

    Parameters
    ----------
    view
        The moment searched.
    query
        What is asked.
    mode
        How it is searched, not AUTO; see `resolved_mode`.
    wants_examined
        Return mergeable candidates and the examined keys.
    cancellation
        Asked between blocks of work.
    n_threads
        Threads that may work on it.
    """
    eligible = view.slides.eligible(query.where)
    settings = dataclasses.replace(query.settings, mode=mode)
    if mode is Mode.DIRECT:
        found = direct(
            view.snapshot,
            view.vectors,
            query.patches.embeddings,
            settings,
            eligible=eligible,
            slide_ids_of=view.slides.slide_ids_of,
            cancellation=cancellation,
            n_threads=n_threads,
        )
    else:
        found = view.snapshot.search(
            query.patches.keys,
            query.patches.codes,
            settings,
            eligible=eligible,
            slide_ids_of=view.slides.slide_ids_of,
            mergeable=wants_examined,
            cancellation=cancellation,
            n_threads=n_threads,
            passing=view.slides.passing(query.where),
        )
    chosen, rows = np.unique(found.ordinals, return_inverse=True)
    return ShardAnswer(
        candidates=_candidates(found, rows),
        slides=view.slides.slides_of(chosen),
        examined=_examined(found) if wants_examined else None,
        examined_counts=np.asarray(found.examined_counts, np.int64),
        eligible=int(found.eligible),
        label_counts=_label_counts(view.slides, query, eligible),
        mode=settings.mode,
    )


def _candidates(found: Found, rows: npt.NDArray[np.integer]) -> Candidates:
    return Candidates(
        offsets=np.asarray(found.offsets, np.int64),
        keys=found.keys,
        distances=np.asarray(found.distances, np.uint16),
        slides=rows.astype(np.uint32).reshape(-1),
        numbers=found.numbers,
        corners=found.corners,
    )


def _examined(found: Found) -> Examined:
    if found.examined_keys is None or found.examined_key_counts is None:
        return Examined.empty()
    return Examined(found.examined_keys, np.asarray(found.examined_key_counts, np.uint32))


def _label_counts(slides: LedgerView, query: Query, eligible: Flags) -> dict[str, int]:
    chosen = eligible & slides.is_home
    if query.patient:
        own = Filter.of(leave_out={"patient": [query.patient]})
        chosen = chosen & slides.eligible(own)
    return slides.label_counts(query.label_field, chosen)


def page(
    view: View,
    collection: Collection,
    wanted: tuple[int, int],
    *,
    where: Filter,
    page_size: int,
    page_token: str,
) -> Page:
    """Return the next page of the postings with keys in ``[start, end)``, never cutting a key in two.

    Raises
    ------
    BadRequest
        If the range, the size or the token is out of bounds.
    """
    start, end = wanted
    if not 0 <= start < end <= UNIVERSE:
        raise BadRequest(
            f"a key range is 0 <= start < end <= {UNIVERSE} (2**50); found [{start}, {end})",
            field="start",
        )
    if page_size > MOST_PAGE_ROWS:
        raise BadRequest(
            f"a page has at most {MOST_PAGE_ROWS} postings; found {page_size}", field="page_size"
        )
    rows = view.snapshot.range_rows(
        start,
        end,
        eligible=view.slides.eligible(where),
        limit=page_size or DEFAULT_PAGE_ROWS,
        after=_after(page_token, start, end),
    )
    chosen, places = np.unique(rows.ordinals, return_inverse=True)
    slides = view.slides.slides_of(chosen)
    ids = np.array([slide.slide_id for slide in slides], dtype=object)
    id_ranks = np.argsort(np.argsort(ids)) if len(ids) else np.zeros(0, np.int64)
    order = np.lexsort((rows.numbers, id_ranks[places], rows.keys))
    is_last = len(order) < (page_size or DEFAULT_PAGE_ROWS)
    return Page(
        keys=rows.keys[order],
        codes=rows.codes[order].reshape(len(order), collection.code_bytes),
        corners=rows.corners[order],
        numbers=rows.numbers[order],
        slide_rows=places[order].astype(np.uint32),
        slides=slides,
        next_page_token="" if is_last else f"after-{int(rows.keys[order[-1]])}",
    )


def _after(page_token: str, start: int, end: int) -> int | None:
    if not page_token:
        return None
    name, _, number = page_token.partition("-")
    if name != "after" or not number.isdigit() or not start <= int(number) < end:
        raise BadRequest(
            f"page_token {page_token!r} is not one of the range [{start}, {end}): pass the"
            " next_page_token of the page before, with the same range",
            field="page_token",
        )
    return int(number)


def neighbours(
    view: View, key: int, *, predecessors: int, successors: int, where: Filter
) -> Neighbours:
    """Return the occupied eligible keys nearest below and above ``key``.

    Raises
    ------
    BadRequest
        If the key or a count is out of bounds.
    """
    if not 0 <= key < UNIVERSE:
        raise BadRequest(f"key must be 0..{UNIVERSE - 1}; found {key}", field="key")
    for name, count in (("predecessors", predecessors), ("successors", successors)):
        if not 0 <= count <= MOST_NEIGHBOURS:
            raise BadRequest(f"{name} must be 0..{MOST_NEIGHBOURS}; found {count}", field=name)
    below, above, is_occupied = view.snapshot.neighbours(
        key, n_below=predecessors, n_above=successors, eligible=view.slides.eligible(where)
    )
    return Neighbours(below, above, bool(is_occupied))
