"""Collections: postings of one encoder fingerprint, searched together."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping

from sish_cluster.core.code import code_bytes_of
from sish_cluster.core.embedding import MAX_DIMENSIONS
from sish_cluster.core.errors import BadRequest, FingerprintMismatch
from sish_cluster.core.query import Mode

PUBLISHED_MAX_DISTANCE = 128
"""Bound of a search in Hamming bits of 1024, as published (1024 px patches)."""

COMPACT_MAX_DISTANCE = 192
"""Bound for patches seen at 512 px, bits of 1024. Texture codes lie further apart there: among nine real
slides five find nothing but themselves within 128 bits. Searching half of each mosaic among the other
halves, the same slide came first in 0.939 of 212 queries at 128 bits, 0.995 at 160, 200 and 260."""

MAX_CODE_BITS = 1 << 16
"""Most bits of a texture code."""

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
        Bits of a texture code; 0 for a collection that keeps embeddings only.
    max_distance
        Default bound of its searches, Hamming bits.
    encoder
        One line for people: profile, networks, whether weights are trained.
    dimensions
        Numbers of an embedding; 0 for a collection that keeps codes only.
    has_keys
        Whether keys are those of a key encoder, so that SISH and GUIDED searches mean something;
        False for imported features, whose keys only spread postings over shards.
    """

    name: str
    fingerprint: str
    code_bits: int
    max_distance: int = 128
    encoder: str = ""
    dimensions: int = 0
    has_keys: bool = True

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise BadRequest(
                f"collection name {self.name!r}: use 1 to 63 lower-case letters, digits, '_' or '-',"
                " starting with a letter or digit",
                field="collection",
            )
        if not self.fingerprint:
            raise BadRequest("a collection needs an encoder fingerprint", field="fingerprint")
        bounds = {"code_bits": MAX_CODE_BITS, "dimensions": MAX_DIMENSIONS}
        for name, high in bounds.items():
            if not 0 <= getattr(self, name) <= high:
                raise BadRequest(
                    f"{name} must be 0..{high}; found {getattr(self, name)}", field=name
                )
        if not self.code_bits and not self.dimensions:
            raise BadRequest(
                "a collection keeps codes (code_bits), embeddings (dimensions) or both; found neither",
                field="code_bits",
            )

    @property
    def code_bytes(self) -> int:
        """Bytes of a packed code; 0 without codes."""
        return code_bytes_of(self.code_bits) if self.code_bits else 0

    def check_mode(self, mode: Mode) -> None:
        """Raise `BadRequest` where the collection lacks what a mode compares."""
        lacks = {
            Mode.DIRECT: "" if self.dimensions else "keeps no embeddings",
            Mode.EXACT: "" if self.code_bits else "keeps no codes",
        }.get(mode, "" if self.code_bits and self.has_keys else "has no keys of a key encoder")
        if lacks and mode is not Mode.AUTO:
            offered = " or ".join(mode.value for mode in self.modes)
            raise BadRequest(
                f"collection {self.name!r} {lacks}, so it cannot be searched in mode {mode.value!r}:"
                f" use {offered}, or leave the mode out",
                field="settings.mode",
            )

    @property
    def modes(self) -> tuple[Mode, ...]:
        """The modes it can be searched in, AUTO apart."""
        by_code = (Mode.EXACT,) if self.code_bits else ()
        by_key = (Mode.SISH, Mode.GUIDED) if self.code_bits and self.has_keys else ()
        return (*by_key, *by_code, *((Mode.DIRECT,) if self.dimensions else ()))

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
