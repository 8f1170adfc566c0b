"""Values as messages and back: one ``pack_*`` and one ``unpack_*`` a value.

Everything that comes in is checked (lengths, checksums, bounds) before it becomes a value.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from sish_cluster.core.collection import Collection, CollectionState
from sish_cluster.core.embedding import MAX_DIMENSIONS
from sish_cluster.core.errors import BadMessage, SishError
from sish_cluster.core.key import checked_keys
from sish_cluster.core.posting import MAX_PATCHES, EncodedSlide, PatchColumns
from sish_cluster.core.query import Filter, Mode, Query, Ranking, SearchSettings
from sish_cluster.core.slide import Slide
from sish_cluster.wire.columns import bytes_of, check_checksum, checksum_of, column_of
from sish_cluster.wire.sish.v1 import common_pb2 as pb

LAYOUT_VERSION = 1
"""Layout of `pb.PackedPatches` columns."""

PART_BYTES = 1 << 20
"""Target size of one streamed message: fast, and well under gRPC's 4 MiB."""

MIN_COSINE = SearchSettings().min_cosine
"""Bound of a DIRECT search whose message does not set one."""

_MODES = {
    pb.MODE_UNSPECIFIED: Mode.AUTO,
    pb.MODE_AUTO: Mode.AUTO,
    pb.MODE_SISH: Mode.SISH,
    pb.MODE_GUIDED: Mode.GUIDED,
    pb.MODE_EXACT: Mode.EXACT,
    pb.MODE_DIRECT: Mode.DIRECT,
}
_RANKINGS = {
    pb.RANKING_UNSPECIFIED: Ranking.UNCERTAINTY,
    pb.RANKING_UNCERTAINTY: Ranking.UNCERTAINTY,
    pb.RANKING_SISH: Ranking.SISH,
    pb.RANKING_RRF: Ranking.RRF,
    pb.RANKING_RETCCL: Ranking.RETCCL,
}
_MODE_NUMBERS = {mode: number for number, mode in _MODES.items()}
_RANKING_NUMBERS = {ranking: number for number, ranking in _RANKINGS.items()}


def pack_slide(slide: Slide) -> pb.Slide:
    """Return a slide as a message."""
    return pb.Slide(**slide.to_dict())  # type: ignore[arg-type]


def unpack_slide(message: pb.Slide) -> Slide:
    """Return the slide of a message."""
    return Slide(
        slide_id=message.slide_id,
        patient=message.patient,
        site=message.site,
        diagnosis=message.diagnosis,
        institution=message.institution,
        labels=dict(message.labels),
        mpp=message.mpp,
        width_px=message.width_px,
        height_px=message.height_px,
        patch_side_px=message.patch_side_px,
        digest=message.digest,
    )


def pack_patches(patches: PatchColumns) -> pb.PackedPatches:
    """Return patch columns as a message, with their checksum."""
    columns = (
        bytes_of(patches.keys, "<u8"),
        bytes_of(patches.codes, "u1"),
        bytes_of(patches.corners, "<i4"),
        bytes_of(patches.numbers, "<u4"),
        bytes_of(patches.embeddings, "<f2"),
    )
    keys, codes, corners, numbers, embeddings = columns
    return pb.PackedPatches(
        layout_version=LAYOUT_VERSION,
        count=len(patches),
        code_bytes=patches.code_bytes,
        keys=keys,
        codes=codes,
        corners=corners,
        numbers=numbers,
        crc32c=checksum_of(columns),
        dimensions=patches.dimensions,
        embeddings=embeddings,
    )


def unpack_patches(message: pb.PackedPatches) -> PatchColumns:
    """Return the patch columns of a message.

    Raises
    ------
    BadMessage
        If the layout, a length, the checksum or the order of the numbers is wrong.
    BadKey
        If a key is out of range.
    """
    _check_layout(message)
    count, width = message.count, message.code_bytes
    columns = (
        message.keys, message.codes, message.corners, message.numbers, message.embeddings
    )  # fmt: skip
    codes = column_of(message.codes, "u1", count=count, field="patches.codes", width=width)
    corners = column_of(message.corners, "<i4", count=count, field="patches.corners", width=2)
    numbers = column_of(message.numbers, "<u4", count=count, field="patches.numbers")
    keys = column_of(message.keys, "<u8", count=count, field="patches.keys")
    embeddings = column_of(
        message.embeddings, "<f2", count=count, field="patches.embeddings", width=message.dimensions
    )
    check_checksum(message.crc32c, columns, field="patches")
    return PatchColumns(
        checked_keys(keys, field="patches.keys"),
        codes,
        corners,
        numbers,
        embeddings.reshape(count, message.dimensions),
    )


def _check_layout(message: pb.PackedPatches) -> None:
    if message.layout_version != LAYOUT_VERSION:
        raise BadMessage(
            f"patches use layout {message.layout_version}, this side reads layout {LAYOUT_VERSION}:"
            " use matching versions of client and server",
            field="patches.layout_version",
        )
    if message.count > MAX_PATCHES:
        raise BadMessage(
            f"at most {MAX_PATCHES} patches; found {message.count}", field="patches.count"
        )
    if message.code_bytes % 8:
        raise BadMessage(
            f"code_bytes is a multiple of 8; found {message.code_bytes}",
            field="patches.code_bytes",
        )
    if message.dimensions > MAX_DIMENSIONS:
        raise BadMessage(
            f"an embedding has at most {MAX_DIMENSIONS} numbers; found {message.dimensions}",
            field="patches.dimensions",
        )


def pack_collection(collection: Collection) -> pb.Collection:
    """Return a collection's definition as a message."""
    return pb.Collection(
        name=collection.name,
        fingerprint=collection.fingerprint,
        code_bits=collection.code_bits,
        max_distance=collection.max_distance,
        encoder=collection.encoder,
        dimensions=collection.dimensions,
        lacks_keys=not collection.has_keys,
    )


def unpack_collection(message: pb.Collection) -> Collection:
    """Return the collection of a message."""
    return Collection(
        message.name,
        message.fingerprint,
        message.code_bits,
        message.max_distance,
        message.encoder,
        message.dimensions,
        not message.lacks_keys,
    )


def pack_collection_state(state: CollectionState) -> pb.CollectionState:
    """Return a collection's state as a message."""
    return pb.CollectionState(
        collection=pack_collection(state.collection),
        slides=state.slides,
        postings=state.postings,
        pending=state.pending,
        label_counts={
            name: pb.LabelCounts(counts=dict(counts)) for name, counts in state.label_counts.items()
        },
    )


def unpack_collection_state(message: pb.CollectionState) -> CollectionState:
    """Return the collection's state of a message."""
    return CollectionState(
        unpack_collection(message.collection),
        message.slides,
        message.postings,
        message.pending,
        {name: dict(counts.counts) for name, counts in message.label_counts.items()},
    )


def pack_filter(where: Filter) -> pb.Filter:
    """Return a filter as a message."""
    return pb.Filter(
        keep={name: pb.LabelValues(values=sorted(values)) for name, values in where.keep.items()},
        leave_out={
            name: pb.LabelValues(values=sorted(values)) for name, values in where.leave_out.items()
        },
    )


def unpack_filter(message: pb.Filter) -> Filter:
    """Return the filter of a message."""
    return Filter.of(
        keep={name: values.values for name, values in message.keep.items()},
        leave_out={name: values.values for name, values in message.leave_out.items()},
    )


def pack_settings(settings: SearchSettings) -> pb.SearchSettings:
    """Return search settings as a message."""
    return pb.SearchSettings(
        mode=pack_mode(settings.mode),
        max_distance=settings.max_distance,
        seeds_per_side=settings.seeds_per_side,
        seed_spacing=settings.seed_spacing,
        max_steps=settings.max_steps,
        max_candidates=settings.max_candidates,
        min_cosine=settings.min_cosine,
    )


def unpack_settings(message: pb.SearchSettings) -> SearchSettings:
    """Return the search settings of a message."""
    return SearchSettings(
        mode=unpack_mode(message.mode),
        max_distance=message.max_distance,
        seeds_per_side=message.seeds_per_side,
        seed_spacing=message.seed_spacing,
        max_steps=message.max_steps,
        max_candidates=message.max_candidates,
        min_cosine=message.min_cosine if message.HasField("min_cosine") else MIN_COSINE,
    )


def pack_mode(mode: Mode) -> pb.Mode:
    """Return a mode's number."""
    return _MODE_NUMBERS[mode]


def unpack_mode(number: int) -> Mode:
    """Return the mode of a number, or raise `BadMessage`."""
    if number not in _MODES:
        raise BadMessage(f"mode {number} is unknown to this version", field="settings.mode")
    return _MODES[number]  # type: ignore[index]


def pack_ranking(ranking: Ranking) -> pb.Ranking:
    """Return a ranking's number."""
    return _RANKING_NUMBERS[ranking]


def unpack_ranking(number: int) -> Ranking:
    """Return the ranking of a number, or raise `BadMessage`."""
    if number not in _RANKINGS:
        raise BadMessage(f"ranking {number} is unknown to this version", field="ranking")
    return _RANKINGS[number]  # type: ignore[index]


def pack_query(query: Query) -> pb.Query:
    """Return a query as a message."""
    return pb.Query(
        patches=pack_patches(query.patches),
        fingerprint=query.fingerprint,
        settings=pack_settings(query.settings),
        where=pack_filter(query.where),
        label_field=query.label_field,
        patient=query.patient,
    )


def unpack_query(message: pb.Query) -> Query:
    """Return the query of a message; an empty label field means the diagnosis."""
    return Query(
        patches=unpack_patches(message.patches),
        fingerprint=message.fingerprint,
        settings=unpack_settings(message.settings),
        where=unpack_filter(message.where),
        label_field=message.label_field or "diagnosis",
        patient=message.patient,
    )


def slide_parts(encoded: EncodedSlide) -> Iterator[pb.EncodedSlidePart]:
    """Yield an encoded slide as messages of about `PART_BYTES`, the last one marked."""
    row_bytes = 20 + encoded.patches.code_bytes + 2 * encoded.patches.dimensions
    rows = max(1, PART_BYTES // row_bytes)
    n = len(encoded.patches)
    for start in range(0, max(n, 1), rows):
        chosen = np.arange(start, min(start + rows, n))
        yield pb.EncodedSlidePart(
            slide=pack_slide(encoded.slide),
            patches=pack_patches(encoded.patches.taken(chosen)),
            fingerprint=encoded.fingerprint,
            version=encoded.version,
            is_last=start + rows >= n,
        )


class SlideAssembler:
    """Puts the parts of one stream's slides together again, one slide after the other."""

    def __init__(self) -> None:
        self._columns: list[PatchColumns] = []
        self._unfinished: tuple[str, str] | None = None
        self._refused: tuple[str, str] | None = None

    def add(self, part: pb.EncodedSlidePart) -> EncodedSlide | None:
        """Take a part; return the slide when it was the last one.

        Raises
        ------
        BadMessage
            If the part is damaged, or belongs to another slide than the unfinished one. The
            unfinished slide is dropped with the rest of its parts; the stream can go on with the
            next slide.
        """
        identity = (part.slide.slide_id, part.version)
        if self._is_rest_of_refused(identity, part.is_last):
            return None
        try:
            self._take(part, identity)
            return self._finished(part) if part.is_last else None
        except SishError:
            self._drop(None if part.is_last else identity)
            raise

    def _is_rest_of_refused(self, identity: tuple[str, str], is_last: bool) -> bool:
        if identity != self._refused:
            return False
        if is_last:
            self._refused = None
        return True

    def _take(self, part: pb.EncodedSlidePart, identity: tuple[str, str]) -> None:
        if self._unfinished not in (None, identity):
            raise BadMessage(
                f"slide {self._unfinished} was not finished before {identity} began:"
                " mark a slide's last part with is_last"
            )
        self._unfinished = identity
        self._columns.append(unpack_patches(part.patches))
        if sum(map(len, self._columns)) > MAX_PATCHES:
            raise BadMessage(f"slide {identity[0]!r}: at most {MAX_PATCHES} patches")

    def _finished(self, part: pb.EncodedSlidePart) -> EncodedSlide:
        patches = _joined(self._columns)
        slide = unpack_slide(part.slide)
        self._drop(None)
        return EncodedSlide(slide, patches, part.fingerprint, part.version)

    def _drop(self, refused: tuple[str, str] | None) -> None:
        self._columns, self._unfinished, self._refused = [], None, refused


def _joined(columns: list[PatchColumns]) -> PatchColumns:
    if len(columns) == 1:
        return columns[0]
    widths = {(c.code_bytes, c.dimensions) for c in columns}
    if len(widths) > 1:
        raise BadMessage(
            f"a slide's parts must agree on code_bytes and dimensions; found {sorted(widths)}"
        )
    return PatchColumns(
        np.concatenate([c.keys for c in columns]),
        np.concatenate([c.codes for c in columns]),
        np.concatenate([c.corners for c in columns]),
        np.concatenate([c.numbers for c in columns]),
        np.concatenate([c.embeddings for c in columns]),
    )
