"""The topology file: what it says, and what it says when it is wrong."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sish_cluster.core.errors import BadTopology
from sish_cluster.core.key import UNIVERSE
from sish_cluster.core.topology import KeyRange, Selector, ShardSpec, Topology
from sish_cluster.router.topology_file import (
    topology_from_file,
    topology_from_text,
    topology_text,
)

GOOD = """
epoch = 3
[[shards]]
name = "low"
address = "127.0.0.1:7001"
select = { site = "lung" }
range = "0:4e14"
[[shards]]
name = "high"
address = "127.0.0.1:7002"
select = { site = "lung" }
range = "4e14:"
[[shards]]
name = "rest"
address = "[::1]:7003"
"""


def test_a_file_gives_its_shards_their_selectors_and_ranges(tmp_path):
    file = tmp_path / "cluster.toml"
    file.write_text(GOOD)
    topology = topology_from_file(file)
    assert topology.epoch == 3
    assert topology.shards[1] == ShardSpec(
        "high", "127.0.0.1:7002", Selector.parsed(["site=lung"]), KeyRange(4 * 10**14, UNIVERSE)
    )
    assert topology.shards[2].selector == Selector()


@given(
    bounds=st.lists(st.integers(1, UNIVERSE - 1), max_size=4, unique=True),
    value=st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
)
def test_writing_a_topology_and_reading_it_gives_the_same(bounds, value):
    edges = [0, *sorted(bounds), UNIVERSE]
    selector = Selector.of({"site": value})
    shards = [
        ShardSpec(f"s{n}", f"host:{7000 + n}", selector, KeyRange(edges[n], edges[n + 1]))
        for n in range(len(edges) - 1)
    ]
    topology = Topology(tuple(shards), 7)
    assert topology_from_text(topology_text(topology)) == topology


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("epoch = 3", "epok = 3"), "unknown key 'epok'"),
        (("epoch = 3", "epoch = 0"), "epoch must be 1 or more; found 0"),
        (("epoch = 3", "epoch = true"), "'epoch' must be a int"),
        (("epoch = 3", "epoch ="), "not a TOML file"),
        (('name = "low"', ""), r"shards\[0\] lacks the key 'name'"),
        (('name = "low"', "name = 4"), r"shards\[0\]: 'name' must be a str; found 4"),
        (('"127.0.0.1:7001"', '"localhost"'), "address 'localhost'"),
        (('site = "lung" }\nrange = "0', 'site = 3 }\nrange = "0'), r"shards\[0\].select.site"),
        (('"0:4e14"', '"4e14"'), r"shards\[0\].range: a range is written start:end"),
        (('"0:4e14"', '"0:3e14"'), "a gap in"),
        (('name = "high"', 'name = "low"'), "'low' twice"),
    ],
)
def test_a_wrong_file_is_refused_naming_the_file_and_the_key(tmp_path, change, message):
    file = tmp_path / "cluster.toml"
    assert change[0] in GOOD
    file.write_text(GOOD.replace(*change, 1))
    with pytest.raises(BadTopology, match=message) as raised:
        topology_from_file(file)
    assert str(file) in raised.value.message


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(BadTopology, match=r"none\.toml: the topology file cannot be read"):
        topology_from_file(tmp_path / "none.toml")
