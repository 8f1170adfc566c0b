"""A patch search's answer as a stream of parts, and back: facts first, then what a shard would send."""

from __future__ import annotations

from collections.abc import Iterator

from sish_cluster.core.candidate import ShardAnswer
from sish_cluster.core.errors import BadMessage
from sish_cluster.core.result import PatchesResult
from sish_cluster.wire.answers import AnswerAssembler, answer_parts
from sish_cluster.wire.sish.v1 import router_pb2 as pb


def patches_parts(result: PatchesResult) -> Iterator[pb.RouterServiceSearchPatchesResponse]:
    """Yield the parts of an answer, the facts first."""
    facts = pb.PatchesFacts(
        mode_reason=result.mode_reason,
        missing_shards=result.missing_shards,
        elapsed_ms=result.elapsed_ms,
    )
    yield pb.RouterServiceSearchPatchesResponse(facts=facts)
    for part in answer_parts(_as_answer(result)):
        yield pb.RouterServiceSearchPatchesResponse(answer=part)


def _as_answer(result: PatchesResult) -> ShardAnswer:
    return ShardAnswer(
        candidates=result.candidates,
        slides=result.slides,
        examined=None,
        examined_counts=result.examined_counts,
        eligible=result.eligible,
        label_counts={},
        mode=result.mode,
    )


class PatchesAssembler:
    """Puts the parts of one patch search's stream together again."""

    def __init__(self) -> None:
        self._facts: pb.PatchesFacts | None = None
        self._rows = AnswerAssembler()

    def add(self, part: pb.RouterServiceSearchPatchesResponse) -> None:
        """Take a part, or raise `BadMessage`."""
        kind = part.WhichOneof("part")
        if (self._facts is None) != (kind == "facts"):
            raise BadMessage(f"a patch search's answer starts with its facts; found {kind}")
        if kind == "facts":
            self._facts = part.facts
        else:
            self._rows.add(part.answer)

    def result(self, n_query_patches: int) -> PatchesResult:
        """Return the whole answer, or raise `BadMessage` where a part is missing or damaged."""
        if self._facts is None:
            raise BadMessage("a patch search's answer ended before its facts: ask again")
        answer = self._rows.answer(n_query_patches)
        return PatchesResult(
            candidates=answer.candidates,
            slides=answer.slides,
            examined_counts=answer.examined_counts,
            eligible=answer.eligible,
            mode=answer.mode,
            mode_reason=self._facts.mode_reason,
            missing_shards=tuple(self._facts.missing_shards),
            elapsed_ms=self._facts.elapsed_ms,
        )
