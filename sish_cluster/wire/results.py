"""Search results as messages and back."""

from __future__ import annotations

from sish_cluster.core.result import PatchMatch, SearchResult, SlideResult
from sish_cluster.wire.sish.v1 import router_pb2 as pb
from sish_cluster.wire.values import (
    pack_mode,
    pack_ranking,
    pack_slide,
    unpack_mode,
    unpack_ranking,
    unpack_slide,
)


def pack_search_result(result: SearchResult) -> pb.RouterServiceSearchResponse:
    """Return a search's result as a message."""
    return pb.RouterServiceSearchResponse(
        results=map(_pack_slide_result, result.results),
        mode=pack_mode(result.mode),
        ranking=pack_ranking(result.ranking),
        predicted_label=result.predicted_label,
        votes=dict(result.votes),
        examined=result.examined,
        eligible=result.eligible,
        n_query_patches=result.n_query_patches,
        missing_shards=result.missing_shards,
        reason=result.reason,
        elapsed_ms=result.elapsed_ms,
        mode_reason=result.mode_reason,
        distance_bound=result.distance_bound,
    )


def unpack_search_result(message: pb.RouterServiceSearchResponse) -> SearchResult:
    """Return the search's result of a message."""
    return SearchResult(
        results=tuple(map(_unpack_slide_result, message.results)),
        mode=unpack_mode(message.mode),
        ranking=unpack_ranking(message.ranking),
        predicted_label=message.predicted_label,
        votes=dict(message.votes),
        examined=message.examined,
        eligible=message.eligible,
        n_query_patches=message.n_query_patches,
        missing_shards=tuple(message.missing_shards),
        reason=message.reason,
        elapsed_ms=message.elapsed_ms,
        mode_reason=message.mode_reason,
        distance_bound=message.distance_bound,
    )


def _pack_slide_result(result: SlideResult) -> pb.SlideResult:
    return pb.SlideResult(
        rank=result.rank,
        slide=pack_slide(result.slide),
        distance=result.distance,
        uncertainty=result.uncertainty,
        certainty=result.certainty,
        score=result.score,
        matches=map(_pack_match, result.matches),
    )


def _unpack_slide_result(message: pb.SlideResult) -> SlideResult:
    return SlideResult(
        rank=message.rank,
        slide=unpack_slide(message.slide),
        distance=message.distance,
        uncertainty=message.uncertainty,
        certainty=message.certainty,
        score=message.score,
        matches=tuple(map(_unpack_match, message.matches)),
    )


def _pack_match(match: PatchMatch) -> pb.PatchMatch:
    return pb.PatchMatch(
        query_number=match.query_number,
        query_x=match.query_corner[0],
        query_y=match.query_corner[1],
        number=match.number,
        x=match.corner[0],
        y=match.corner[1],
        distance=match.distance,
        uncertainty=match.uncertainty,
    )


def _unpack_match(message: pb.PatchMatch) -> PatchMatch:
    return PatchMatch(
        query_number=message.query_number,
        query_corner=(message.query_x, message.query_y),
        number=message.number,
        corner=(message.x, message.y),
        distance=message.distance,
        uncertainty=message.uncertainty,
    )
