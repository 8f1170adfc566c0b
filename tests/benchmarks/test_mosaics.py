"""Mosaics asked for their siblings, and measured values that are kept."""

import numpy as np

from benchmarks.training.kept import Kept
from benchmarks.training.mosaics import found_siblings


def test_a_sibling_comes_first_where_its_mosaic_is_nearest():
    rng = np.random.default_rng(0)
    kinds = rng.normal(size=(3, 8))
    own = np.array(list("abcabc"))
    mosaics = [kinds[i % 3] + 0.01 * rng.normal(size=(4, 8)) for i in range(6)]
    first, reciprocal = found_siblings(mosaics, own)
    assert first == reciprocal == [1.0] * 6


def test_a_sibling_behind_others_counts_by_its_rank():
    # Directions at 0, 10, 25 and 45 degrees: a's sibling is the last for both.
    angles = np.radians([0, 10, 25, 45])
    mosaics = [np.array([[np.cos(a), np.sin(a)]]) for a in angles]
    first, reciprocal = found_siblings(mosaics, np.array(list("abca")))
    assert [first[0], first[3]] == [0.0, 0.0]
    assert np.allclose([reciprocal[0], reciprocal[3]], 1 / 3)


def test_values_are_measured_once_and_those_of_another_model_dropped(tmp_path):
    asked = []

    def measure():
        asked.append(1)
        return [len(asked)]

    path = tmp_path / "judged.json"
    assert Kept(path, "model a").value("x", measure) == [1]
    assert Kept(path, "model a").value("x", measure) == [1]
    assert Kept(path, "model a").value("y", measure) == [2]
    assert Kept(path, "model b").value("x", measure) == [3]
    assert len(asked) == 3
