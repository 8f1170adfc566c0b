import json

import numpy as np
import pyarrow.parquet as parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sish_cluster.core.collection import Collection
from sish_cluster.core.errors import BadFile
from sish_cluster.core.posting import EncodedSlide, PatchColumns
from sish_cluster.core.slide import Slide
from sish_cluster.exchange.jsonl_table import jsonl_source, write_jsonl
from sish_cluster.exchange.parquet_table import parquet_source, write_parquet
from sish_cluster.exchange.table_rows import Heading

FORMATS = {"jsonl": (write_jsonl, jsonl_source), "parquet": (write_parquet, parquet_source)}
DRAWN = Collection("drawn", "drawn:1", 40, 16, "none", dimensions=3, has_keys=False)


def numbers(shape, seed):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


@st.composite
def encoded_slides(draw):
    n, seed = draw(st.integers(1, 4)), draw(st.integers(0, 99))
    text = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
    slide = Slide(
        draw(text.filter(bool)),
        draw(text),
        labels=draw(st.dictionaries(text.map("l{}".format), text, max_size=2)),
        mpp=draw(st.floats(0, 20)),
        width_px=draw(st.integers(0, 2**31)),
    )
    halves = st.floats(-60000, 60000, width=16).filter(bool)
    codes = numbers((n, 8), seed)
    codes[:, 5:] = 0
    patches = PatchColumns.of(
        draw(st.lists(st.integers(0, 2**50 - 1), min_size=n, max_size=n)),
        codes,
        np.array(draw(st.lists(st.integers(-(2**31), 2**31 - 1), min_size=2 * n, max_size=2 * n))),
        np.cumsum(draw(st.lists(st.integers(1, 9), min_size=n, max_size=n))),
        embeddings=draw(st.lists(st.lists(halves, min_size=3, max_size=3), min_size=n, max_size=n)),
    )
    return EncodedSlide.whole(slide, patches, DRAWN.fingerprint)


many_slides = st.lists(encoded_slides(), max_size=3, unique_by=lambda s: s.slide.slide_id)


@pytest.mark.parametrize("kind", FORMATS)
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(slides=many_slides)
def test_what_is_written_is_read_back_to_the_bit(kind, tmp_path, slides):
    write, read = FORMATS[kind]
    rows = write(tmp_path / kind, Heading(DRAWN, len(slides)), slides)
    source = read(tmp_path / kind)
    assert rows == sum(len(slide.patches) for slide in slides)
    assert (source.collection, source.n_slides) == (DRAWN, len(slides))
    found = list(source.slides)
    assert [s.version for s in found] == [s.version for s in slides]
    assert [s.slide for s in found] == [s.slide for s in slides]


def one(slide_id="a", n=2):
    patches = PatchColumns.of(
        np.arange(n), np.zeros((n, 8), np.uint8), embeddings=np.ones((n, 3), np.float16)
    )
    return EncodedSlide.whole(Slide(slide_id), patches, DRAWN.fingerprint)


def test_a_row_has_one_posting_that_other_programs_can_read(tmp_path):
    for kind, (write, _) in FORMATS.items():
        write(tmp_path / kind, Heading(DRAWN, 1), [one()])
    line = (tmp_path / "jsonl").read_text().splitlines()[2]
    row = parquet.read_table(tmp_path / "parquet").to_pylist()[1]
    assert row | {"labels": {}} == json.loads(line)
    assert (row["key"], row["number"], row["code"], row["embedding"]) == (1, 1, "00" * 8, [1.0] * 3)


BAD = {
    "found key '1.5'": {"key": 1.5},
    "found site '3'": {"site": 3},
    "found labels": {"labels": "{}"},
    "found a code of 2 characters, expected 16": {"code": "00"},
    "found 1 numbers, expected 3": {"embedding": [1.0]},
    "found something else among the numbers": {"embedding": [1.0, "2", None]},
    "non-hexadecimal": {"code": "zz" * 8},
    r"a key satisfies 0 <= key < 2\*\*50": {"key": 2**50},
    "is all zero": {"embedding": [0.0] * 3},
    "numbers must ascend": {"number": 0},
    "found other labels than": {"patient": "P"},
}


@pytest.mark.parametrize("problem", BAD)
def test_a_bad_row_fails_its_slide_alone_and_is_named(tmp_path, problem):
    path = tmp_path / "t.jsonl"
    write_jsonl(path, Heading(DRAWN, 2), [one("a"), one("b")])
    lines = path.read_text().splitlines()
    lines[2] = json.dumps(json.loads(lines[2]) | BAD[problem])
    path.write_text("\n".join(lines))
    bad, good = jsonl_source(path).slides
    assert good.slide.slide_id == "b"
    with pytest.raises(BadFile, match=problem):
        raise BadFile(bad.problem)
    assert "line 3" in bad.problem or "slide 'a'" in bad.problem


def test_lines_that_are_no_rows_and_slides_that_come_again_are_told(tmp_path):
    path = tmp_path / "t.jsonl"
    write_jsonl(path, Heading(DRAWN, 2), [one("a"), one("b"), one("a")])
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:3], "{half a li", *lines[3:]]))
    outcomes = list(jsonl_source(path).slides)
    problems = [o.problem for o in outcomes if not isinstance(o, EncodedSlide)]
    assert len(outcomes) - len(problems) == 2
    assert "line 4: found no slide_id" in problems[0]
    assert "found slide 'a' again, expected its rows together" in problems[1]


def test_files_of_others_are_refused(tmp_path):
    for name, content in (("a", '{"slide_id": "a"}'), ("b", ""), ("c", "[1]"), ("d", "PAR1")):
        (tmp_path / name).write_text(content)
        with pytest.raises(BadFile, match=r"found no heading"):
            jsonl_source(tmp_path / name)
        with pytest.raises(BadFile, match="cannot be read as Parquet"):
            parquet_source(tmp_path / name)


def test_a_parquet_file_cut_in_its_rows_keeps_what_was_read_before(tmp_path):
    path = tmp_path / "t.parquet"
    write_parquet(path, Heading(DRAWN, 3), [one(name, 3000) for name in "abc"])
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 64] = b"\xff" * 64
    path.write_bytes(content)
    found = []
    with pytest.raises(BadFile, match="is damaged after row"):
        found.extend(parquet_source(path).slides)


def test_a_slide_of_many_rows_is_written_in_groups_and_read_back(tmp_path):
    slide = one("a", 9000)
    write_parquet(tmp_path / "t.parquet", Heading(DRAWN, 2), [slide, one("b")])
    assert parquet.ParquetFile(tmp_path / "t.parquet").num_row_groups == 3
    found = list(parquet_source(tmp_path / "t.parquet").slides)
    assert [s.version for s in found] == [slide.version, one("b").version]
