"""Only library pages that are as their file is are given back, and what ran before runs on."""

import importlib
import sys

import numpy as np
import pytest

from sish_cluster.shard.trimming import not_loading, release_startup_memory, unchanged_libraries
from sish_cluster.shard.veb import VebTree

MEBI = 1 << 20


def mapping(start, n_bytes, mode, name, anonymous_kb):
    head = f"{start:x}-{start + n_bytes:x} {mode} 00000000 fe:00 1234   {name}"
    return [head, "Size: 1 kB", f"Anonymous:   {anonymous_kb} kB", "VmFlags: rd ex"]


def test_changed_writable_small_and_other_mappings_are_left_alone():
    smaps = [
        *mapping(1 << 30, 8 * MEBI, "r-xp", "/lib/libbig.so.22", 0),
        *mapping(2 << 30, 8 * MEBI, "r--p", "/lib/libbig.so.22", 4),
        *mapping(3 << 30, 8 * MEBI, "rw-p", "/lib/libbig.so.22", 0),
        *mapping(4 << 30, 1 * MEBI, "r-xp", "/lib/libsmall.so", 0),
        *mapping(5 << 30, 8 * MEBI, "r--s", "/data/store/data.mdb", 0),
        *mapping(6 << 30, 8 * MEBI, "r--p", "", 0),
        *mapping(7 << 30, 8 * MEBI, "r--p", "/lib/liblast.so", 0),
    ]
    found = list(unchanged_libraries(smaps))
    assert found == [(n << 30, (n << 30) + 8 * MEBI) for n in (1, 7)]


def test_kernels_answer_after_memory_was_given_back():
    tree = VebTree(np.arange(0, 10**6, 7))
    release_startup_memory()
    assert tree.successors_of(np.array([8, 999_999])).tolist() == [14, -1]
    tree.insert_all(np.array([9]))
    assert tree.successors_of(np.array([8])).tolist() == [9]


def test_a_module_seems_not_installed_only_while_it_is_left_out(monkeypatch):
    monkeypatch.delitem(sys.modules, "this", raising=False)
    with not_loading("this"), pytest.raises(ImportError):
        importlib.import_module("this")
    assert "this" not in sys.modules
    with not_loading("sys"):
        assert sys.modules["sys"] is sys
