"""Encoded slides kept on disk, so that nothing is encoded twice.

One file a slide, named by a digest of the slide file's content, the encoder fingerprint, the mosaic's
settings and the mpp that was given. Labels are not kept: they are the caller's, and may have been
corrected since. An entry that is damaged, or of another layout, counts as absent and is written anew.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sish_cluster.core.errors import SishError
from sish_cluster.core.posting import EncodedSlide, PatchColumns
from sish_cluster.core.slide import Slide, canonical_bytes, digest_of

LAYOUT = 2
"""Layout of an entry; another number is another name, so old entries are simply not found."""

DIGEST_BYTES = 32
"""Hex digits of the BLAKE2b-128 digest at the start of an entry, over all that follows."""

Arrays = Mapping[str, npt.NDArray[np.generic]]
"""Columns and sizes of an entry by name."""


@dataclasses.dataclass(frozen=True, slots=True)
class EncodedStore:
    """A folder of encoded slides, shared by any number of processes.

    Parameters
    ----------
    folder
        Made when first written to.
    """

    folder: Path

    def found(
        self, slide: Slide, *, digest: str, fingerprint: str, mosaic_digest: str, mpp: float | None
    ) -> EncodedSlide | None:
        """Return the stored slide under ``slide``'s identity and labels, or None.

        Parameters
        ----------
        slide
            Identity and labels; sizes are filled in.
        digest
            Digest of the slide file's content.
        fingerprint, mosaic_digest, mpp
            What it would be encoded with.
        """
        name = _name(digest, fingerprint, mosaic_digest, mpp)
        try:
            arrays = _unpacked((self.folder / name).read_bytes())
            patches = PatchColumns.of(
                *(arrays[column] for column in _COLUMNS), embeddings=arrays["embeddings"]
            )
            sizes = arrays["sizes"]
            known = dataclasses.replace(
                slide,
                mpp=float(arrays["mpp"][()]),
                width_px=int(sizes[0]),
                height_px=int(sizes[1]),
                patch_side_px=int(sizes[2]),
                digest=digest,
            )
        except (OSError, ValueError, KeyError, IndexError, zipfile.BadZipFile, SishError):
            return None
        return EncodedSlide.whole(known, patches, fingerprint)

    def put(self, encoded: EncodedSlide, *, mosaic_digest: str, mpp: float | None) -> None:
        """Keep an encoded slide; whole or not at all, also when killed meanwhile."""
        slide, patches = encoded.slide, encoded.patches
        name = _name(slide.digest, encoded.fingerprint, mosaic_digest, mpp)
        columns = (patches.keys, patches.codes, patches.corners, patches.numbers)
        content = _packed(
            {
                **dict(zip(_COLUMNS, columns, strict=True)),
                "embeddings": patches.embeddings,
                "sizes": np.array([slide.width_px, slide.height_px, slide.patch_side_px], np.int64),
                "mpp": np.array(slide.mpp),
            }
        )
        self.folder.mkdir(parents=True, exist_ok=True)
        _write_whole(self.folder / name, content)


_COLUMNS = ("keys", "codes", "corners", "numbers")


def _name(digest: str, fingerprint: str, mosaic_digest: str, mpp: float | None) -> str:
    parts = {
        "layout": LAYOUT,
        "file": digest,
        "fingerprint": fingerprint,
        "mosaic": mosaic_digest,
        "mpp": mpp,
    }
    return f"{digest_of(canonical_bytes(parts))}.slide"


def _packed(arrays: Arrays) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    content = buffer.getvalue()
    return digest_of(content).encode() + content


def _unpacked(entry: bytes) -> Arrays:
    """Return the arrays of an entry, or raise ValueError when a byte differs."""
    digest, content = entry[:DIGEST_BYTES], entry[DIGEST_BYTES:]
    if digest != digest_of(content).encode():
        raise ValueError("the entry's digest does not match its content")
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return dict(arrays)


def _write_whole(path: Path, content: bytes) -> None:
    descriptor, part = tempfile.mkstemp(dir=path.parent, prefix=".part-")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(part, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(part)
        raise
