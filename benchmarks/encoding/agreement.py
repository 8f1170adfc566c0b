"""How far engines and precisions agree: bits of a code, keys, and what is found by them.

Every way embeds the same tiles and slide patches; torch in float32 is what the others are compared with.
Quality stands beside it: how often the nearest code of a tile of another source is of its own class.
"""

import csv

import cv2
import numpy as np
import torch

from benchmarks.encoding.default import grid_of
from sish_cluster.core.code import codes_of, distances_between
from sish_cluster.core.geometry import Box
from sish_cluster.encoder.embedders import NetworkEmbedder
from sish_cluster.encoder.keying import KeyNetwork
from sish_cluster.encoder.networks.engine import EngineSettings, Plan, Runner
from sish_cluster.encoder.profile import COMPACT
from sish_cluster.encoder.slide import open_slide

EXACT = "torch float32"
"""What the other ways are compared with."""

WAYS = {
    EXACT: ("torch", "float32"),
    "openvino float32": ("openvino", "float32"),
    "openvino bfloat16": ("openvino", "bfloat16"),
    "torch bfloat16": ("torch", "bfloat16"),
}
"""Engines and numbers; torch in bfloat16 on a CPU stands for a GPU's."""

FAR = 1 << 20
"""Stands for the distance to a tile that does not count."""


def agreement_rows(tiles, slides, n_tiles):
    """Return rows of bits and keys that differ, and of quality; ``slides`` are paths."""
    labels = labels_of(tiles)
    sets = {
        "lc25000 tiles, 224 px enlarged": some_of(tiles, labels, "lc25000", n_tiles),
        "atlas tiles, 256 px enlarged": some_of(tiles, labels, "atlas", n_tiles),
        "patches of slides": patches_of(slides, n_tiles),
    }
    rows = []
    for name, pixels in sets.items():
        rows += bits_rows(name, pixels)
        rows.append(keys_row(name, pixels))
    return [*rows, *quality_rows(tiles, labels)]


def labels_of(tiles):
    """Return the rows of the table of tiles."""
    with (tiles / "labels.csv").open() as stream:
        return list(csv.DictReader(stream))


def tile_of(path):
    """Return a tile's pixels (side, side, 3)."""
    return np.ascontiguousarray(cv2.imread(str(path))[..., ::-1])


def some_of(tiles, labels, name, count):
    """Return tiles spread over a set, enlarged to what the default encoder sees."""
    of_set = [row for row in labels if row["set"] == name]
    kept = [of_set[i] for i in np.linspace(0, len(of_set) - 1, count).astype(int)]
    size = (COMPACT.side_px, COMPACT.side_px)
    pixels = [tile_of(tiles / row["file"]) for row in kept]
    return [cv2.resize(tile, size, interpolation=cv2.INTER_CUBIC) for tile in pixels]


def patches_of(slides, count):
    """Return patches spread over some slides' tissue, as the default encoder reads them."""
    found = []
    for path in slides:
        corners, side_px = grid_of(path)
        rows = np.linspace(0, len(corners) - 1, max(1, count // len(slides))).astype(int)
        with open_slide(path) as reader:
            for x, y in corners[np.unique(rows)].tolist():
                box = Box(x, y, x + side_px, y + side_px)
                found.append(reader.region(box, side_px=COMPACT.side_px))
    return found


def embedder_of(way):
    """Return the default embedder, run in one of `WAYS`."""
    embedder = NetworkEmbedder(device="cpu", running=EngineSettings("torch", "full"))
    engine, numbers = WAYS[way]
    embedder.runner = Runner(embedder.runner.network, Plan(engine, numbers, torch.device("cpu")))
    return embedder


def embeddings_of(way, pixels):
    """Return the embeddings (n, 1024) of square pictures, by one of `WAYS`."""
    embedder = embedder_of(way)
    return np.concatenate([embedder.embeddings_of(picture[None]) for picture in pixels])


def bits_rows(name, pixels):
    """Return how many of 1024 bits each way has otherwise than `EXACT`."""
    codes = {way: np.unpackbits(codes_of(embeddings_of(way, pixels)), axis=1) for way in WAYS}
    rows = []
    for way in list(WAYS)[1:]:
        differ = (codes[way] != codes[EXACT]).sum(axis=1)
        rows.append(
            {
                "what": "bits of 1024 that differ",
                "pixels": name,
                "n": len(pixels),
                "way": way,
                "against": EXACT,
                "mean": round(float(differ.mean()), 2),
                "99th percentile": float(np.percentile(differ, 99)),
                "max": int(differ.max()),
            }
        )
    return rows


def keys_row(name, pixels):
    """Return the share of keys, and of codewords, that OpenVINO has otherwise than torch."""
    found = []
    for engine in ("torch", "openvino"):
        keying = KeyNetwork(COMPACT.key_network, device="cpu", running=EngineSettings(engine))
        found.append(np.concatenate([keying.latents_of(picture[None]) for picture in pixels]))
        ranks = keying.ranks
    from sish_cluster.core.key import keys_of

    keys = [keys_of(ranks[latents]) for latents in found]
    return {
        "what": "keys that differ",
        "pixels": name,
        "n": len(pixels),
        "way": "openvino float32",
        "against": EXACT,
        "share of keys": round(float((keys[0] != keys[1]).mean()), 5),
        "share of codewords": float((found[0] != found[1]).mean()),
    }


def quality_rows(tiles, labels):
    """Return the nearest-neighbour accuracy of each way over lc25000, other sources only."""
    of_set = [row for row in labels if row["set"] == "lc25000"]
    pixels = [tile_of(tiles / row["file"]) for row in of_set]
    labels, groups = (np.array([row[name] for row in of_set]) for name in ("label", "group"))
    other = groups[:, None] != groups[None, :]
    rows = []
    for way in WAYS:
        embeddings = embeddings_of(way, pixels)
        codes = codes_of(embeddings)
        apart = np.stack([distances_between(code, codes) for code in codes]).astype(np.int64)
        unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
        by_code = np.where(other, apart, FAR).argmin(axis=1)
        by_cosine = np.where(other, unit @ unit.T, -2.0).argmax(axis=1)
        rows.append(
            {
                "what": "Acc@1 on lc25000, leave-group-out, at 224 px",
                "n": len(pixels),
                "way": way,
                "by code": round(float((labels[by_code] == labels).mean()), 4),
                "by cosine": round(float((labels[by_cosine] == labels).mean()), 4),
            }
        )
    return rows
