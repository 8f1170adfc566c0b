"""WSISum: what the summary that is kept is worth, as a summary and as a mosaic.

Features are DenseNet-121 embeddings of grid patches of real slides. *As a summary*: the cosine of its
reconstructed slide vector, beside the best of 200 other random masks through the same model. *As a mosaic*:
every slide is cut in two along a checkerboard of blocks, each half becomes a mosaic of a few
patches, and each half asks all others for its sibling; mosaics of equal size chosen by the model, at
random, and by the other baselines are compared on the same halves.
"""

import dataclasses
from pathlib import Path

import numpy as np
import torch

from sish_cluster.encoder.checkpoint import fill, read_weights
from sish_cluster.encoder.embedders import IMAGENET_WEIGHTS
from sish_cluster.encoder.networks.densenet import DenseNet121
from sish_cluster.encoder.networks.wsisum import shape_for
from sish_cluster.encoder.summary import SelectionSettings, best_summary
from sish_cluster.encoder.summary_baselines import (
    cluster_rows,
    entropy_rows,
    location_rows,
    random_rows,
)
from sish_cluster.encoder.summary_files import feature_files, read_features, write_features
from sish_cluster.encoder.summary_model import read_summary_model
from sish_cluster.encoder.training.places import PlaceSettings, cut_placed
from sish_cluster.encoder.training.views import plain_views
from sish_cluster.encoder.training.wsisum import WsisumSettings
from sish_cluster.encoder.training.wsisum_run import WsisumRun, train_wsisum

FIELD_UM, SIDE_PX = 256.0, 128
"""What a patch covers and how finely it is seen: 2 um per px keeps a CPU's time in minutes."""

BLOCK_SIDES = 4
"""Side of a checkerboard block, patches."""


def features_of_slides(data: Path, folder: Path) -> Path:
    """Return a folder of feature files, one per slide, computing those that are missing."""
    out = folder / "features"
    patches = cut_placed(
        folder / "slides",
        slides=data / "slides",
        labels=data / "slides.csv",
        settings=PlaceSettings(side_px=SIDE_PX, field_um=FIELD_UM),
    )
    network = None
    for number, name in enumerate(patches.names):
        path = out / f"{name}.h5"
        if path.exists():
            continue
        if network is None:
            network = DenseNet121().eval()
            fill(network, read_weights(IMAGENET_WEIGHTS), optional="classifier.")
        rows = np.flatnonzero(patches.slides == number)
        with torch.inference_mode():
            blocks = [
                network(plain_views(torch.from_numpy(np.array(patches.pixels[block])), SIDE_PX))
                for block in np.array_split(rows, max(1, len(rows) // 16))
            ]
        write_features(path, torch.cat(blocks).numpy(), patches.places[rows])
        print(f"features of {name}: {len(rows)}", flush=True)
    return out


def wsisum_rows(flags, folder: Path):
    """Yield the rows of WSISum."""
    features = features_of_slides(flags.data, folder)
    slides = [read_features(path) for path in feature_files(features)]
    run = WsisumRun(folder / f"wsisum-{flags.seed}", features, checkpoint_every=50, log_every=10)
    settings = WsisumSettings(
        # Two thin blocks instead of twelve: ten slides have nothing to fill twelve with.
        shape=shape_for(1024, depth=2, decoder_width=192, decoder_depth=1, decoder_heads=6),
        batch=5,
        passes=flags.summary_passes,
        # 5e-4 at this batch: the published rule would give 3e-6, for thousands of slides.
        learning_rate=5e-4 * 256 / 5,
        rng_seed=flags.seed,
    )

    def told(report):
        if report.row is not None:
            print(f"wsisum: {report.row}", flush=True)

    found = train_wsisum(run, settings, reporter=told)
    model = read_summary_model(run.out_dir / "wsisum.safetensors")
    yield {
        "what": "wsisum training",
        "slides": len(slides),
        "patches": [len(slide) for slide in slides],
        "loss": found["loss"],
        "training_s": found["training_s"],
        "settings": dataclasses.asdict(settings),
    }
    yield cosine_row(slides, model, flags)
    yield from retrieval_rows(slides, model, flags)


def cosine_row(slides, model, flags) -> dict:
    """Return a row: the kept summary's cosine beside the best of 200 other random masks."""
    budget = SelectionSettings(max_tries=200)
    kept, equal, best = [], [], []
    for slide in slides:
        kept.append(best_summary(slide.features, model, rng_seed=flags.seed).score)
        equal.append(
            best_summary(slide.features, model, settings=budget, rng_seed=flags.seed).score
        )
        best.append(
            best_summary(slide.features, model, settings=budget, rng_seed=flags.seed + 1000).score
        )
        print(f"{slide.name}: kept {kept[-1]:.5f}, best of 200 {best[-1]:.5f}", flush=True)
    return {
        "what": "wsisum cosine",
        "slides": len(slides),
        "kept": round(float(np.mean(kept)), 6),
        "kept_with_200_tries": round(float(np.mean(equal)), 6),
        "best_of_200_random_masks": round(float(np.mean(best)), 6),
        "slides_at_least_as_good": int(np.sum(np.array(kept) >= np.array(best))),
        "per_slide": [[round(k, 6), round(b, 6)] for k, b in zip(kept, best, strict=True)],
    }


def retrieval_rows(slides, model, flags):
    """Yield a row per way of choosing: how often half a slide finds its other half."""
    halves = [half for slide in slides for half in _halves(slide) if half is not None]
    own = np.array([name for name, _, _ in halves])

    def by_summary(features, coords, n, rng_seed):
        budget = SelectionSettings(max_tries=flags.tries)
        return best_summary(features, model, n_visible=n, settings=budget, rng_seed=rng_seed).rows

    ways = {
        "wsisum": by_summary,
        "random": random_rows,
        "cluster": cluster_rows,
        "entropy": entropy_rows,
        "location": location_rows,
    }
    for size in flags.mosaic_sizes:
        for name, choose in ways.items():
            count = flags.random_repeats if name == "random" else flags.repeats
            count = 1 if name == "entropy" else count
            found = [
                _found(
                    [
                        features[choose(features, coords, size, flags.seed + 31 * r + i)]
                        for i, (_, features, coords) in enumerate(halves)
                    ],
                    own,
                )
                for r in range(count)
            ]
            first, reciprocal = np.array(found).T
            print(f"{name}, {size} patches: first {first.mean():.3f}", flush=True)
            yield {
                "what": "mosaic retrieval",
                "way": name,
                "patches": size,
                "halves": len(halves),
                "repeats": count,
                "sibling_first": round(float(first.mean()), 4),
                "deviation": round(float(first.std()), 4),
                "reciprocal_rank": round(float(reciprocal.mean()), 4),
            }


def _halves(slide):
    """Return (slide, features, coords) of both colours of a checkerboard; None for one too small."""
    colours = np.floor(slide.coords / BLOCK_SIDES).sum(axis=1).astype(int) % 2
    for colour in (0, 1):
        rows = np.flatnonzero(colours == colour)
        yield (slide.name, slide.features[rows], slide.coords[rows]) if len(rows) >= 32 else None


def _found(mosaics, own):
    """Return the share of mosaics whose sibling comes first, and the mean reciprocal rank."""
    unit = [m / np.linalg.norm(m, axis=1, keepdims=True) for m in mosaics]
    likeness = np.array([[(a @ b.T).max(axis=1).mean() for b in unit] for a in unit])
    likeness = (likeness + likeness.T) / 2
    np.fill_diagonal(likeness, -np.inf)
    is_sibling = own[np.argsort(-likeness, axis=1)] == own[:, None]
    has_sibling = np.array([(own == name).sum() > 1 for name in own])
    # A mosaic comes last in its own list and is no sibling of itself.
    ranks = is_sibling[:, :-1].argmax(axis=1)[has_sibling]
    return (ranks == 0).mean(), (1.0 / (ranks + 1)).mean()
