import pytest

from sish_cluster.core.query import Filter, Mode, Ranking, SearchSettings
from sish_cluster.core.result import PatchMatch, SearchResult, SlideResult
from sish_cluster.core.slide import Slide
from sish_cluster.report import Searched


def match(query_number, distance, corner=(10, 20)):
    return PatchMatch(query_number, (100 * query_number, 0), 0, corner, distance, 0.25)


def found(rank, slide, *matches):
    return SlideResult(rank, slide, 60, 1.0, 0.5, 0.0, matches)


@pytest.fixture
def searched():
    query = Slide("query", diagnosis="A", width_px=1024, height_px=1024, patch_side_px=256)
    same = Slide("same", diagnosis="A", site="lung", patch_side_px=256)
    other = Slide("<script>alert(1)</script>", diagnosis='"B" & <c>')
    result = SearchResult(
        [found(1, same, match(0, 60), match(2, 70)), found(2, other, match(1, 80))],
        Mode.EXACT,
        Ranking.UNCERTAINTY,
        "A",
        {"A": 0.75, '"B" & <c>': 0.25},
        examined=30,
        eligible=10,
        n_query_patches=3,
        missing_shards=("keys-1",),
    )
    where = Filter.of(leave_out={"patient": ["P7"]})
    return Searched(query, result, SearchSettings(), where, "why it is here")
