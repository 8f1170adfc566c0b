import dataclasses
import html.parser
import re

import pytest

from sish_cluster.core.query import Mode, Ranking, SearchSettings
from sish_cluster.core.result import SearchResult
from sish_cluster.core.slide import Slide
from sish_cluster.report import (
    QueryPart,
    ReportSettings,
    Searched,
    SlideFile,
    SlideFiles,
    written_report,
)
from sish_cluster.report.model import described, facts_of
from sish_cluster.report.page import page_of


class Page(html.parser.HTMLParser):
    """Collects elements, and checks that they close in order."""

    VOID = frozenset({"meta", "img", "rect", "br"})

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.texts = [], [], []
        self.feed(text)
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())


def page_without_pictures(searched):
    return page_of([searched], SlideFiles({}), settings=ReportSettings(title="T & <t>"))


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    slides = pytest.importorskip("sish_cluster.testing.slides", reason="needs the extra 'encoder'")
    folder = tmp_path_factory.mktemp("slides")
    return {name: slides.one_patch_slide(folder / f"{name}.tif") for name in ("query", "same")}


def test_the_page_tells_everything_the_answer_says(searched):
    text = Page(page_without_pictures(searched)).text
    for words in (
        "why it is here",
        "Vote: A",
        "75%",
        "shard keys-1 did not answer",
        "patient is not P7",
        "100.0% of the eligible patches examined",
        "60 bits",
        "certainty 50%",
        "matched patches 2",
        "✓ same diagnosis",
        "other diagnosis",
    ):
        assert words in text, words


def test_a_collection_without_labels_has_no_certainty(searched):
    result = dataclasses.replace(searched.result, votes={}, predicted_label="")
    text = Page(page_without_pictures(dataclasses.replace(searched, result=result))).text
    assert text.count("no labels") == 3  # the nearest slide's row and both slides' cards
    assert "certainty 50%" not in text
    assert ", uncertainty" not in text


def test_a_ranking_that_weighs_no_labels_has_no_certainty(searched):
    result = dataclasses.replace(searched.result, ranking=Ranking.RRF)
    text = Page(page_without_pictures(dataclasses.replace(searched, result=result))).text
    assert text.count("not told by rrf") == 3
    assert ", uncertainty" not in text
    assert "Vote: A" in text


def test_nothing_in_a_label_or_name_becomes_markup(searched):
    page = Page(page_without_pictures(searched))
    assert page.all("script") == []
    assert '"B" & <c>' in page.text
    assert "<script>alert(1)</script>" in page.text
    assert "T & <t>" in page.text


def test_the_page_needs_no_other_file(searched, drawn):
    files = {name: SlideFile(path) for name, path in drawn.items()}
    with SlideFiles(files) as pictures:
        page = Page(page_of([searched], pictures, settings=ReportSettings()))
    assert page.all("link") == []
    sources = [image["src"] for image in page.all("img")]
    assert sources
    assert all(source.startswith("data:image/jpeg;base64,") for source in sources)
    assert all(image["alt"] for image in page.all("img"))


def test_every_match_has_its_box_and_number_on_both_slides(searched, drawn):
    files = {name: SlideFile(path) for name, path in drawn.items()}
    with SlideFiles(files) as pictures:
        text = page_of([searched], pictures, settings=ReportSettings())
    query, same = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert re.findall(r">([\d, ]+)</text>", query) == ["1", "3", "2"]
    assert re.findall(r">([\d, ]+)</text>", same) == ["1, 3"]
    assert 'rect class="inner" x="10" y="20" width="256" height="256"' in same


def test_a_file_that_is_not_there_is_said_in_its_place(searched, drawn, tmp_path):
    files = {"query": SlideFile(drawn["query"]), "same": SlideFile(tmp_path / "moved.tif")}
    with SlideFiles(files) as pictures:
        page = Page(page_of([searched], pictures, settings=ReportSettings()))
    assert f"No picture: {tmp_path}/moved.tif is not there." in page.text
    assert "the file of slide <script>alert(1)</script> is not known here" in page.text
    assert len(page.all("img")) == 4  # the query's thumbnail, and its patch in three pairs


def test_an_answer_without_slides_says_why():
    result = SearchResult(
        [], Mode.GUIDED, Ranking.RRF, "", {}, 0, 0, 3, reason="no posting is eligible"
    )
    page = Page(page_without_pictures(Searched(Slide("q"), result, SearchSettings())))
    assert "No slide: no posting is eligible" in page.text
    assert "10 seeds a side" in page.text


def test_a_report_is_written_whole_with_its_folder(searched, tmp_path):
    path = written_report(tmp_path / "new" / "r.html", [searched], SlideFiles({}))
    assert path.read_text(encoding="utf-8").rstrip().endswith("</html>")
    assert [file.name for file in path.parent.iterdir()] == ["r.html"]


def test_facts_name_the_mode_that_ran_and_the_one_asked(searched):
    assert ("mode", "exact (asked: auto)") in facts_of(searched)
    assert described(searched.where) == "patient is not P7"


def direct(searched, **changed):
    result = dataclasses.replace(
        searched.result, mode=Mode.DIRECT, mode_reason="direct: no codes are kept", **changed
    )
    return dataclasses.replace(searched, result=result, settings=SearchSettings(min_cosine=0.7))


def test_after_a_direct_search_distances_are_cosines(searched):
    text = Page(page_without_pictures(direct(searched))).text
    assert "cosine 0.998" in text  # 60 units of 1/32768
    assert "bits apart" not in text
    assert "60 bits" not in text


def test_facts_say_why_the_mode_ran_and_which_bound_counted(searched):
    facts = dict(facts_of(direct(searched, distance_bound=6553.6)))
    assert facts["mode"] == "direct: no codes are kept (asked: auto)"
    assert facts["bound"] == "cosine 0.700; the ranking counted cosine 0.800 or nearer"
    assert dict(facts_of(searched))["bound"] == "128 bits"


@pytest.fixture
def case(searched):
    parts = (QueryPart(Slide("left", patch_side_px=256), 1), QueryPart(Slide("right"), 2))
    return dataclasses.replace(searched, slide=Slide("left + right"), parts=parts)


def test_a_case_shows_each_of_its_slides_and_whose_every_patch_is(case):
    page = Page(page_without_pictures(case))
    for words in (
        "left + right",
        "query patch 1 of left · its match",
        "query patch 3 of right · its match",
        "query patch 2 of right · its match",
    ):
        assert words in page.text, words


def test_a_patch_of_a_case_is_drawn_on_its_own_slide(case, drawn):
    files = {"left": SlideFile(drawn["query"]), "right": SlideFile(drawn["same"])}
    with SlideFiles(files) as pictures:
        text = page_of([case], pictures, settings=ReportSettings())
    left, right = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert re.findall(r">([\d, ]+)</text>", left) == ["1"]
    assert sorted(re.findall(r">([\d, ]+)</text>", right)) == ["2", "3"]
    assert [case.slide_of(number).slide_id for number in range(3)] == ["left", "right", "right"]
