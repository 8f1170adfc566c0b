"""Collections: postings of one encoder fingerprint, searched together."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping

from sish_cluster.core.code import code_bytes_of
from sish_cluster.core.errors import BadRequest, FingerprintMismatch

PUBLISHED_MAX_DISTANCE = 128
"""Bound of a search in Hamming bits of 1024, as published (1024 px patches)."""

COMPACT_MAX_DISTANCE = 192
"""Bound for patches seen at 512 px, bits of 1024. Texture codes lie further apart there: among nine real
slides five find nothing but themselves within 128 bits. Searching half of each mosaic among the other
halves, the same slide came first in 0.939 of 212 queries at 128 bits, 0.995 at 160, 200 and 260."""

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


@dataclasses.dataclass(frozen=True, slots=True)
class Collection:
    """What a collection is; immutable once created.

    Parameters
    ----------
    name
        Lower-case letters, digits, ``_`` and ``-``, 1 to 63 of them, the first a letter or digit.
    fingerprint
        The only encoder fingerprint it accepts.
    code_bits
        Bits of a texture code.
    max_distance
        Default bound of its searches, Hamming bits.
    encoder
        One line for people: profile, networks, whether weights are trained.
    """

    name: str
    fingerprint: str
    code_bits: int
    max_distance: int = 128
    encoder: str = ""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise BadRequest(
                f"collection name {self.name!r}: use 1 to 63 lower-case letters, digits, '_' or '-',"
                " starting with a letter or digit",
                field="collection",
            )
        if not self.fingerprint:
            raise BadRequest("a collection needs an encoder fingerprint", field="fingerprint")
        if not 1 <= self.code_bits <= 1 << 16:
            raise BadRequest(
                f"code_bits must be 1..{1 << 16}; found {self.code_bits}", field="code_bits"
            )

    @property
    def code_bytes(self) -> int:
        """Bytes of a packed code."""
        return code_bytes_of(self.code_bits)

    def check_fingerprint(self, fingerprint: str) -> None:
        """Raise `FingerprintMismatch` unless ``fingerprint`` is this collection's."""
        if fingerprint != self.fingerprint:
            raise FingerprintMismatch(
                f"collection {self.name!r} holds keys and codes of encoder fingerprint"
                f" {self.fingerprint}, found {fingerprint or 'none'}: encode with the collection's"
                " encoder settings, or make a new collection",
                metadata={
                    "collection": self.name,
                    "expected": self.fingerprint,
                    "found": fingerprint,
                },
            )


@dataclasses.dataclass(frozen=True, slots=True)
class CollectionState:
    """What a shard, or the whole cluster, holds of a collection.

    Parameters
    ----------
    collection
        Its definition.
    slides
        Committed slides (at home here, when a shard answers).
    postings
        Committed postings.
    pending
        Slides whose ingest was begun and not committed.
    label_counts
        Label name -> value -> committed slides (at home here).
    """

    collection: Collection
    slides: int
    postings: int
    pending: int
    label_counts: Mapping[str, Mapping[str, int]]


def default_max_distance(profile: str, code_bits: int) -> int:
    """Return the bound a new collection gets: the profile's share of a code's bits.

    Examples
    --------
    >>> default_max_distance("published", 1024), default_max_distance("compact", 1024)
    (128, 192)
    """
    of_1024 = COMPACT_MAX_DISTANCE if profile == "compact" else PUBLISHED_MAX_DISTANCE
    return round(of_1024 * code_bits / 1024)
