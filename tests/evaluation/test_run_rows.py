import base64
import dataclasses
import html
import re

import pytest

from sish_cluster.core.query import Mode, Ranking
from sish_cluster.evaluation.page import PageContents, page_of
from sish_cluster.evaluation.protocol import evaluated
from sish_cluster.evaluation.run_rows import MOST_IN_LEGEND, class_rows, recall_rows, wants_rows
from sish_cluster.evaluation.settings import EvaluationSettings
from sish_cluster.evaluation.summary import summaries_of


@pytest.fixture(scope="module")
def evaluation(home):
    modes = (Mode.GUIDED, Mode.EXACT)
    rankings = (Ranking.UNCERTAINTY, Ranking.RRF)
    asked = EvaluationSettings(
        label_field="site", modes=modes, rankings=rankings, bounds=(None, 1), max_queries=6
    )
    return evaluated(home, ["synthetic"], settings=asked)


def words_in(uri):
    """Return the texts of a figure: its SVG names each beside its outlines."""
    drawing = base64.b64decode(uri.partition(",")[2]).decode()
    return [html.unescape(word) for word in re.findall(r"<!-- (.*?) -->", drawing)]


def test_many_runs_are_named_once_beside_their_rows_and_need_no_legend(evaluation):
    summaries = summaries_of(evaluation)
    names = [str(summary.run.plan) for summary in summaries]
    assert len(names) == 8 > MOST_IN_LEGEND
    words = words_in(class_rows(summaries, "Acc@1"))
    assert sorted(word for word in words if "/" in word) == sorted(names)
    assert {"brain", "liver", "lung"} <= set(words)


def test_a_run_without_a_recall_keeps_its_row_and_says_so(evaluation):
    summaries = summaries_of(evaluation)
    assert [summary.recall is None for summary in summaries] == [False, False, True, True] * 2
    words = words_in(recall_rows(summaries))
    assert words.count("n/a") == 4
    assert recall_rows(summaries[2:4]) is None


def test_few_runs_of_many_classes_get_a_row_a_class(evaluation):
    first = summaries_of(evaluation)[0]
    score = first.scores["Acc@1"]
    many = {f"class-{n}": score.micro for n in range(60)}
    wide = dataclasses.replace(first, scores={"Acc@1": dataclasses.replace(score, per_class=many)})
    assert wants_rows([wide], groups=60)
    words = words_in(class_rows([wide], "Acc@1"))
    assert [words.count(f"class-{n}") for n in range(60)] == [1] * 60


def test_the_page_of_many_runs_has_rows_and_that_of_few_a_legend(evaluation):
    summaries = summaries_of(evaluation)
    many = page_of(evaluation, summaries, PageContents())
    few = page_of(evaluation, summaries[:2], PageContents())
    assert ("Recall and coverage" in many, "Recall against coverage" in many) == (True, False)
    assert ("Recall and coverage" in few, "Recall against coverage" in few) == (False, True)
    assert ("Dots are means" in many, "Bars end at the mean" in few) == (True, True)
