import dataclasses

import pytest

from sish_cluster.core.errors import BadRequest, Unavailable
from sish_cluster.core.query import Mode, Ranking
from sish_cluster.evaluation.leaving_out import patient_of
from sish_cluster.evaluation.plots import recall_figure
from sish_cluster.evaluation.protocol import evaluated
from sish_cluster.evaluation.settings import ANY_DISTANCE, EvaluationSettings, LeaveOut
from sish_cluster.evaluation.speed import SHARES, speed_points
from sish_cluster.evaluation.summary import recalls_of, summaries_of
from sish_cluster.evaluation.tables import comparison_of

ALL = EvaluationSettings(
    label_field="site",
    modes=(Mode.SISH, Mode.GUIDED, Mode.EXACT),
    rankings=(Ranking.UNCERTAINTY, Ranking.RRF),
)


@pytest.fixture(scope="module")
def evaluation(home):
    return evaluated(home, ["synthetic"], settings=ALL)


def test_every_mode_and_ranking_asks_every_slide_once(evaluation):
    assert len(evaluation.runs) == 6
    ids = [outcome.query_id for outcome in evaluation.runs[0].outcomes]
    assert len(set(ids)) == 24
    assert all([o.query_id for o in run.outcomes] == ids for run in evaluation.runs)


def test_no_query_finds_its_own_patient(evaluation):
    slides = {slide.slide_id: slide for slide in evaluation.slides["synthetic"]}
    for run in evaluation.runs:
        for outcome in run.outcomes:
            own = patient_of(slides[outcome.slide_id])
            assert own not in [patient_of(slides[f.slide_id]) for f in outcome.found]
            assert outcome.eligible == 22 * 4


def test_drawn_sites_are_recognised_and_each_stage_is_timed(evaluation):
    for summary in summaries_of(evaluation):
        assert summary.micro("Acc@1") == 1.0
        assert summary.times.keys() == {"load", "exclusion", "search", "router"}
        assert summary.times["search"].p50 >= summary.times["router"].p50 > 0
        assert (summary.queries, summary.failed, summary.unreachable) == (24, 0, 0)


def test_exact_examines_everything_and_finds_all_that_exact_finds(evaluation):
    exact = [s for s in summaries_of(evaluation) if s.run.plan.mode is Mode.EXACT]
    assert [(s.coverage, s.recall) for s in exact] == [(1.0, 1.0)] * 2


def test_where_exact_finds_nothing_there_is_no_recall_to_tell(home):
    modes = (Mode.GUIDED, Mode.EXACT)
    none = dataclasses.replace(ALL, modes=modes, is_by_patch=True, bounds=(1,), max_queries=3)
    summary, _ = summaries_of(evaluated(home, ["synthetic"], settings=none))
    assert (summary.recall, summary.recalls) == (None, [None] * 12)
    table = comparison_of([summary])
    assert dict(zip(table.headings, table.rows[0], strict=True))["recall (of)"] == "n/a (0)"
    assert recall_figure([summary]) is None


def test_recall_is_over_the_queries_for_which_exact_found_something(evaluation):
    _, _, guided, _, exact, _ = evaluation.runs
    first, *others = exact.outcomes
    poorer = dataclasses.replace(exact, outcomes=[dataclasses.replace(first, found=()), *others])
    recalls = recalls_of(guided, poorer, 5)
    assert (recalls[0], None in recalls[1:]) == (None, False)
    summary = dataclasses.replace(summaries_of(evaluation)[2], recalls=recalls)
    assert summary.recall == pytest.approx(sum(recalls[1:]) / 23)
    assert f"{summary.recall:.3f} (23)" in comparison_of([summary]).rows[0]


def test_leaving_an_institution_out_returns_other_institutions_only(home):
    settings = dataclasses.replace(ALL, leave_out=LeaveOut.INSTITUTION, modes=(Mode.EXACT,))
    for run in evaluated(home, ["synthetic"], settings=settings).runs:
        for outcome in run.outcomes:
            assert outcome.found
            assert outcome.institution not in [f.institution for f in outcome.found]


def test_patch_queries_return_the_nearest_patches_of_other_patients_by_distance(home):
    settings = dataclasses.replace(
        ALL, is_by_patch=True, modes=(Mode.EXACT,), bounds=(ANY_DISTANCE,), ks=(1, 5)
    )
    (run,) = evaluated(home, ["synthetic"], settings=settings).runs
    assert len(run.outcomes) == 24 * 4
    for outcome in run.outcomes:
        distances = [found.distance for found in outcome.found]
        assert len(distances) == 5
        assert distances == sorted(distances)
    assert run.outcomes[0].query_id == "slide-0000#0"


def test_a_bound_that_cuts_neighbours_is_lifted_when_the_nearest_are_asked_for(home):
    both = dataclasses.replace(ALL, modes=(Mode.EXACT,), is_by_patch=True, bounds=(1, ANY_DISTANCE))
    runs = evaluated(home, ["synthetic"], settings=both).runs
    found = {run.plan.search: sum(len(o.found) for o in run.outcomes) for run in runs}
    assert found == {"exact <=1": 0, "exact nearest": 24 * 4 * 5}


def test_a_mode_the_collection_cannot_do_is_left_aside_with_its_reason(home):
    settings = dataclasses.replace(ALL, modes=(Mode.DIRECT, Mode.EXACT), max_queries=2)
    found = evaluated(home, ["synthetic"], settings=settings)
    assert {run.plan.mode for run in found.runs} == {Mode.EXACT}
    assert "keeps no embeddings" in found.skipped[0][1]
    only = dataclasses.replace(settings, modes=(Mode.DIRECT,))
    with pytest.raises(BadRequest, match="keeps no embeddings"):
        evaluated(home, ["synthetic"], settings=only)


def test_a_label_nobody_has_is_refused_with_those_there_are(home):
    with pytest.raises(BadRequest, match="stain"):
        evaluated(home, ["synthetic"], settings=dataclasses.replace(ALL, label_field="grade"))


class Flaky:
    """A cluster whose every third search is unavailable."""

    def __init__(self, client):
        self._client, self._calls = client, 0

    def __getattr__(self, name):
        return getattr(self._client, name)

    def search(self, *args, **options):
        self._calls += 1
        if self._calls % 3 == 0:
            raise Unavailable("shard-7 is away: try later")
        return self._client.search(*args, **options)


def test_failures_are_listed_count_as_wrong_and_stop_nothing(home):
    settings = dataclasses.replace(ALL, modes=(Mode.EXACT,), rankings=(Ranking.RRF,))
    (summary,) = summaries_of(evaluated(Flaky(home), ["synthetic"], settings=settings))
    assert (summary.queries, summary.failed, summary.answered) == (24, 8, 16)
    assert summary.micro("Acc@1") == pytest.approx(16 / 24)
    assert summary.run.failures[0] == ("slide-0002", "shard-7 is away: try later")


def test_a_slide_that_had_to_be_left_out_voids_the_answer(home):
    class Leaky(Flaky):
        def search(self, collection, what, **options):
            whole = dataclasses.replace(what, where=type(what.where)())
            return self._client.search(collection, whole, **options)

    settings = dataclasses.replace(ALL, modes=(Mode.EXACT,), rankings=(Ranking.RRF,))
    (run,) = evaluated(Leaky(home), ["synthetic"], settings=settings).runs
    assert all("had to be left out" in outcome.problem for outcome in run.outcomes)


def test_queries_whose_label_no_other_patient_has_are_counted(home, drawn):
    lonely = drawn(0, slide_id="lonely", patient="hermit", site="spleen")
    home.ingest_slide("synthetic", lonely)
    try:
        settings = dataclasses.replace(ALL, modes=(Mode.EXACT,), rankings=(Ranking.RRF,))
        (summary,) = summaries_of(evaluated(home, ["synthetic"], settings=settings))
    finally:
        home.forget("synthetic", "lonely")
    assert summary.unreachable == 1
    assert summary.scores["Acc@1"].per_class["spleen"].mean == 0


def test_speed_is_measured_over_growing_parts(home):
    settings = dataclasses.replace(ALL, modes=(Mode.EXACT,), rankings=(Ranking.RRF,), max_queries=3)
    evaluation = evaluated(home, ["synthetic"], settings=settings)
    points = speed_points(home, evaluation, queries=3)
    assert len(points) == len(SHARES)
    assert [p.eligible for p in points] == sorted(p.eligible for p in points)
    assert points[-1].eligible == 23 * 4
    assert all(point.p95_ms >= point.p50_ms > 0 for point in points)
