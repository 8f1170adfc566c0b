import pickle

import h5py
import numpy as np
import pytest

from sish_cluster.core.code import unpacked
from sish_cluster.core.errors import BadFile
from sish_cluster.core.key import keys_of
from sish_cluster.core.posting import EncodedSlide
from sish_cluster.exchange.codeword_ranks import read_codeword_ranks
from sish_cluster.exchange.latent_files import PublishedFolders, latent_source

BITS = 64
IDENTITY = np.arange(128)
CODE = "01" * 32


def read(published, ranks=IDENTITY, mosaics=False, patches=False, labels=None):
    top = published.top
    folders = PublishedFolders(
        top / "LATENT", top / "MOSAICS" if mosaics else None, top / "PATCHES" if patches else None
    )
    return list(latent_source(folders, ranks, code_bits=BITS, labels=labels).slides)


def test_a_constant_codeword_c_has_the_key_c_times_6400256001024(published):
    latents = np.stack([np.full((64, 64), c) for c in (0, 1, 64, 127)])
    published.add("a", latents, [CODE] * 4)
    (slide,) = read(published)
    assert slide.patches.keys.tolist() == [c * 6_400_256_001_024 for c in (0, 1, 64, 127)]
    assert slide.patches.keys.max() == 812_832_512_130_048


def test_latents_become_keys_by_rank_and_texts_become_codes(published):
    latents, texts = published.draw("a", np.random.default_rng(3), n=150)
    ranks = read_codeword_ranks(published.order)
    (slide,) = read(published, ranks, mosaics=True, patches=True)
    np.testing.assert_array_equal(slide.patches.keys, keys_of(127 - latents))
    bits = unpacked(slide.patches.codes, code_bits=BITS)
    assert ["".join(map(str, row)) for row in bits] == texts
    assert slide.patches.corners[2].tolist() == [4 * 1024, 5 * 1024]


def test_labels_come_from_the_folders_and_the_side_from_the_patches(published):
    published.add("a", np.zeros((1, 64, 64)), [CODE], site="skin", diagnosis="nevus")
    (slide,) = read(published, patches=True)
    assert (slide.slide.site, slide.slide.diagnosis) == ("skin", "nevus")
    assert slide.slide.labels == {"magnification": "20x"}
    assert slide.slide.patch_side_px == 1024


def damaged(published, name, change):
    path = published.add(name, np.zeros((2, 64, 64)), [CODE] * 2)
    change(path)
    published.add("good", np.ones((1, 64, 64)), [CODE])
    outcomes = read(published, mosaics=True)
    assert [isinstance(o, EncodedSlide) for o in outcomes] == [False, True]
    return outcomes[0].problem


def replaced(name, values):
    def change(path):
        with h5py.File(path, "a") as file:
            del file[name]
            if values is not None:
                file[name] = values

    return change


def pickled(value):
    def change(path):
        content = value if isinstance(value, bytes) else pickle.dumps(value)
        (path.parent.parent / "densenet" / f"{path.stem}.pkl").write_bytes(content)

    return change


def linked_elsewhere(path):
    with h5py.File(path, "a") as file:
        del file["coords"]
        file["coords"] = h5py.ExternalLink("secret.h5", "coords")


BAD = {
    "found 1 coords, expected 2": replaced("coords", np.zeros((1, 2), int)),
    "has no dataset 'coords' of its own": replaced("coords", None),
    "no dataset 'coords' of its own; found coords": linked_elsewhere,
    r"coords row 1: found \[7, 7\], expected": replaced("coords", np.array([[0, 1024], [7, 7]])),
    r"coords row 0: found \[0\.5": replaced("coords", np.full((2, 2), 0.5)),
    r"bad\.h5: coords row 1: found \[1024, -1\], expected whole level-0 pixels, 0\.\.2147483647": replaced(
        "coords", np.array([[0, 0], [1024, -1]])
    ),
    r"coords row 0: found \[4294967296, 0\]": replaced("coords", np.array([[1 << 32, 0], [0, 0]])),
    r"coords row 1: found \[nan, 0\.0\]": replaced("coords", np.array([[0, 0], [np.nan, 0]])),
    r"features has shape \(2, 32, 64\)": replaced("features", np.zeros((2, 32, 64), int)),
    r"features row 1: found codeword 128 at \(3, 2\), expected 0\.\.127": replaced(
        "features", np.where(np.arange(2 * 4096).reshape(2, 64, 64) == 4096 + 131, 128, 0)
    ),
    "type float64, expected whole": replaced("features", np.zeros((2, 64, 64))),
    "found 3 codes, expected a list of 2": pickled([CODE] * 3),
    "found a dict, expected a list of 2 codes": pickled({"a": CODE}),
    "row 1: found 5 characters, expected a code of 64": pickled([CODE, "01010"]),
    "row 0: found 64 characters with 'x'": pickled(["x" * 64, CODE]),
    "os.system": pickled(b"cos\nsystem\n(S'ls'\ntR."),
    "cannot be read as HDF5": lambda path: path.write_bytes(b"not hdf5"),
    "densenet/bad.pkl: cannot be read": lambda path: (
        path.parent.parent / "densenet" / "bad.pkl"
    ).unlink(),
}


@pytest.mark.parametrize("problem", BAD)
def test_a_bad_file_fails_its_slide_alone_and_is_named_with_what_was_found(published, problem):
    told = damaged(published, "bad", BAD[problem])
    with pytest.raises(BadFile, match=problem):
        raise BadFile(told)
    assert "bad" in told


def test_codes_without_latents_and_slides_without_a_mosaic_are_told(published):
    published.add("a", np.zeros((1, 64, 64)), [CODE]).unlink()
    published.add("b", np.zeros((1, 64, 64)), [CODE])
    (published.place("MOSAICS", "coord_clean") / "b.h5").unlink()
    b, a = read(published, mosaics=True)
    assert "no coord_clean/b.h5" in b.problem
    assert "texture codes but no latents" in a.problem


def test_a_folder_without_latents_is_refused(tmp_path):
    with pytest.raises(BadFile, match="holds no vqvae"):
        latent_source(PublishedFolders(tmp_path), IDENTITY, code_bits=BITS, labels=None)


@pytest.mark.parametrize("content", ["[1, 2]", '{"a": 1}', "[0.5]", "no json", str([0] * 128)])
def test_a_codeword_order_that_is_none_is_refused(tmp_path, content):
    path = tmp_path / "order.json"
    path.write_text(content)
    with pytest.raises(BadFile, match=str(path)):
        read_codeword_ranks(path)


def test_a_codeword_order_is_read_from_a_list_a_mapping_and_an_array(tmp_path, published):
    ranks = read_codeword_ranks(published.order)
    (tmp_path / "map.json").write_text(
        "{" + ",".join(f'"{c}": {127 - c}' for c in range(128)) + "}"
    )
    np.save(tmp_path / "order.npy", ranks)
    for name in ("map.json", "order.npy"):
        np.testing.assert_array_equal(read_codeword_ranks(tmp_path / name), 127 - np.arange(128))


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--latent", "LATENT"], "keys come from --meta"),
        (["--meta", "m.pkl", "--codeword-order", "o.json"], "has the keys already"),
    ],
)
def test_keys_need_one_source(sish, home, tmp_path, options, problem):
    result = sish("import", "published", *options, "-c", "demo", "--home", home)
    assert result.exit_code == 1
    assert problem in result.stderr
