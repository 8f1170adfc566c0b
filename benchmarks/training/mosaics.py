"""Summaries as mosaics: how often half a slide finds its other half.

Every slide is cut in two along a checkerboard of blocks, each half becomes a mosaic of a few patches, and each
half asks all others for its sibling. Mosaics of equal size, chosen by the model, at random and by the
other baselines, are compared on the same halves.
"""

import numpy as np

from benchmarks.training.judging import interval
from sish_cluster.encoder.summary import best_summary
from sish_cluster.encoder.summary_baselines import (
    cluster_rows,
    entropy_rows,
    location_rows,
    random_rows,
)
from sish_cluster.encoder.summary_search import SelectionSettings

MOSAIC_SEARCH = SelectionSettings(max_tries=300)
"""How mosaics are searched for here: 200 random masks and 100 exchanges, where users get up to 1000 in all."""

BLOCK_SIDES = 4
"""Side of a checkerboard block, patches."""


def retrieval_rows(slides, model, flags, kept):
    """Yield a row per way of choosing: how often half a slide finds its other half.

    Gains over random mosaics are paired by half, each the mean of all seeds; their interval is a bootstrap over
    slides.
    """
    halves = [half for slide in slides for half in _halves(slide) if half is not None]
    own = np.array([name for name, _, _ in halves])

    def by_summary(features, coords, n, rng_seed):
        return best_summary(
            features, model, n_visible=n, settings=MOSAIC_SEARCH, rng_seed=rng_seed
        ).rows

    ways = {
        "random": random_rows,
        "wsisum": by_summary,
        "cluster": cluster_rows,
        "entropy": entropy_rows,
        "location": location_rows,
    }
    for size in flags.mosaic_sizes:
        peer = None
        for name, choose in ways.items():
            count = flags.random_repeats if name == "random" else flags.mosaic_repeats
            count = 1 if name == "entropy" else count

            def measure(choose=choose, size=size, count=count):
                seeds = [flags.seed + 31 * number for number in range(count)]
                return [found_siblings(_mosaics(halves, choose, size, seed), own) for seed in seeds]

            how = f" in {MOSAIC_SEARCH}" if name == "wsisum" else ""
            told = f"{name} mosaics of {size}{how}, {count} seeds from {flags.seed}"
            found = np.array(kept.value(told, measure))
            peer = found if peer is None else peer
            yield _retrieval_row(name, size, found, peer, own)


def _mosaics(halves, choose, size, seed):
    """Return the embeddings of every half's mosaic; each half has a seed of its own."""
    return [
        features[choose(features, coords, size, seed + number)]
        for number, (_, features, coords) in enumerate(halves)
    ]


def _retrieval_row(name, size, found, peer, own) -> dict:
    """Return the row of (seeds, 2, halves): first or not, and reciprocal rank."""
    has_sibling = np.array([(own == slide).sum() > 1 for slide in own])
    found, peer, own = found[..., has_sibling], peer[..., has_sibling], own[has_sibling]
    first, reciprocal = found.mean(axis=2).T
    row = {
        "what": "mosaic retrieval",
        "way": name,
        "patches": size,
        "halves": len(own),
        "slides": len(set(own)),
        "repeats": len(found),
        "sibling_first": round(float(first.mean()), 4),
        "deviation": round(float(first.std()), 4),
        "reciprocal_rank": round(float(reciprocal.mean()), 4),
    }
    if name != "random":
        gains = found.mean(axis=0) - peer.mean(axis=0)
        row |= {
            "gain_over_random": round(float(gains[0].mean()), 4),
            "gain_interval_95": interval(gains[:1], own),
            "reciprocal_gain": round(float(gains[1].mean()), 4),
            "reciprocal_gain_interval_95": interval(gains[1:], own),
            "seeds_below_random_mean": int((first < peer.mean(axis=2)[:, 0].mean()).sum()),
        }
    return row


def _halves(slide):
    """Return (slide, features, coords) of both colours of a checkerboard; None for one too small."""
    colours = np.floor(slide.coords / BLOCK_SIDES).sum(axis=1).astype(int) % 2
    for colour in (0, 1):
        rows = np.flatnonzero(colours == colour)
        yield (slide.name, slide.features[rows], slide.coords[rows]) if len(rows) >= 32 else None


def found_siblings(mosaics, own):
    """Return, per mosaic, whether its sibling comes first, and its reciprocal rank, (2, halves)."""
    unit = [m / np.linalg.norm(m, axis=1, keepdims=True) for m in mosaics]
    likeness = np.array([[(a @ b.T).max(axis=1).mean() for b in unit] for a in unit])
    likeness = (likeness + likeness.T) / 2
    np.fill_diagonal(likeness, -np.inf)
    is_sibling = own[np.argsort(-likeness, axis=1)] == own[:, None]
    # A mosaic comes last in its own list and is no sibling of itself.
    ranks = is_sibling[:, :-1].argmax(axis=1)
    return [(ranks == 0).astype(float).tolist(), (1.0 / (ranks + 1)).tolist()]
