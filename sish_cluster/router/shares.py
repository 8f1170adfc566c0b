"""A slide's shares on several shards become the slide as it was ingested."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from sish_cluster.core.errors import Unavailable, UnknownSlide
from sish_cluster.core.posting import EncodedSlide, PatchColumns, version_of


def joined_slide(
    collection: str, slide_id: str, shares: Iterable[EncodedSlide | None]
) -> EncodedSlide:
    """Return the whole slide, its patches in the order of their numbers.

    Parameters
    ----------
    collection, slide_id
        What was asked, for messages.
    shares
        One per shard; None where a shard has none of it.

    Raises
    ------
    UnknownSlide
        If no shard has any of it.
    Unavailable
        If the shares are not those of one version, as while a newer one is being ingested: ask again.
    """
    found = [share for share in shares if share is not None]
    if not found:
        raise UnknownSlide(
            f"collection {collection!r} has no slide {slide_id!r}: list what it has with"
            " `sish collection describe --slides`",
            metadata={"collection": collection, "slide": slide_id},
        )
    filled = [share for share in found if len(share.patches)] or found[:1]
    first = filled[0]
    versions = sorted({share.version for share in found})
    patches = _in_order([share.patches for share in filled]) if len(versions) == 1 else None
    if patches is None or version_of(first.slide, patches, first.fingerprint) != first.version:
        raise Unavailable(
            f"slide {slide_id!r} of collection {collection!r} is not whole now (versions"
            f" {', '.join(versions)}): it is being ingested or forgotten; ask again",
            retry_after_s=0.2,
        )
    return EncodedSlide(first.slide, patches, first.fingerprint, first.version)


def _in_order(parts: list[PatchColumns]) -> PatchColumns | None:
    """Return the parts' rows by ascending number; None where two parts hold the same number."""
    numbers = np.concatenate([part.numbers for part in parts])
    order = np.argsort(numbers, kind="stable")
    if (np.diff(numbers[order].astype(np.int64)) == 0).any():
        return None
    keys, codes, corners, embeddings = (
        np.concatenate([getattr(part, name) for part in parts])[order]
        for name in ("keys", "codes", "corners", "embeddings")
    )
    return PatchColumns(keys, codes, corners, numbers[order], embeddings)
