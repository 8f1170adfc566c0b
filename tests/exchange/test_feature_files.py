import h5py
import numpy as np
import pytest

from sish_cluster.core.code import codes_of
from sish_cluster.core.errors import BadFile
from sish_cluster.core.key import UNIVERSE, spread_keys
from sish_cluster.core.query import Mode
from sish_cluster.core.slide import Slide
from sish_cluster.exchange.feature_files import Keep, feature_source
from sish_cluster.exchange.source import Unreadable
from sish_cluster.local import open_home

D = 40


def write(path, features, coords=None, on="coords", **attributes):
    coords = np.zeros((features.shape[-2], 2), np.int64) if coords is None else coords
    with h5py.File(path, "w") as file:
        file["features"], file["coords"] = features, coords
        (file[on] if on else file).attrs.update(attributes)
    return path


def drawn(n=5, d=D, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


@pytest.mark.parametrize("keep", list(Keep))
def test_embeddings_codes_or_both_are_kept(tmp_path, keep):
    features = drawn(9000, 8)
    write(tmp_path / "a.h5", features)
    source = feature_source(tmp_path, keep=keep)
    (slide,) = source.slides
    wants_codes, wants_embeddings = keep != Keep.EMBEDDINGS, keep != Keep.CODES
    assert (source.collection.code_bits, source.collection.dimensions) == (
        8 * wants_codes,
        8 * wants_embeddings,
    )
    if wants_codes:
        np.testing.assert_array_equal(slide.patches.codes, codes_of(features))
    if wants_embeddings:
        np.testing.assert_array_equal(slide.patches.embeddings, features.astype(np.float16))


def test_keys_only_spread_and_the_collection_says_so(tmp_path):
    write(tmp_path / "a.h5", drawn())
    source = feature_source(tmp_path, keep=Keep.BOTH)
    (slide,) = source.slides
    np.testing.assert_array_equal(slide.patches.keys, spread_keys("a", np.arange(5)))
    assert not source.collection.has_keys
    assert source.collection.modes == (Mode.EXACT, Mode.DIRECT)


def test_spread_keys_fill_the_universe_evenly():
    keys = spread_keys("slide", np.arange(4096))
    assert len(set(keys.tolist())) == 4096
    counts = np.bincount((keys // (UNIVERSE // 8)).astype(int), minlength=8)
    assert counts.min() > 400
    assert counts.sum() == 4096


def test_arrays_with_a_leading_axis_are_the_same_slide(tmp_path):
    features, coords = drawn(), np.arange(10).reshape(5, 2)
    versions = set()
    for name, lead in (("flat", ()), ("lead", (1,))):
        folder = tmp_path / name
        folder.mkdir()
        write(folder / "a.h5", features.reshape(*lead, 5, D), coords.reshape(*lead, 5, 2))
        (slide,) = feature_source(folder, keep=Keep.BOTH).slides
        versions.add(slide.version)
    assert len(versions) == 1


@pytest.mark.parametrize(
    ("attributes", "side_px"),
    [
        ({"patch_size": 256, "patch_size_level0": 512}, 512),
        ({"patch_size": 256, "patch_level": 0}, 256),
        ({"patch_size": 256, "patch_level": 1, "downsample": np.array([4.0, 4.0])}, 1024),
        ({"patch_size": 256, "patch_level": 1}, 0),
        ({"patch_size": "large"}, 0),
        ({}, 0),
    ],
)
def test_a_patchs_side_is_read_from_the_attributes_where_they_say_it(tmp_path, attributes, side_px):
    write(tmp_path / "a.h5", drawn(), **attributes)
    (slide,) = feature_source(tmp_path, keep=Keep.CODES).slides
    assert slide.slide.patch_side_px == side_px


def test_name_and_size_are_read_from_the_attributes(tmp_path):
    write(tmp_path / "a_patches.h5", drawn(), name="a", level0_width=900, level0_height=700)
    (slide,) = feature_source(tmp_path, keep=Keep.CODES).slides
    assert slide.slide == Slide("a", width_px=900, height_px=700)


BAD = {
    "found features of 7 numbers, expected 40": lambda p: write(p, drawn(5, 7)),
    "found 4 coords, expected 5": lambda p: write(p, drawn(), np.zeros((4, 2), int)),
    r"coords has shape \(5, 3\)": lambda p: write(p, drawn(), np.zeros((5, 3), int)),
    r"b\.h5: coords row 4: found \[-8, 0\], expected whole level-0 pixels, 0\.\.2147483647": lambda p: (
        write(p, drawn(), np.where(np.arange(5)[:, None] == 4, [-8, 0], 0))
    ),
    r"coords row 0: found \[2147483648\.0": lambda p: write(
        p, drawn(), np.full((5, 2), 2.0**31, np.float32)
    ),
    "type int64, expected floats": lambda p: write(p, np.ones((5, D), int)),
    "row 3: found a number that is not finite": lambda p: write(
        p, np.where(np.arange(5)[:, None] == 3, np.nan, drawn())
    ),
    "patch row 0 is all zero": lambda p: write(p, np.zeros((5, D))),
    "cannot be read as HDF5": lambda p: p.write_bytes(b"x"),
}


@pytest.mark.parametrize("problem", BAD)
def test_a_bad_file_fails_its_slide_alone_and_is_named(tmp_path, problem):
    write(tmp_path / "a.h5", drawn())
    BAD[problem](tmp_path / "b.h5")
    a, b = feature_source(tmp_path, keep=Keep.BOTH).slides
    assert a.slide.slide_id == "a"
    with pytest.raises(BadFile, match=problem):
        raise BadFile(b.problem)
    assert str(tmp_path / "b.h5") in b.problem


def test_labels_without_a_file_files_without_labels_and_doubled_names_are_told(tmp_path):
    for file in ("a", "b", "c"):
        write(tmp_path / f"{file}.h5", drawn(), name="a" if file == "b" else file)
    labels = {name: Slide(name, patient="P", site="lung") for name in ("a", "lost")}
    a, b, c, lost = feature_source(tmp_path, keep=Keep.CODES, labels=labels).slides
    assert a.slide.patient == "P"
    assert "bears the slide id of" in b.problem
    assert "no row in the labels table" in c.problem
    assert (type(lost), lost.slide_id) == (Unreadable, "lost")


def test_features_of_two_extractors_have_two_fingerprints(tmp_path):
    write(tmp_path / "a.h5", drawn())
    prints = {
        feature_source(tmp_path, keep=Keep.CODES, about=t).collection.fingerprint for t in "ab"
    }
    assert len(prints) == 2


def test_a_folder_without_features_is_refused(tmp_path):
    with pytest.raises(BadFile, match=r"holds no \*.h5"):
        feature_source(tmp_path, keep=Keep.BOTH)
    (tmp_path / "a.h5").write_bytes(b"x")
    with pytest.raises(BadFile, match="no file has features"):
        feature_source(tmp_path, keep=Keep.BOTH)


def test_imported_features_are_searched_by_their_codes(tmp_path, sish, home):
    for name in "abc":
        write(tmp_path / f"{name}.h5", drawn(6, seed=ord(name)))
    arguments = ("features", "--h5", tmp_path, "-c", "demo", "--keep", "codes", "--home", home)
    assert "3 slides stored" in sish("import", *arguments).stdout
    assert "3 unchanged" in sish("import", *arguments).stdout
    with open_home(home) as client:
        query = client.encoded_slide("demo", "b")
        found = client.search("demo", query)
        assert (found.results[0].slide.slide_id, found.results[0].distance) == ("b", 0)
        assert found.mode is Mode.EXACT


def test_imported_embeddings_are_searched_directly_and_survive_a_table(tmp_path, sish, home):
    folder, table = tmp_path / "features", tmp_path / "table.parquet"
    folder.mkdir()
    for name in "abc":
        write(folder / f"{name}.h5", np.abs(drawn(6, seed=ord(name))))
    sish("import", "features", "--h5", folder, "-c", "first", "--keep", "both", "--home", home)
    sish("export", "first", "--to", "parquet", table, "--home", home)
    sish("import", "tables", "--parquet", table, "-c", "second", "--home", home)
    answers = []
    with open_home(home) as client:
        for collection in ("first", "second"):
            query = client.encoded_slide(collection, "c")
            found = client.search(collection, query, mode=Mode.DIRECT)
            answers.append([(r.slide.slide_id, r.distance, r.matches) for r in found.results])
    assert answers[0] == answers[1]
    assert answers[0][0][:2] == ("c", 0)


def test_one_stray_file_does_not_decide_how_long_vectors_are(tmp_path):
    write(tmp_path / "a-stray.h5", drawn(d=8))
    for name in "bc":
        write(tmp_path / f"{name}.h5", drawn())
    source = feature_source(tmp_path, keep=Keep.EMBEDDINGS)
    stray, *good = source.slides
    assert source.collection.dimensions == D
    assert isinstance(stray, Unreadable)
    assert [slide.slide.slide_id for slide in good] == ["b", "c"]
