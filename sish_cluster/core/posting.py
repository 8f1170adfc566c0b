"""Postings: the encoded patches of one slide, as packed columns."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from sish_cluster.core.code import Codes
from sish_cluster.core.embedding import Embeddings, checked_embeddings, no_embeddings
from sish_cluster.core.errors import BadMessage
from sish_cluster.core.key import Keys, checked_keys
from sish_cluster.core.slide import Slide, canonical_bytes, digest_of

MAX_PATCHES = 1 << 20
"""Most patches of one slide: far beyond any mosaic, small enough to bound memory."""

Corners = npt.NDArray[np.int32]
"""Corners (x, y) in level-0 pixels, shape (n, 2)."""

PatchNumbers = npt.NDArray[np.uint32]
"""Place of each patch in its slide's mosaic, from 0, shape (n,)."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class PatchColumns:
    """Encoded patches as columns of equal length n.

    Parameters
    ----------
    keys
        uint64 (n,), ``0 <= key < 2**50``.
    codes
        uint8 (n, code_bytes), packed; code_bytes 0 where there are none.
    corners
        int32 (n, 2), level-0 pixels (x, y) of each patch's upper left corner.
    numbers
        uint32 (n,), strictly ascending: the patch's place in the slide's mosaic.
    embeddings
        float16 (n, dimensions), finite, no row all zero; dimensions 0 (also for None) where there are
        none.
    """

    keys: Keys
    codes: Codes
    corners: Corners
    numbers: PatchNumbers
    embeddings: Embeddings = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        n = len(self.keys)
        given = no_embeddings(n) if self.embeddings is None else self.embeddings
        object.__setattr__(self, "embeddings", checked_embeddings(given, n=n))
        checked_keys(self.keys)
        lengths = {
            "codes": len(self.codes),
            "corners": len(self.corners),
            "numbers": len(self.numbers),
        }
        wrong = {name: length for name, length in lengths.items() if length != n}
        if wrong or self.codes.ndim != 2 or self.corners.shape[1:] != (2,):
            raise BadMessage(
                f"patch columns must agree: {n} keys but {wrong or 'badly shaped columns'}"
                f" (codes {self.codes.shape}, corners {self.corners.shape})"
            )
        if n > MAX_PATCHES:
            raise BadMessage(f"a slide has at most {MAX_PATCHES} patches; found {n}")
        if n and (np.diff(self.numbers.astype(np.int64)) <= 0).any():
            raise BadMessage("patch numbers must ascend strictly: number patches from 0, each once")

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def code_bytes(self) -> int:
        """Bytes of one packed code."""
        return int(self.codes.shape[1])

    @property
    def dimensions(self) -> int:
        """Numbers of one embedding; 0 where there are none."""
        return int(self.embeddings.shape[1])

    def without_embeddings(self) -> PatchColumns:
        """Return the same patches without embeddings: what a search by code needs to send."""
        return dataclasses.replace(self, embeddings=no_embeddings(len(self)))

    def taken(self, chosen: npt.NDArray[np.integer] | npt.NDArray[np.bool_]) -> PatchColumns:
        """Return the rows ``chosen`` (indices or mask) as new columns."""
        return PatchColumns(
            self.keys[chosen],
            self.codes[chosen],
            self.corners[chosen],
            self.numbers[chosen],
            self.embeddings[chosen],
        )

    @classmethod
    def of(
        cls,
        keys: npt.ArrayLike,
        codes: npt.ArrayLike,
        corners: npt.ArrayLike | None = None,
        numbers: npt.ArrayLike | None = None,
        *,
        embeddings: npt.ArrayLike | None = None,
    ) -> PatchColumns:
        """Return columns of the right types; corners default to (0, 0), numbers to 0..n-1."""
        key_array = checked_keys(np.asarray(keys, dtype=np.int64 if not len(keys) else None))  # type: ignore[arg-type]
        n = len(key_array)
        corner_array = np.zeros((n, 2)) if corners is None else np.asarray(corners)
        number_array = np.arange(n) if numbers is None else np.asarray(numbers)
        return cls(
            key_array,
            np.ascontiguousarray(codes, dtype=np.uint8),
            np.ascontiguousarray(corner_array.reshape(n, 2), dtype=np.int32),
            np.ascontiguousarray(number_array, dtype=np.uint32),
            no_embeddings(n) if embeddings is None else checked_embeddings(embeddings, n=n),
        )

    @classmethod
    def joined(cls, parts: Sequence[PatchColumns]) -> PatchColumns:
        """Return several slides' patches as one set, numbered anew from 0: a case's query.

        Raises
        ------
        BadMessage
            If there is no part, or the parts differ in the length of codes or embeddings.
        """
        widths = {(part.code_bytes, part.dimensions) for part in parts}
        if len(widths) != 1:
            raise BadMessage(
                "parts to be joined have codes and embeddings of one length; found (code bytes,"
                f" dimensions) {sorted(widths) or 'of no part'}"
            )
        keys, codes, corners, embeddings = (
            np.concatenate([getattr(part, name) for part in parts])
            for name in ("keys", "codes", "corners", "embeddings")
        )
        return cls(keys, codes, corners, np.arange(len(keys), dtype=np.uint32), embeddings)


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class EncodedSlide:
    """A slide and its encoded mosaic: the unit of ingest.

    ``patches`` may be a part of the mosaic (a range-cut shard's share); ``version`` then still names
    the whole.

    Parameters
    ----------
    slide
        Identity and labels.
    patches
        The mosaic's columns, or a shard's share of them.
    fingerprint
        The encoder fingerprint the keys and codes were made with.
    version
        Digest of the whole slide's content: the same slide with the same version is the same ingest.
    """

    slide: Slide
    patches: PatchColumns
    fingerprint: str
    version: str

    @classmethod
    def whole(cls, slide: Slide, patches: PatchColumns, fingerprint: str) -> EncodedSlide:
        """Return the whole encoded slide, its version computed from all of its content."""
        return cls(slide, patches, fingerprint, version_of(slide, patches, fingerprint))

    def part(self, chosen: npt.NDArray[np.bool_]) -> EncodedSlide:
        """Return the share of this slide a range-cut shard holds, under the same version."""
        return dataclasses.replace(self, patches=self.patches.taken(chosen))


def version_of(slide: Slide, patches: PatchColumns, fingerprint: str) -> str:
    """Return the digest of a slide's labels, columns and fingerprint."""
    # Only where there are any: slides of codes alone keep the versions they were stored under.
    embeddings = (patches.embeddings.astype("<f2").tobytes(),) if patches.dimensions else ()
    return digest_of(
        canonical_bytes(slide.to_dict()),
        patches.keys.astype("<u8").tobytes(),
        patches.codes.tobytes(),
        patches.corners.astype("<i4").tobytes(),
        patches.numbers.astype("<u4").tobytes(),
        *embeddings,
        fingerprint.encode(),
    )
