"""A line on which look-alike patches lie side by side: what the order of codewords is trained towards.

A key is one number, so an index walks patches in one order, and what a guided search finds is what lies
near in that order. The codebook's own main direction gives brightness. Here the order is asked of the
texture codes instead: a one-dimensional t-SNE keeps each patch's nearest neighbours near it, and the
key network learns to say where on that line a patch lies.

Source
------
van der Maaten and Hinton, "Visualizing data using t-SNE" (2008); that keys follow it is ours.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from sish_cluster.core.code import Codes, codes_of
from sish_cluster.core.seams import Pixels
from sish_cluster.core.slide import digest_of
from sish_cluster.encoder.training.crops import Crops, Progress

Positions = npt.NDArray[np.float32]
"""Places on the line, in (-1, 1), evenly spread; NaN where there is none."""

CODES, LINE = "codes", "line"
"""Files of a run's folder: the crops' texture codes, and their places on the line."""

PERPLEXITY = 50.0
"""Neighbours a patch is kept near to: as many as a guided search looks at on a side, in a small collection."""

COMPONENTS = 50
"""Principal directions of the codes that distances are taken in: t-SNE's usual first step."""

TELL_EVERY = 50
"""Crops between two words of progress."""


class CropEmbedder(Protocol):
    """What the codes are made with."""

    @property
    def weights_digest(self) -> str:
        """Digest of its weights."""

    def embeddings_of(self, patches: Pixels) -> npt.NDArray[np.float32]:
        """Return the embeddings (n, dimensions) of patches."""


def crop_codes(
    crops: Crops, folder: Path, embedder: CropEmbedder, *, progress: Progress | None = None
) -> Codes:
    """Return the texture codes uint8 (n, code_bytes) of crops; kept in ``folder`` for the next run."""
    tell = progress or (lambda what, done, total: None)

    def made() -> Codes:
        rows = []
        for row in range(len(crops)):
            if row % TELL_EVERY == 0:
                tell("texture codes", row, len(crops))
            pixels = np.asarray(crops.pixels[row : row + 1])
            rows.append(codes_of(embedder.embeddings_of(pixels))[0])
        return np.stack(rows)

    return _kept(folder, CODES, [crops.identity, embedder.weights_digest], made)


def crop_positions(
    codes: Codes, rows: npt.NDArray[np.int64], folder: Path, *, rng_seed: int
) -> Positions:
    """Return `positions_of`, kept in ``folder``: workers and resumed runs see the same line."""
    identity = [digest_of(codes.tobytes()), digest_of(rows.tobytes()), rng_seed]
    return _kept(folder, LINE, identity, lambda: positions_of(codes, rows, rng_seed=rng_seed))


def _kept(
    folder: Path,
    name: str,
    identity: list[object],
    made: Callable[[], npt.NDArray[Any]],
) -> npt.NDArray[Any]:
    """Return the array of that identity in ``folder``, or make and keep it; its record is written last."""
    file, record = folder / f"{name}.npy", folder / f"{name}.json"
    if record.exists() and json.loads(record.read_text("utf-8")) == identity:
        return np.asarray(np.load(file, allow_pickle=False))
    array = made()
    folder.mkdir(parents=True, exist_ok=True)
    record.unlink(missing_ok=True)
    np.save(file, array)
    record.write_text(json.dumps(identity), "utf-8")
    return array


def positions_of(
    codes: Codes, rows: npt.NDArray[np.int64], *, rng_seed: int, perplexity: float = PERPLEXITY
) -> Positions:
    """Return where crops lie on the line, (n,); NaN but for ``rows``.

    Parameters
    ----------
    codes
        uint8 (n, code_bytes), packed.
    rows
        int64 (m,): the crops the line is made of, those trained on; m >= 5.
    rng_seed
        Decides where t-SNE begins, and with it which end of the line is which.
    perplexity
        About how many neighbours count; less where there are few crops.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    bits = np.unpackbits(codes[rows], axis=1).astype(np.float32)
    # Codes differ by Hamming distance, which is the squared Euclidean one of their bits.
    kept = min(COMPONENTS, len(rows) - 1, bits.shape[1])
    near = PCA(kept, svd_solver="full").fit_transform(bits)
    tsne = TSNE(
        1, perplexity=min(perplexity, (len(rows) - 1) / 3), init="random", random_state=rng_seed
    )
    # Threads that wait for each other on a busy machine take longer than one alone.
    with threadpool_limits(1):
        line = tsne.fit_transform(near)[:, 0]
    places = np.argsort(np.argsort(line, kind="stable"), kind="stable")
    positions = np.full(len(codes), np.nan, np.float32)
    positions[rows] = (2 * places + 1) / len(rows) - 1
    return positions
