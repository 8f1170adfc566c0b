"""WSISum: what the summary that is kept is worth.

Features are DenseNet-121 embeddings of grid patches of real slides. A summary is judged by the cosine of its
reconstructed slide vector and the true one, beside the best of 200 random masks through the same
model, drawn with other seeds; and as a mosaic (`benchmarks.training.mosaics`).
"""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from benchmarks.training.judging import interval
from benchmarks.training.kept import Kept
from benchmarks.training.mosaics import retrieval_rows
from sish_cluster.encoder.checkpoint import fill, read_weights
from sish_cluster.encoder.embedders import IMAGENET_WEIGHTS
from sish_cluster.encoder.networks.densenet import DenseNet121
from sish_cluster.encoder.networks.wsisum import shape_for
from sish_cluster.encoder.summary import best_summary
from sish_cluster.encoder.summary_files import feature_files, read_features, write_features
from sish_cluster.encoder.summary_model import read_summary_model
from sish_cluster.encoder.summary_search import SelectionSettings
from sish_cluster.encoder.training.places import PlaceSettings, cut_placed
from sish_cluster.encoder.training.views import plain_views
from sish_cluster.encoder.training.wsisum import WsisumSettings
from sish_cluster.encoder.training.wsisum_run import WsisumRun, train_wsisum

FIELD_UM, SIDE_PX = 256.0, 128
"""What a patch covers and how finely it is seen: 2 um per px keeps a CPU's time in minutes."""

RANDOM_MASKS = 200
"""Masks that the kept summary is compared with the best of."""

SINGLE_MASKS = 50
"""Masks whose cosines' spread is told."""


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
        "settings": asdict(settings),
    }
    kept = Kept(run.out_dir / "judged.json", f"{model.digest} {asdict(SelectionSettings())}")
    yield cosine_row(slides, model, flags, kept)
    yield from retrieval_rows(slides, model, flags, kept)


def cosine_row(slides, model, flags, kept) -> dict:
    """Return a row: kept summaries' cosines beside the best of 200 random masks, drawn independently."""
    found = []
    for slide in slides:
        name = f"cosine of {slide.name}, {flags.repeats} seeds from {flags.seed}"
        found.append(kept.value(name, lambda slide=slide: _cosines(slide, model, flags)))
        print(f"wsisum cosine: {found[-1]}", flush=True)
    gains = np.array([line["gain"] for line in found])
    return {
        "what": "wsisum cosine",
        "slides": len(slides),
        "kept": round(float(np.mean([line["kept"] for line in found])), 6),
        "best_of_200_random_masks": round(
            float(np.mean([line["best_of_200"] for line in found])), 6
        ),
        "gain": round(float(gains.mean()), 6),
        "gain_interval_95": interval(gains[None], np.arange(len(gains)), digits=6),
        "slides_at_least_as_good": int((gains >= 0).sum()),
        "pairs_at_least_as_good": round(
            float(np.mean([line["pairs_at_least_as_good"] for line in found])), 3
        ),
        "per_slide": found,
    }


def _cosines(slide, model, flags) -> dict:
    """Return the cosines of a slide: every kept summary against every set of 200 masks.

    No two share a seed. ``random_deviation`` is that of single random masks: the scale on which a gain counts.
    """
    random_only = SelectionSettings(max_tries=RANDOM_MASKS)
    seeds = [flags.seed + i for i in range(flags.repeats)]
    kept = [best_summary(slide.features, model, rng_seed=seed) for seed in seeds]
    best = [
        best_summary(slide.features, model, settings=random_only, rng_seed=1000 + seed).score
        for seed in seeds
    ]
    one = SelectionSettings(min_tries=1, max_tries=1)
    single = [
        best_summary(slide.features, model, settings=one, rng_seed=2000 + i).score
        for i in range(SINGLE_MASKS)
    ]
    gains = np.subtract.outer([summary.score for summary in kept], best)
    return {
        "slide": slide.name,
        "patches": len(slide),
        "kept": [round(summary.score, 6) for summary in kept],
        "tries": [summary.tries for summary in kept],
        "best_of_200": np.round(best, 6).tolist(),
        "random_mean": round(float(np.mean(single)), 6),
        "random_deviation": round(float(np.std(single)), 6),
        "gain": round(float(gains.mean()), 7),
        "pairs_at_least_as_good": round(float((gains >= 0).mean()), 3),
    }
