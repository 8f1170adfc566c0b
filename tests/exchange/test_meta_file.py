import numpy as np
import pytest

from sish_cluster.core.code import unpacked
from sish_cluster.core.errors import BadFile
from sish_cluster.core.posting import EncodedSlide
from sish_cluster.core.slide import Slide
from sish_cluster.exchange.meta_file import FilesBeside, key_of_published, meta_source
from sish_cluster.exchange.source import Unreadable

CODE = "01" * 512
LARGEST = 812_832_512_130_048


def posting(name="a", x=1, y=2, code=CODE, **more):
    labels = {"slide_ext": ".svs", "diagnosis": "luad", "site": "lung"}
    return {"slide_name": name, "dense_binarized": code, "x": x, "y": y, **labels, **more}


def slides_of(path, **options):
    source = meta_source(path, code_bits=options.pop("code_bits", 1024), labels=None, **options)
    slides = list(source.slides)
    assert len(slides) == source.n_slides
    return slides


def test_postings_are_gathered_by_slide_with_exact_keys_corners_codes_and_labels(pickled):
    meta = {
        np.float64(LARGEST): [posting(x=10), posting("b", x=np.int64(7))],
        12: [posting(x=np.float64(3.0), code="1" * 1024)],
    }
    a, b = slides_of(pickled(meta))
    assert a.patches.keys.tolist() == [LARGEST, 12]
    assert a.patches.corners.tolist() == [[10, 2], [3, 2]]
    assert unpacked(a.patches.codes, code_bits=1024)[0].tolist() == [0, 1] * 512
    expected = Slide("a", site="lung", diagnosis="luad", labels={"slide_ext": ".svs"})
    assert (a.slide, b.slide.slide_id, b.patches.corners.tolist()) == (expected, "b", [[7, 2]])


@pytest.mark.parametrize("protocol", range(6))
def test_every_protocol_gives_the_same_slides(pickled, protocol):
    meta = {np.float64(2**49 + 1): [posting()], np.int64(5): [posting("b")]}
    versions = [s.version for s in slides_of(pickled(meta, "x.pkl", protocol))]
    assert versions == [s.version for s in slides_of(pickled(meta, "y.pkl", 2))]


@pytest.mark.parametrize(
    "key", [-1, 2**50, 1.5, np.float64(0.5), float("nan"), float("inf"), "12", None, True, b"1"]
)
def test_a_key_that_is_no_whole_number_of_the_universe_is_refused(key):
    with pytest.raises(ValueError, match=r"found key .*, expected a whole number 0 <= key < 2"):
        key_of_published(key)


BAD = {
    "key -5, posting 0: found key -5": {-5: [posting("bad")]},
    r"key 2\.5, posting 0: found key": {np.float64(2.5): [posting("bad")]},
    "row 1: found 3 characters, expected a code of 1024": {
        1: [posting("bad")], 2: [posting("bad", code="010")]
    },
    "row 0: found 1024 characters with '2'": {1: [posting("bad", code="2" * 1024)]},
    "row 0: found a list, expected a code": {1: [posting("bad", code=[0, 1])]},
    "posting 1: found x None, expected": {1: [posting("bad"), posting("bad", x=None)]},
    r"found y 2\.5, expected a whole number": {1: [posting("bad", y=2.5)]},
    "found x 4294967296, expected": {1: [posting("bad", x=1 << 32)]},
    "found labels .*, expected .* as in its other postings": {
        1: [posting("bad"), posting("bad", site="liver")]
    },
    "found number -1, expected a whole number, 0": {1: [posting("bad", number=-1)]},
    r"found y -256, expected a whole number, 0\.\.2147483647": {1: [posting("bad", y=-256)]},
}  # fmt: skip


@pytest.mark.parametrize("problem", BAD)
def test_a_bad_posting_fails_its_slide_alone_and_says_where(pickled, problem):
    path = pickled({**BAD[problem], 99: [posting("good")]})
    outcomes = {
        s.slide_id if isinstance(s, Unreadable) else s.slide.slide_id: s for s in slides_of(path)
    }
    assert isinstance(outcomes["good"], EncodedSlide)
    with pytest.raises(BadFile, match=problem):
        raise BadFile(outcomes["bad"].problem)
    assert str(path) in outcomes["bad"].problem


def test_missing_coordinates_are_told_as_missing(pickled):
    broken = posting()
    del broken["x"]
    (found,) = slides_of(pickled({1: [broken]}))
    assert "posting 0: found x none, expected a whole number" in found.problem


def test_keys_without_a_list_or_a_slide_name_are_told_by_key(pickled):
    meta = {1: posting(), 2: [{"x": 1}], 3: [17], 4: [posting("good")]}
    problems = [s for s in slides_of(pickled(meta)) if isinstance(s, Unreadable)]
    assert [p.slide_id for p in problems] == ["meta.pkl key 1", "meta.pkl key 2", "meta.pkl key 3"]
    assert "found a dict, expected a list" in problems[0].problem


def test_another_thing_than_a_dict_is_refused(pickled):
    with pytest.raises(BadFile, match="found a list, expected a dict"):
        meta_source(pickled([posting()]), code_bits=1024, labels=None)


def test_patches_are_numbered_by_the_latents_or_mosaic_where_these_are_at_hand(pickled, published):
    vqvae = published.add("a", np.zeros((3, 64, 64)), ["0"] * 3, np.array([[5, 5], [9, 9], [5, 5]]))
    patches = published.place("PATCHES", "patches") / "a.h5"
    meta = {1: [posting(x=9, y=9)], 2: [posting(x=5, y=5)], 3: [posting(x=5, y=5)]}
    (slide,) = slides_of(pickled(meta), beside=FilesBeside({"a": vqvae}, {"a": patches}))
    assert slide.patches.keys.tolist() == [2, 1, 3]
    assert slide.slide.patch_side_px == 1024
    (lost,) = slides_of(pickled({1: [posting(x=8)]}), beside=FilesBeside({"a": vqvae}, {}))
    assert "found corner (8, 2), expected one of the coords" in lost.problem


def test_a_labels_table_stands_before_the_files_labels_and_tcga_names_have_patients(pickled):
    path = pickled({1: [posting("TCGA-05-4244-01Z-00-DX1")]})
    (slide,) = slides_of(path)
    assert slide.slide.patient == "TCGA-05-4244"
    row = Slide("TCGA-05-4244-01Z-00-DX1", patient="P", diagnosis="lusc", labels={"stain": "HE"})
    table = {"TCGA-05-4244-01Z-00-DX1": row, "lost": Slide("lost")}
    told, lost = meta_source(path, code_bits=1024, labels=table).slides
    assert (
        told.slide.to_dict() | {"labels": {}} == Slide(row.slide_id, "P", "lung", "lusc").to_dict()
    )
    assert told.slide.labels == {"stain": "HE", "slide_ext": ".svs"}
    assert "no posting" in lost.problem
