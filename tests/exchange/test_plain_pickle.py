import collections
import datetime
import os
import pickle
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sish_cluster.core.errors import BadFile
from sish_cluster.exchange.pickle_machine import PLAIN
from sish_cluster.exchange.plain_pickle import PickleBounds, plain_pickle, plain_value

PROTOCOLS = range(6)
KEY = np.float64(812832512130048.0)


class Reduced:
    """Pickles as a call of whatever it was made with."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


class WithState:
    def __getstate__(self):
        return {"a": 1}

    def __setstate__(self, state):
        raise AssertionError("somebody's code was run")


def read(content, **bounds):
    return plain_value(content, source="f.pkl", bounds=PickleBounds(**bounds))


atoms = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**64) + 1, 2**64 - 1), st.floats(allow_nan=False),
    st.text(), st.binary(), st.floats(allow_nan=False).map(np.float64),
    st.integers(-(2**63), 2**63 - 1).map(np.int64), st.booleans().map(np.bool_),
)  # fmt: skip
values = st.recursive(
    atoms,
    lambda inner: st.one_of(
        st.lists(inner),
        st.dictionaries(atoms, inner),
        st.tuples(inner, inner, inner, inner),
        st.tuples(inner),
        st.sets(st.text()),
    ),
    max_leaves=20,
)


@settings(deadline=None)
@given(values, st.sampled_from(PROTOCOLS))
def test_plain_values_of_every_protocol_are_read_as_python_reads_them(value, protocol):
    content = pickle.dumps(value, protocol)
    expected = pickle.loads(content)
    found = read(content)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "array",
    [np.arange(6).reshape(2, 3), np.asfortranarray(np.eye(3)[:, :2]), np.array([True, False]),
     np.array(["ab", "c"]), np.array([b"ab"]), np.zeros((0, 3)), np.array(2.5),
     np.arange(3, dtype=">i4")],
    ids=str,
)  # fmt: skip
def test_arrays_of_numbers_and_text_are_read_and_keep_their_identity(array, protocol):
    found, again = read(pickle.dumps([array, array], protocol))
    assert found is again
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("core", [b"numpy.core.multiarray", b"numpy._core.multiarray"])
def test_float_keys_of_old_and_new_numpy_are_exact(core, protocol):
    content = pickle.dumps({KEY: [1]}, protocol)
    for spelled in (b"numpy._core.multiarray", b"numpy.core.multiarray"):
        if spelled in content and protocol < 4:
            content = content.replace(spelled, core)
    assert [int(key) for key in read(content)] == [812832512130048]


def test_pickles_of_python_2_are_read():
    text_and_long = (
        b"(dp0\nS'slide\\x2d1'\np1\n(lp2\nL812832512130048L\naI01\naF0.5\nasV\\u00e9\np3\nNs."
    )
    assert read(text_and_long) == {"slide-1": [812832512130048, True, 0.5], "é": None}
    raw = struct.pack("<d", KEY)
    scalar = (b"\x80\x02}q\x00cnumpy.core.multiarray\nscalar\nq\x01cnumpy\ndtype\nq\x02U\x02f8q\x03K\x00"
              b"K\x01\x87q\x04Rq\x05(K\x03U\x01<q\x06NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tq\x07bU\x08"
              + raw + b"q\x08\x86q\x09Rq\x0aU\x01as.")  # fmt: skip
    assert read(scalar) == {KEY: "a"}


HOSTILE = {
    "posix.system": Reduced(os.system, "touch hacked"),
    "builtins.eval|__builtin__.eval": Reduced(eval, "1"),
    "builtins.getattr|__builtin__.getattr": Reduced(getattr, "a", "b"),
    "copy_reg._reconstructor|WithState": WithState(),
    "type 'O8'": np.array([{}], dtype=object),
    "type 'M8'": np.datetime64("2020-01-01"),
    "type 'V4'": np.zeros(1, [("a", "i4")]),
    "numpy.float64": np.float64,
    "numpy.ndarray is kept": np.ndarray,
    "a dtype is kept": np.dtype("f8"),
    "collections.OrderedDict": collections.OrderedDict(a=1),
    "datetime.date": datetime.date(2020, 1, 1),
    "frozenset": frozenset([1]),
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("named", HOSTILE)
def test_whatever_would_build_more_than_plain_values_is_refused_and_named(
    named, protocol, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "meta.pkl"
    path.write_bytes(pickle.dumps({"a": [HOSTILE[named]]}, protocol))
    with pytest.raises(BadFile, match=named) as caught:
        plain_pickle(path)
    assert str(path) in caught.value.message
    assert sorted(p.name for p in tmp_path.iterdir()) == ["meta.pkl"]


BY_HAND = {
    "sets the state of a str": b"\x80\x02X\x01\x00\x00\x00a}b.",
    "sets the state of a list": b"]}b.",
    "os.system": b"(S'ls'\nios\nsystem\n.",
    "sys.modules": b"\x80\x04\x8c\x03sys\x8c\x07modules\x93.",
    "a name made of": b"\x80\x04K\x01\x8c\x07modules\x93.",
    "persistent id": b"Pab\n.",
    "extension code": b"\x80\x02\x82\x01.",
    "buffer elsewhere": b"\x80\x05\x97.",
    "numpy.ndarray without a call": b"\x80\x02cnumpy\nndarray\n)\x81.",
    "numpy.dtype without a call": b"(cnumpy\ndtype\no.",
    "a list is called": b"])R.",
    "used as a key": b"}(]K\x01u.",
    "appended to a dict": b"}K\x01a.",
    "put into a list": b"]K\x01K\x02s.",
    "put into a dict": b"}(K\x01u.",
    "an unbuiltarray is kept": b"]cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tS'b'\ntRa.",
    "protocol 9": b"\x80\x09N.",
    "follow the end": b"N.N.",
    "left over": b"NN.",
    "memo entry 7": b"h\x07.",
    "beyond 64 bits": b"\x8a\x09" + b"\xff" * 8 + b"\x7f.",
    "a number of 5000 characters": b"I" + b"1" * 5000 + b"\n.",
    "a whole number of": b"\x8b\xff\x00\x00\x00" + b"\x01" * 255 + b".",
    "ends too early": b"\x8e" + b"\xff" * 8 + b"abc.",
    "a frame of": b"\x80\x04\x95" + b"\xff" * 7 + b"\x00N.",
    "no operation": b"\xffhello",
    "a value is missing": b"(a.",
}


@pytest.mark.parametrize("problem", BY_HAND)
def test_pickles_written_by_hand_to_deceive_are_refused(problem):
    with pytest.raises(BadFile, match=problem):
        read(BY_HAND[problem])


def test_a_value_that_grows_far_beyond_its_file_is_refused():
    """Nine lists, each ten times the one before it: 10**9 values in 300 bytes."""
    begin, drop, listed, remember = b"]q\x00", b"0](", b"h%c" * 10 + b"e", b"q%c"
    laughs = b"".join(drop + listed % ((n,) * 10) + remember % (n + 1) for n in range(9))
    with pytest.raises(BadFile, match="grows far beyond its file"):
        read(begin + laughs + b".")


def test_values_that_hold_themselves_or_lie_too_deep_are_refused():
    with pytest.raises(BadFile, match="12 deep"):
        read(b"]q\x00h\x00a.")
    with pytest.raises(BadFile, match="12 deep"):
        read(b"]" * 50 + b"a" * 49 + b".")
    with pytest.raises(BadFile, match="12 deep"):
        read(b"N" + b"\x85" * 100_000 + b".")


def test_the_number_of_objects_and_the_size_of_the_file_are_bounded(tmp_path):
    for content in (b"(" + b"]" * 2000 + b"l.", b"N" + b"\x94" * 2000 + b".", b"(" * 2000):
        with pytest.raises(BadFile, match="more than 1000 objects"):
            read(content, max_objects=1000)
    path = tmp_path / "large.pkl"
    path.write_bytes(pickle.dumps("a" * 2000))
    with pytest.raises(BadFile, match=r"a pickle has 1\.\.1000"):
        plain_pickle(path, bounds=PickleBounds(max_bytes=1000))


def test_arrays_that_repeat_the_bytes_of_one_text_cost_what_they_would_take():
    state = b"(K\x01(K\x01M\x00\x10th\x00\x89h\x01t"
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tS'b'\ntR" + state + b"b"
    )
    begin = b"cnumpy\ndtype\n(S'S1'\ntRq\x000B\x00\x10\x00\x00" + b"a" * 4096 + b"q\x010]("
    assert len(read(begin + array * 10 + b"e.")) == 10
    with pytest.raises(BadFile, match="objects"):
        read(begin + array * 100 + b"e.", max_objects=2000)


def test_a_huge_memo_number_costs_nothing():
    assert read(b"]r\xff\xff\xff\xff.") == []


def test_a_file_cut_short_anywhere_is_refused():
    content = pickle.dumps({KEY: [{"slide_name": "a", "x": 1.5}], "b": (1, 2, 3, 4)}, 4)
    for end in range(1, len(content)):
        with pytest.raises(BadFile):
            read(content[:end])


def types_in(value):
    yield type(value)
    if isinstance(value, dict):
        value = [*value, *value.values()]
    if isinstance(value, list | tuple | set):
        for item in value:
            yield from types_in(item)


SEEDS = [
    pickle.dumps([{KEY: ["a", b"b", 3, (1, 2)]}, np.arange(3), {1, 2}], protocol)
    for protocol in PROTOCOLS
]


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from(SEEDS),
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=4),
)
def test_a_damaged_pickle_gives_plain_values_or_a_refusal(content, changes):
    damaged = bytearray(content)
    for place, byte in changes:
        damaged[place % len(damaged)] = byte
    try:
        found = read(bytes(damaged))
    except BadFile:
        return
    assert PLAIN.issuperset(types_in(found))


def test_a_missing_an_empty_and_an_unreadable_file_are_refused(tmp_path):
    (tmp_path / "empty.pkl").touch()
    for name, problem in (
        ("none.pkl", "cannot be read"),
        ("empty.pkl", "0 bytes"),
        (".", "cannot"),
    ):
        with pytest.raises(BadFile, match=problem):
            plain_pickle(tmp_path / name)
