"""Reading a slide, apart from encoding it: cut the mosaic, then read each chosen patch once.

Reading needs cores and a disk, encoding a network: they run side by side, on different machines if
need be. What passes between them is one `Cut` (who the slide is, where its patches lie) and then
batches of pixels in the patches' order.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from sish_cluster.core.code import Codes
from sish_cluster.core.embedding import Embeddings
from sish_cluster.core.key import Keys, spread_keys
from sish_cluster.core.posting import Corners, EncodedSlide, PatchColumns
from sish_cluster.core.seams import Embedder, MosaicSelector, Pixels
from sish_cluster.core.slide import Slide
from sish_cluster.encoder.catalogue import CatalogueEntry
from sish_cluster.encoder.cutting import MAX_REGION_PATCHES, Mosaic, cut_mosaic, cut_region
from sish_cluster.encoder.damage import check_levels, checked_region
from sish_cluster.encoder.selectors import selector_of
from sish_cluster.encoder.settings import EncoderSettings
from sish_cluster.encoder.slide import SlideReader, open_slide
from sish_cluster.encoder.stain import SAMPLE_PATCHES, SAMPLE_PX, Stain, Unchanged, stain_of

READING, MOSAIC, ENCODING = "reading", "mosaic", "encoding"
"""Stages of a slide, in their order; ``done`` and ``total`` count patches, total 0 while unknown."""

Progress = Callable[[str, int, int], None]
"""Called with (stage, done, total) after each step; may raise to stop."""


class EncodedPatches(NamedTuple):
    """Patches as columns of n rows."""

    keys: Keys
    """uint64 (n,); 0 where there is no key network."""
    codes: Codes
    """uint8 (n, code_bytes)."""
    embeddings: Embeddings
    """float16 (n, dimensions)."""

    def rows(self, start: int, end: int) -> EncodedPatches:
        """Return rows ``start:end``."""
        return EncodedPatches(
            self.keys[start:end], self.codes[start:end], self.embeddings[start:end]
        )


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Cut:
    """A slide whose patches are chosen and not read yet.

    Parameters
    ----------
    slide
        Identity and labels; mpp, sizes and digest filled in.
    corners
        int32 (n, 2), n >= 1: where the patches lie, level-0 pixels.
    """

    slide: Slide
    corners: Corners


def read_slide(
    entry: CatalogueEntry,
    settings: EncoderSettings,
    embedder: Embedder,
    *,
    batch_patches: int = 1,
    tell: Progress,
) -> Iterator[Cut | Pixels]:
    """Yield a slide's `Cut`, then its patches uint8 (b, side, side, 3), b <= ``batch_patches``, in order.

    Parameters
    ----------
    entry
        Which file, who it is, and which region of it is wanted.
    settings
        Which patches, and the side they are read at.
    embedder
        Embeds candidates for the selectors that go by embeddings.
    batch_patches
        Patches read together, by as many threads as the settings say.
    tell
        Told about every stage; an error it raises stops the work.

    Raises
    ------
    BadSlide
        If the slide cannot be read, has no tissue or no mpp, or its levels show different pictures.
    """
    tell(READING, 0, 0)
    with open_slide(entry.path, mpp=entry.mpp) as reader:
        check_levels(reader)
        mosaic = _cut(reader, entry, settings, embedder, tell)
        yield Cut(_known(entry, reader, mosaic), mosaic.corners)
        side_px, n = settings.profile.side_px, len(mosaic)
        stain = _measured_stain(reader, mosaic, settings.stain)
        with ThreadPoolExecutor(settings.cutting.readers, "sish-read") as pool:
            for start in range(0, n, batch_patches):
                tell(ENCODING, start, n)
                boxes = [mosaic.box(row) for row in range(start, min(start + batch_patches, n))]
                read = functools.partial(checked_region, reader, side_px=side_px)
                yield stain.applied(np.stack(list(pool.map(read, boxes))))


def _measured_stain(reader: SlideReader, mosaic: Mosaic, method: str) -> Stain:
    """Return a slide's stain, measured on a few patches spread over its mosaic."""
    if not method:
        return Unchanged()
    rows = np.unique(np.linspace(0, len(mosaic) - 1, SAMPLE_PATCHES).round().astype(int))
    sample = [reader.region(mosaic.box(int(row)), side_px=SAMPLE_PX) for row in rows]
    return stain_of(method, np.stack(sample))


def assembled(
    cut: Cut, parts: Sequence[EncodedPatches], *, fingerprint: str, has_keys: bool
) -> EncodedSlide:
    """Return the encoded slide of a cut and its encoded batches, in their order."""
    keys, codes, embeddings = (np.concatenate(column) for column in zip(*parts, strict=True))
    if not has_keys:
        keys = spread_keys(cut.slide.slide_id, np.arange(len(keys), dtype=np.uint32))
    patches = PatchColumns.of(keys, codes, cut.corners, embeddings=embeddings)
    return EncodedSlide.whole(cut.slide, patches, fingerprint)


def _cut(
    reader: SlideReader,
    entry: CatalogueEntry,
    settings: EncoderSettings,
    embedder: Embedder,
    tell: Progress,
) -> Mosaic:
    cutting, told = settings.cutting, functools.partial(tell, MOSAIC)
    if entry.region is None:
        selector = _selector(settings, embedder)
        return cut_mosaic(reader, cutting, progress=told, selector=selector)
    most = min(cutting.patches_per_slide or MAX_REGION_PATCHES, MAX_REGION_PATCHES)
    selector = _selector(settings, embedder, patches=most)
    return cut_region(reader, entry.region, cutting, progress=told, selector=selector)


def _selector(
    settings: EncoderSettings, embedder: Embedder, *, patches: int | None = None
) -> MosaicSelector:
    cutting = settings.cutting
    if patches is not None:
        cutting = dataclasses.replace(cutting, patches_per_slide=patches)
    return selector_of(cutting, embedder, device=settings.device)


def _known(entry: CatalogueEntry, reader: SlideReader, mosaic: Mosaic) -> Slide:
    return dataclasses.replace(
        entry.slide,
        mpp=reader.mpp,
        width_px=reader.size.width,
        height_px=reader.size.height,
        patch_side_px=mosaic.side_px,
        digest=entry.digest or reader.digest,
    )
