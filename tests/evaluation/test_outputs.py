import csv
import dataclasses
import html.parser
import io
import json

import pytest

from sish_cluster.core.query import Mode, Ranking
from sish_cluster.evaluation.maps import map_of, placed
from sish_cluster.evaluation.montage import examples_of
from sish_cluster.evaluation.page import PageContents, page_of
from sish_cluster.evaluation.protocol import evaluated
from sish_cluster.evaluation.settings import EvaluationSettings
from sish_cluster.evaluation.speed import speed_points
from sish_cluster.evaluation.summary import NO_ANSWER, summaries_of
from sish_cluster.evaluation.tables import class_table, comparison_of, vote_precision
from sish_cluster.evaluation.writing import (
    classes_as_csv,
    evaluation_as_json,
    queries_as_csv,
    written_json,
)

SETTINGS = EvaluationSettings(
    label_field="site",
    modes=(Mode.GUIDED, Mode.EXACT),
    rankings=(Ranking.RRF,),
    max_queries=9,
)
PIXEL = "data:image/png;base64,iVBORw0KGgo="


@pytest.fixture(scope="module")
def evaluation(home):
    found = evaluated(home, ["synthetic"], settings=SETTINGS)
    assert [run.failures for run in found.runs] == [[], []]
    return found


@pytest.fixture(scope="module")
def page(home, evaluation):
    summaries = summaries_of(evaluation)
    contents = PageContents(
        about=[("machine", "<b>&")],
        speed=speed_points(home, evaluation, queries=2),
        maps={"synthetic": map_of(home, "synthetic", evaluation.slides["synthetic"], label_field="site")},
        examples={"guided": examples_of(evaluation.runs[0], lambda slide_id, number: PIXEL)},
        verdicts=[("exact: Acc@1 at least 0.9: 1.000", True)],
    )  # fmt: skip
    return page_of(evaluation, summaries, contents)


class Sources(html.parser.HTMLParser):
    """Collects what a page would load."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        self.found += [value for name, value in attrs if name in ("src", "href", "srcset")]
        assert tag not in ("script", "link", "iframe")


def test_the_page_is_one_file_that_loads_nothing(page):
    sources = Sources()
    sources.feed(page)
    assert sources.found
    assert all(source.startswith("data:image/") for source in sources.found)
    assert "@import" not in page
    assert "url(" not in page


def test_the_page_escapes_what_it_is_given_and_shows_every_part(page):
    assert "&lt;b&gt;&amp;" in page
    for part in ("Side by side", "Recall against coverage", "Speed against size", "Acc@1 by class",
                 "Map of the patches", "Examples", "Times by stage", "Robustness", "PCA"):  # fmt: skip
        assert part in page, part
    assert page.count(PIXEL) == 9 * 6


def test_the_json_holds_every_run_with_scores_times_and_settings(evaluation, tmp_path):
    values = evaluation_as_json(evaluation, summaries_of(evaluation), about={"machine": "m"})
    read = json.loads(written_json(tmp_path / "new" / "e.json", values).read_text())
    assert [run["mode"] for run in read["runs"]] == ["guided", "exact"]
    assert read["settings"]["label_field"] == "site"
    run = read["runs"][1]
    assert run["recall"] == 1.0
    assert run["scores"]["Acc@1"]["micro"]["mean"] == 1.0
    assert run["times_ms"]["search"]["p95"] >= run["times_ms"]["search"]["p50"]
    assert sum(run["robustness"][kind] for kind in ("both", "label_only")) == 9 * 5


def test_the_query_table_has_a_row_a_query_and_run_whose_means_are_the_scores(evaluation):
    summaries = summaries_of(evaluation)
    rows = list(csv.DictReader(io.StringIO(queries_as_csv(evaluation, summaries))))
    assert len(rows) == 2 * 9
    exact = [float(row["AP@5"]) for row in rows if row["search"] == "exact"]
    assert sum(exact) / 9 == pytest.approx(summaries[1].micro("AP@5"), abs=1e-5)
    assert all(row["slide_1"] and row["label_1"] for row in rows)


def test_the_class_table_has_macro_micro_and_every_class(evaluation):
    summaries = summaries_of(evaluation)
    rows = list(csv.DictReader(io.StringIO(classes_as_csv(summaries))))
    assert {row["class"] for row in rows} == {"(micro)", "(macro)", "lung", "liver", "brain"}
    counted = [
        int(r["queries"]) for r in rows if r["measure"] == "Acc@1" and r["search"] == "exact"
    ]
    assert sorted(counted)[-2:] == [9, 9]


def test_the_comparison_has_one_row_a_run_and_equal_lengths(evaluation):
    table = comparison_of(summaries_of(evaluation))
    assert [row[0] for row in table.rows] == ["guided / rrf", "exact / rrf"]
    assert {len(row) for row in table.rows} == {len(table.headings)}


def test_precision_and_f1_of_the_votes_come_from_the_confusion_matrix(evaluation):
    summary = dataclasses.replace(
        summaries_of(evaluation)[0],
        confusion={("a", "a"): 6, ("a", "b"): 2, ("b", "a"): 3, ("b", NO_ANSWER): 1},
    )
    assert vote_precision(summary, "a") == (6 / 9, 12 / 17)
    assert vote_precision(summary, "b") == (0.0, 0.0)
    assert len(class_table(summaries_of(evaluation)[0]).rows) == 3


def test_examples_show_wrong_and_right_queries_of_every_class(home):
    hard = dataclasses.replace(
        SETTINGS, label_field="diagnosis", max_queries=0, modes=(Mode.EXACT,)
    )
    (run,) = evaluated(home, ["synthetic"], settings=hard).runs
    examples = examples_of(run, lambda slide_id, number: PIXEL, most=6)
    assert len(examples) == 6
    assert {example.is_right for example in examples} == {True, False}
    assert not examples_of(run, lambda slide_id, number: "")


def test_a_map_of_few_points_is_a_pca_and_of_many_keeps_neighbours_together():
    import numpy as np

    rng = np.random.default_rng(0)
    few = rng.normal(size=(10, 4)).astype(np.float32)
    assert placed(few)[1] == "PCA"
    groups = np.repeat(np.eye(3, 16), 35, axis=0) * 20 + rng.normal(size=(105, 16))
    places, method = placed(groups.astype(np.float32))
    assert (method, places.shape) == ("t-SNE", (105, 2))
    centres = places.reshape(3, 35, 2).mean(axis=1)
    apart = np.linalg.norm(places[:, None] - centres, axis=2).argmin(axis=1)
    assert (apart == np.repeat(range(3), 35)).mean() > 0.95
