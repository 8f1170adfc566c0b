"""Who owns what: shards, their selectors and key ranges, at one epoch.

A *group* is the shards of one selector; their ranges tile the universe. A slide belongs to the first
group, in the order of the topology, whose selector its labels satisfy; its postings go to the group's
shards by key; its *home* is one of them, chosen by a digest of the slide id.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Mapping, Sequence

from sish_cluster.core.errors import BadTopology, Moved
from sish_cluster.core.key import UNIVERSE
from sish_cluster.core.slide import Slide


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class KeyRange:
    """Keys ``start <= key < end``."""

    start: int = 0
    end: int = UNIVERSE

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.end <= UNIVERSE:
            raise BadTopology(
                f"a range is start:end with 0 <= start < end <= {UNIVERSE} (2**50);"
                f" found {self.start}:{self.end}"
            )

    def __contains__(self, key: int) -> bool:
        return self.start <= key < self.end

    def __str__(self) -> str:
        return f"{self.start}:{self.end}"

    @classmethod
    def parsed(cls, text: str) -> KeyRange:
        """Return the range written ``start:end``; either may be empty or like ``4e14``.

        Examples
        --------
        >>> KeyRange.parsed("0:4e14").end
        400000000000000
        """
        start, colon, end = text.partition(":")
        try:
            low = _whole(start) if start.strip() else 0
            high = _whole(end) if end.strip() else UNIVERSE
        except ValueError:
            colon = ""
        if not colon:
            raise BadTopology(f"a range is written start:end, such as 0:4e14; found {text!r}")
        return cls(low, high)


def _whole(text: str) -> int:
    value = float(text)
    if value != int(value):
        raise ValueError(text)
    return int(text) if text.strip().isdigit() else int(value)


@dataclasses.dataclass(frozen=True, slots=True)
class Selector:
    """Labels a shard owns: every one must have the given value; none means every slide.

    Examples
    --------
    >>> Selector.parsed(["site=lung"]).owns(Slide("a", site="lung"))
    True
    """

    labels: tuple[tuple[str, str], ...] = ()

    def owns(self, slide: Slide) -> bool:
        """Whether the slide's labels satisfy this selector."""
        return all(slide.label(name) == value for name, value in self.labels)

    def __str__(self) -> str:
        return ",".join(f"{name}={value}" for name, value in self.labels) or "every slide"

    @classmethod
    def of(cls, labels: Mapping[str, str]) -> Selector:
        """Return the selector of a mapping."""
        return cls(tuple(sorted(labels.items())))

    @classmethod
    def parsed(cls, texts: Sequence[str]) -> Selector:
        """Return the selector of texts like ``site=lung``."""
        pairs = [text.partition("=") for text in texts]
        for (name, equals, value), text in zip(pairs, texts, strict=True):
            if not (name.strip() and equals and value.strip()):
                raise BadTopology(f"a selector is written label=value; found {text!r}")
        return cls.of({name.strip(): value.strip() for name, _, value in pairs})


@dataclasses.dataclass(frozen=True, slots=True)
class ShardSpec:
    """One shard: its name, where it listens, what it owns."""

    name: str
    address: str
    selector: Selector = Selector()
    range: KeyRange = KeyRange()


@dataclasses.dataclass(frozen=True)
class Topology:
    """All shards, at one epoch.

    Raises
    ------
    BadTopology
        If there is no shard, two share a name, or a group's ranges overlap or leave a gap.
    """

    shards: tuple[ShardSpec, ...]
    epoch: int = 1

    def __post_init__(self) -> None:
        if not self.shards:
            raise BadTopology("a topology has at least one shard; found none")
        names = [shard.name for shard in self.shards]
        doubled = sorted({name for name in names if names.count(name) > 1})
        if doubled:
            raise BadTopology(f"shard names must be unique; found {doubled[0]!r} twice")
        for selector, group in self.groups.items():
            _check_tiling(selector, group)

    @functools.cached_property
    def groups(self) -> dict[Selector, tuple[ShardSpec, ...]]:
        """Shards by selector, in topology order, each group in key order."""
        groups: dict[Selector, list[ShardSpec]] = {}
        for shard in self.shards:
            groups.setdefault(shard.selector, []).append(shard)
        return {
            selector: tuple(sorted(shards, key=lambda s: s.range))
            for selector, shards in groups.items()
        }

    def group_of(self, slide: Slide) -> tuple[ShardSpec, ...]:
        """Return the shards a slide belongs to, in key order.

        Raises
        ------
        Moved
            If no selector owns the slide.
        """
        for selector, group in self.groups.items():
            if selector.owns(slide):
                return group
        owned = "; ".join(str(selector) for selector in self.groups)
        raise Moved(
            f"no shard of the topology (epoch {self.epoch}) owns slide {slide.slide_id!r}: it owns"
            f" {owned}. Correct the slide's labels, or add a shard without a selector",
            metadata={"slide": slide.slide_id, "epoch": str(self.epoch)},
        )

    @staticmethod
    def home_of(slide_id: str, group: Sequence[ShardSpec]) -> ShardSpec:
        """Return the shard of ``group`` that decides whether the slide is committed."""
        digest = hashlib.blake2b(slide_id.encode(), digest_size=8).digest()
        return group[int.from_bytes(digest, "little") % len(group)]


def _check_tiling(selector: Selector, group: Sequence[ShardSpec]) -> None:
    end = 0
    for shard in group:
        if shard.range.start != end:
            kind = "a gap" if shard.range.start > end else "an overlap"
            low, high = sorted((shard.range.start, end))
            raise BadTopology(
                f"shards of {selector} must tile 0:{UNIVERSE}; found {kind} in [{low}, {high})"
                f" before shard {shard.name!r}"
            )
        end = shard.range.end
    if end != UNIVERSE:
        raise BadTopology(
            f"shards of {selector} must tile 0:{UNIVERSE}; found a gap in [{end}, {UNIVERSE})"
            f" after shard {group[-1].name!r}"
        )
