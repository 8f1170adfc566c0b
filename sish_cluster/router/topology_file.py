"""The topology as a file: ``cluster.toml``.

::

    epoch = 1                        # optional, 1 when absent; raise it with every change

    [[shards]]                       # one table per shard, at least one
    name = "lung-low"                # unique
    address = "127.0.0.1:7001"       # where the shard listens
    select = { site = "lung" }       # labels it owns; absent: every slide
    range = "0:4e14"                 # keys it owns, half-open; absent: all of them

    [[shards]]
    name = "lung-high"
    address = "127.0.0.1:7002"
    select = { site = "lung" }
    range = "4e14:"

Shards with the same ``select`` form a group whose ranges must tile the key universe. A slide belongs to
the first group, in the order of the file, whose labels it has; put a group without ``select`` last to
take the rest.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sish_cluster.core.errors import BadTopology
from sish_cluster.core.topology import KeyRange, Selector, ShardSpec, Topology

_TOP_KEYS = ("epoch", "shards")
_SHARD_KEYS = ("name", "address", "select", "range")


def topology_from_file(path: Path) -> Topology:
    """Return the topology that a file describes.

    Raises
    ------
    BadTopology
        If the file cannot be read or parsed, a key is missing, unknown or of the wrong kind, or the
        shards do not form a topology; the message names the file and the key.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadTopology(f"{path}: the topology file cannot be read: {error}") from error
    return topology_from_text(text, name=str(path))


def topology_from_text(text: str, *, name: str = "cluster.toml") -> Topology:
    r"""Return the topology of a file's text; ``name`` is what errors call the file.

    Examples
    --------
    >>> text = '[[shards]]\nname = "all"\naddress = "127.0.0.1:7001"'
    >>> topology_from_text(text).shards[0].range.start
    0
    """
    try:
        values = tomllib.loads(text)
        _check_keys(values, _TOP_KEYS, where="the file")
        shards = _value(values, "shards", list, where="the file", missing=[])
        specs = [_shard(table, f"shards[{place}]") for place, table in enumerate(shards)]
        epoch = _value(values, "epoch", int, where="the file", missing=1)
        if epoch < 1:
            raise BadTopology(f"epoch must be 1 or more; found {epoch}")
        return Topology(tuple(specs), epoch)
    except tomllib.TOMLDecodeError as error:
        raise BadTopology(f"{name}: not a TOML file: {error}") from error
    except BadTopology as error:
        raise BadTopology(f"{name}: {error.message}", metadata={"file": name}) from error


def topology_text(topology: Topology) -> str:
    """Return the file text of a topology, `topology_from_text`'s inverse."""
    lines = [f"epoch = {topology.epoch}"]
    for shard in topology.shards:
        select = ", ".join(
            f"{_quoted(name)} = {_quoted(value)}" for name, value in shard.selector.labels
        )
        lines += [
            "",
            "[[shards]]",
            f"name = {_quoted(shard.name)}",
            f"address = {_quoted(shard.address)}",
            f"select = {{ {select} }}",
            f'range = "{shard.range}"',
        ]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """Return a TOML basic string: JSON's, but with every character as itself, save DEL."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _shard(table: object, where: str) -> ShardSpec:
    if not isinstance(table, dict):
        raise BadTopology(f"{where} must be a [[shards]] table; found {table!r}")
    _check_keys(table, _SHARD_KEYS, where=where)
    name = _value(table, "name", str, where=where)
    address = _value(table, "address", str, where=where)
    host, _, port = address.rpartition(":")
    if not name or not host or not port.isdigit():
        raise BadTopology(
            f"{where} needs a name and an address like 127.0.0.1:7001; found name {name!r},"
            f" address {address!r}"
        )
    select = _value(table, "select", dict, where=where, missing={})
    try:
        key_range = KeyRange.parsed(_value(table, "range", str, where=where, missing=":"))
    except BadTopology as error:
        raise BadTopology(f"{where}.range: {error.message}") from error
    return ShardSpec(name, address, _selector(select, f"{where}.select"), key_range)


def _selector(select: Mapping[str, object], where: str) -> Selector:
    labels: dict[str, str] = {}
    for label, value in select.items():
        if not isinstance(value, str) or not value:
            raise BadTopology(
                f'{where}.{label} must be one value in quotes, such as "lung"; found {value!r}'
            )
        labels[label] = value
    return Selector.of(labels)


def _check_keys(values: Mapping[str, object], known: tuple[str, ...], *, where: str) -> None:
    unknown = [key for key in values if key not in known]
    if unknown:
        raise BadTopology(
            f"{where} has an unknown key {unknown[0]!r}; known keys: {', '.join(known)}"
        )


def _value(
    values: Mapping[str, Any], key: str, kind: type, *, where: str, missing: object = None
) -> Any:
    found = values.get(key, missing)
    if found is None:
        raise BadTopology(f"{where} lacks the key {key!r}")
    if not isinstance(found, kind) or isinstance(found, bool):
        raise BadTopology(f"{where}: {key!r} must be a {kind.__name__}; found {found!r}")
    return found
