"""Published latents and texture codes into encoded slides, one slide at a time.

::

    LATENT/SITE/DIAGNOSIS/20x/vqvae/SLIDE.h5       features N x 64 x 64 codewords, coords N x 2
    LATENT/SITE/DIAGNOSIS/20x/densenet/SLIDE.pkl   list of N texts of '0' and '1'
    MOSAICS/SITE/DIAGNOSIS/20x/coord_clean/SLIDE.h5    coords of the mosaic: what the latents must be of
    PATCHES/SITE/DIAGNOSIS/20x/patches/SLIDE.h5        coords with patch_size, patch_level

Folders between are free; where they are these, they are the slide's labels. Keys are computed from the
latents, so the semantic order of the codewords is needed.

Source
------
SISH, "Index generation"; the layout is that of the published pipeline's output.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np

from sish_cluster.core.collection import Collection
from sish_cluster.core.counting import counted
from sish_cluster.core.errors import BadFile
from sish_cluster.core.key import CODEBOOK_SIZE, LATENT_SIDE, Keys, keys_of
from sish_cluster.core.posting import Corners, EncodedSlide, PatchColumns
from sish_cluster.core.slide import Slide, digest_of
from sish_cluster.exchange.codeword_ranks import Ranks
from sish_cluster.exchange.h5_files import (
    COORDS,
    FEATURES,
    corners_in,
    dataset_of,
    files_by_stem,
    opened,
    side_px_in,
)
from sish_cluster.exchange.plain_pickle import plain_pickle
from sish_cluster.exchange.published_codes import codes_of_texts
from sish_cluster.exchange.source import (
    LabelsTable,
    SlideSource,
    bound_for,
    each_file,
    fingerprint_of,
    labelled,
)

BLOCK = 128
"""Latents read at once: 4 MiB."""

VQVAE, DENSENET, COORD_CLEAN = "vqvae", "densenet", "coord_clean"
"""Folders of latents, of texture codes, and of a mosaic's corners."""

_MAGNIFICATION = re.compile(r"\d+x", re.IGNORECASE)


@dataclasses.dataclass(frozen=True, slots=True)
class PublishedFolders:
    """Where the published pipeline left its files.

    Parameters
    ----------
    latent
        ``LATENT``.
    mosaics, patches
        ``MOSAICS`` (checked against the latents) and ``PATCHES`` (a patch's side); None where they are
        not at hand.
    """

    latent: Path
    mosaics: Path | None = None
    patches: Path | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class _Reader:
    folders: PublishedFolders
    mosaics: dict[str, Path] | None
    patches: dict[str, Path] | None
    ranks: Ranks
    code_bits: int
    labels: LabelsTable | None
    fingerprint: str

    def read(self, path: Path) -> EncodedSlide:
        if path.parent.name == DENSENET:
            raise BadFile(f"{path}: has texture codes but no latents {_latents_beside(path)}")
        keys, corners = _keys_and_corners(path, self.ranks)
        codes_path = path.parent.parent / DENSENET / f"{path.stem}.pkl"
        texts = plain_pickle(codes_path)
        if not isinstance(texts, list) or len(texts) != len(keys):
            found = (
                counted(len(texts), "code")
                if isinstance(texts, list)
                else f"a {type(texts).__name__}"
            )
            raise BadFile(
                f"{codes_path}: found {found}, expected a list of {counted(len(keys), 'code')}, one for each latent"
                f" of {path}"
            )
        self._check_mosaic(path, corners)
        codes = codes_of_texts(texts, code_bits=self.code_bits, source=str(codes_path))
        known = dataclasses.replace(
            _slide_of(path, self.folders.latent), patch_side_px=self._side_px(path.stem)
        )
        slide = labelled(known, self.labels)
        return EncodedSlide.whole(slide, PatchColumns.of(keys, codes, corners), self.fingerprint)

    def _check_mosaic(self, path: Path, corners: Corners) -> None:
        if self.mosaics is None:
            return
        mosaic = self.mosaics.get(path.stem)
        if mosaic is None:
            raise BadFile(
                f"{path}: no {COORD_CLEAN}/{path.stem}.h5 is under {self.folders.mosaics}; add it, or"
                " leave --mosaics out"
            )
        with opened(mosaic) as file:
            wanted = corners_in(file)
        if len(wanted) != len(corners):
            raise BadFile(
                f"{path}: found {len(corners)} {COORDS}, expected the {len(wanted)} of {mosaic}"
            )
        differing = np.flatnonzero((wanted != corners).any(axis=1))
        if differing.size:
            row = int(differing[0])
            raise BadFile(
                f"{path}: {COORDS} row {row}: found {corners[row].tolist()}, expected"
                f" {wanted[row].tolist()} as in {mosaic}"
            )

    def _side_px(self, stem: str) -> int:
        path = None if self.patches is None else self.patches.get(stem)
        return 0 if path is None else side_px_in(path)


def latent_source(
    folders: PublishedFolders, ranks: Ranks, *, code_bits: int, labels: LabelsTable | None
) -> SlideSource:
    """Return the slides under a ``LATENT`` folder.

    Parameters
    ----------
    folders
        Where the files are.
    ranks
        Semantic rank of each codeword.
    code_bits
        Characters of a texture code.
    labels
        A labels table; None takes site, diagnosis and magnification from the folders.

    Raises
    ------
    BadFile
        If there is no latent file at all.
    """
    files = sorted(p for p in folders.latent.rglob("*.h5") if p.parent.name == VQVAE)
    orphans = (p for p in folders.latent.rglob("*.pkl") if p.parent.name == DENSENET)
    lonely = sorted(p for p in orphans if not _latents_beside(p).exists())
    if not files and not lonely:
        raise BadFile(
            f"{folders.latent}: holds no {VQVAE}/*.h5; give the LATENT folder the published pipeline wrote"
        )
    facts = {"keys": "latents", "codeword_ranks": digest_of(ranks.astype("<i8").tobytes())}
    fingerprint = fingerprint_of("published", {**facts, "code_bits": code_bits})
    mosaics = (
        None if folders.mosaics is None else files_by_stem(folders.mosaics, parent=COORD_CLEAN)
    )
    patches = None if folders.patches is None else files_by_stem(folders.patches)
    reader = _Reader(folders, mosaics, patches, ranks, code_bits, labels, fingerprint)
    collection = Collection(
        "published", fingerprint, code_bits, bound_for(code_bits), "imported published latents"
    )
    everything = [*files, *lonely]
    return SlideSource(collection, len(everything), each_file(everything, reader.read, labels))


def _latents_beside(codes_path: Path) -> Path:
    return codes_path.parent.parent / VQVAE / f"{codes_path.stem}.h5"


def _keys_and_corners(path: Path, ranks: Ranks) -> tuple[Keys, Corners]:
    with opened(path) as file:
        corners = corners_in(file)
        latents = dataset_of(file, FEATURES)
        if tuple(latents.shape[1:]) != (LATENT_SIDE, LATENT_SIDE) or latents.dtype.kind not in "iu":
            raise BadFile(
                f"{path}: {FEATURES} has shape {latents.shape} and type {latents.dtype}, expected whole"
                f" numbers (n, {LATENT_SIDE}, {LATENT_SIDE})"
            )
        n = int(latents.shape[0])
        if n != len(corners):
            raise BadFile(
                f"{path}: found {len(corners)} {COORDS}, expected {n}, one for each latent"
            )
        blocks = [_keys_of_block(latents, start, ranks, path) for start in range(0, n, BLOCK)]
    return np.concatenate([np.zeros(0, np.uint64), *blocks]), corners


def _keys_of_block(latents: Any, start: int, ranks: Ranks, path: Path) -> Keys:
    block = np.asarray(latents[start : start + BLOCK])
    outside = (block < 0) | (block >= CODEBOOK_SIZE)
    if outside.any():
        row, y, x = (int(axis[0]) for axis in np.nonzero(outside))
        raise BadFile(
            f"{path}: {FEATURES} row {start + row}: found codeword {int(block[row, y, x])} at ({x}, {y}),"
            f" expected 0..{CODEBOOK_SIZE - 1}"
        )
    return keys_of(ranks[block.astype(np.int64)])


def _slide_of(path: Path, latent: Path) -> Slide:
    """Return a slide with the labels of ``SITE/DIAGNOSIS/20x/vqvae/``, none in other layouts."""
    parts = path.relative_to(latent).parts[:-2]
    if len(parts) < 3 or not _MAGNIFICATION.fullmatch(parts[-1]):
        return Slide(path.stem)
    return Slide(
        path.stem, site=parts[-3], diagnosis=parts[-2], labels={"magnification": parts[-1].lower()}
    )
