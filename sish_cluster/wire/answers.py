"""A shard's answer as a stream of parts, and back.

The summary comes first, then the slide table, the candidates and the examined keys, each in parts of
about 1 MiB, so that an answer of any size passes under gRPC's message limit.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from sish_cluster.core.candidate import Candidates, Examined, ShardAnswer
from sish_cluster.core.errors import BadMessage
from sish_cluster.core.slide import Slide
from sish_cluster.wire.columns import (
    bytes_of,
    check_checksum,
    checksum_of,
    column_of,
    pack_deltas,
    unpack_deltas,
)
from sish_cluster.wire.sish.v1 import shard_pb2 as pb
from sish_cluster.wire.values import PART_BYTES, pack_mode, pack_slide, unpack_mode, unpack_slide

_CANDIDATE_ROWS = PART_BYTES // 26
_EXAMINED_ROWS = PART_BYTES // 13
_SLIDE_ROWS = 1000


def answer_parts(answer: ShardAnswer) -> Iterator[pb.SearchResponse]:
    """Yield the parts of an answer, the summary first."""
    yield pb.SearchResponse(summary=_summary(answer))
    for start in range(0, len(answer.slides), _SLIDE_ROWS):
        rows = answer.slides[start : start + _SLIDE_ROWS]
        yield pb.SearchResponse(slides=pb.SlideTable(slides=map(pack_slide, rows)))
    for start in range(0, len(answer.candidates), _CANDIDATE_ROWS):
        part = slice(start, start + _CANDIDATE_ROWS)
        yield pb.SearchResponse(candidates=_packed_candidates(answer.candidates, part))
    if answer.examined is not None:
        for start in range(0, len(answer.examined.keys), _EXAMINED_ROWS):
            part = slice(start, start + _EXAMINED_ROWS)
            yield pb.SearchResponse(examined=_packed_examined(answer.examined, part))


def _summary(answer: ShardAnswer) -> pb.SearchSummary:
    return pb.SearchSummary(
        mode=pack_mode(answer.mode),
        eligible=answer.eligible,
        candidate_counts=bytes_of(np.diff(answer.candidates.offsets), "<u4"),
        examined_counts=bytes_of(answer.examined_counts, "<u8"),
        label_counts=dict(answer.label_counts),
        has_examined=answer.examined is not None,
    )


def _packed_candidates(candidates: Candidates, part: slice) -> pb.PackedCandidates:
    columns = (
        bytes_of(candidates.keys[part], "<u8"),
        bytes_of(candidates.distances[part], "<u2"),
        bytes_of(candidates.slides[part], "<u4"),
        bytes_of(candidates.numbers[part], "<u4"),
        bytes_of(candidates.corners[part], "<i4"),
    )
    keys, distances, slides, numbers, corners = columns
    return pb.PackedCandidates(
        count=len(candidates.keys[part]),
        keys=keys,
        distances=distances,
        slides=slides,
        numbers=numbers,
        corners=corners,
        crc32c=checksum_of(columns),
    )


def _packed_examined(examined: Examined, part: slice) -> pb.PackedExamined:
    lengths, deltas = pack_deltas(examined.keys[part])
    counts = bytes_of(examined.counts[part], "<u4")
    return pb.PackedExamined(
        count=len(examined.keys[part]),
        lengths=lengths,
        deltas=deltas,
        counts=counts,
        crc32c=checksum_of((lengths, deltas, counts)),
    )


class AnswerAssembler:
    """Puts the parts of one search's stream together again."""

    def __init__(self) -> None:
        self._summary: pb.SearchSummary | None = None
        self._slides: list[Slide] = []
        self._candidates: list[pb.PackedCandidates] = []
        self._examined: list[pb.PackedExamined] = []

    def add(self, part: pb.SearchResponse) -> None:
        """Take a part, or raise `BadMessage`."""
        kind = part.WhichOneof("part")
        if (self._summary is None) != (kind == "summary"):
            raise BadMessage(f"a search's answer starts with one summary; found {kind}")
        if kind == "summary":
            self._summary = part.summary
        elif kind == "slides":
            self._slides.extend(map(unpack_slide, part.slides.slides))
        elif kind == "candidates":
            self._candidates.append(part.candidates)
        elif kind == "examined":
            self._examined.append(part.examined)

    def answer(self, n_query_patches: int) -> ShardAnswer:
        """Return the whole answer.

        Raises
        ------
        BadMessage
            If a part is missing or damaged, or a row refers to a slide that was not sent.
        """
        summary = self._summary
        if summary is None:
            raise BadMessage("a search's answer ended before its summary: ask again")
        return ShardAnswer(
            candidates=self._all_candidates(summary, n_query_patches),
            slides=self._slides,
            examined=self._all_examined() if summary.has_examined else None,
            examined_counts=column_of(
                summary.examined_counts, "<i8", count=n_query_patches, field="examined_counts"
            ),
            eligible=summary.eligible,
            label_counts=dict(summary.label_counts),
            mode=unpack_mode(summary.mode),
        )

    def _all_candidates(self, summary: pb.SearchSummary, n_query_patches: int) -> Candidates:
        counts = column_of(
            summary.candidate_counts, "<u4", count=n_query_patches, field="candidate_counts"
        )
        offsets = np.zeros(n_query_patches + 1, np.int64)
        np.cumsum(counts, out=offsets[1:])
        parts = [_unpacked_candidates(part) for part in self._candidates]
        joined = Candidates.empty(n_query_patches) if not parts else _joined(parts, offsets)
        if len(joined) != offsets[-1]:
            raise BadMessage(f"{offsets[-1]} candidates were announced; {len(joined)} came")
        if len(joined) and joined.slides.max() >= len(self._slides):
            raise BadMessage(
                f"a candidate refers to slide {joined.slides.max()} of {len(self._slides)} sent"
            )
        return joined

    def _all_examined(self) -> Examined:
        parts = [_unpacked_examined(part) for part in self._examined]
        if not parts:
            return Examined.empty()
        keys = np.concatenate([part.keys for part in parts])
        if (keys[1:] <= keys[:-1]).any():
            raise BadMessage("examined keys must ascend strictly")
        return Examined(keys, np.concatenate([part.counts for part in parts]))


def _joined(parts: list[Candidates], offsets: npt.NDArray[np.int64]) -> Candidates:
    return Candidates(
        offsets,
        np.concatenate([p.keys for p in parts]),
        np.concatenate([p.distances for p in parts]),
        np.concatenate([p.slides for p in parts]),
        np.concatenate([p.numbers for p in parts]),
        np.concatenate([p.corners for p in parts]),
    )


def _unpacked_candidates(part: pb.PackedCandidates) -> Candidates:
    columns = (part.keys, part.distances, part.slides, part.numbers, part.corners)
    check_checksum(part.crc32c, columns, field="candidates")
    n = part.count
    return Candidates(
        np.array([0, n], np.int64),
        column_of(part.keys, "<u8", count=n, field="candidates.keys"),
        column_of(part.distances, "<u2", count=n, field="candidates.distances"),
        column_of(part.slides, "<u4", count=n, field="candidates.slides"),
        column_of(part.numbers, "<u4", count=n, field="candidates.numbers"),
        column_of(part.corners, "<i4", count=n, field="candidates.corners", width=2),
    )


def _unpacked_examined(part: pb.PackedExamined) -> Examined:
    check_checksum(part.crc32c, (part.lengths, part.deltas, part.counts), field="examined")
    return Examined(
        unpack_deltas(part.lengths, part.deltas, count=part.count),
        column_of(part.counts, "<u4", count=part.count, field="examined.counts"),
    )
