"""A model card for a trained key network: what it is, what it saw, how good it is, where it ends.

Source
------
Ours.
"""

from __future__ import annotations

import collections
from collections.abc import Mapping
from pathlib import PurePosixPath

from sish_cluster.core.counting import listed
from sish_cluster.encoder.training.crops import Crops

MOST_SOURCES = 40
"""Sources a card lists by name; more are counted."""

FIGURES = (
    ("held_out_psnr_db", "PSNR of held-out crops, dB", "{:.2f}"),
    ("held_out_perplexity", "Codebook perplexity on held-out crops, of 128", "{:.1f}"),
    ("keys_looked_at", "Patches whose keys were looked at", "{:.0f}"),
    ("distinct_keys", "Different keys among them", "{:.0f}"),
    ("distinct_coarse", "Different values of s3", "{:.0f}"),
    ("coarse_entropy_bits", "Entropy of s3, bits", "{:.2f}"),
    ("coarse_spread", "Standard deviation of s3 (0..8,128)", "{:.0f}"),
    ("key_brightness_correlation", "Correlation of key and mean brightness", "{:.3f}"),
    (
        "neighbour_recall",
        "Share of held-out crops' 10 nearest by texture code found among the 10 % nearest keys",
        "{:.3f}",
    ),
)
"""Metric, what it is called, how it is written."""


def card_of(metrics: Mapping[str, object], crops: Crops) -> str:
    """Return the model card, Markdown, of a run with these metrics."""
    held = metrics["groups_held_out"]
    assert isinstance(held, list)
    lines = [
        f"# Key network `{metrics['network']}`, trained",
        "",
        f"VQ-VAE encoder, codebook, decoder and semantic codeword ranks; {metrics['bytes']:,} bytes,"
        f" BLAKE2b digest `{metrics['digest']}`.",
        "",
        "## Training",
        "",
        f"{metrics['steps']:,} steps of {metrics['batch_crops']} crops, {metrics['squares_per_crop']}"
        f" squares of {metrics['crop_px']} px each, weight of the similarity line"
        f" {metrics['line_weight']:g}, at"
        f" {metrics['mpp']} um per px, seed {metrics['rng_seed']}, {metrics['training_s']:,} s."
        f" {metrics['crops_trained_on']:,} stored squares trained on,"
        f" {metrics['crops_held_out']:,} held out with their groups: {listed(held, most=MOST_SOURCES)}.",
        "",
        *_source_lines(crops),
        "",
        "## Figures",
        "",
        "| | |",
        "|---|---:|",
        *(f"| {name} | {form.format(metrics[key])} |" for key, name, form in FIGURES),
        "",
        "## Limits",
        "",
        f"{len(set(crops.groups)):,} groups are few: stains and scanners unlike these are coded by"
        " codewords made for others. A key is one number: what its order cannot keep together, a guided"
        " search misses at small coverage. A new training gives a new fingerprint: collections made with"
        " other weights must be encoded again.",
    ]
    return "\n".join(lines) + "\n"


def _source_lines(crops: Crops) -> list[str]:
    """Return one line for each slide, and for each folder of tiles."""
    names = [
        name if "/" not in name else f"{PurePosixPath(name).parts[0]}/ (tiles)"
        for name in crops.sources
    ]
    counted = collections.Counter(names).most_common()
    lines = [f"- {name}: {count:,} squares" for name, count in counted[:MOST_SOURCES]]
    more = len(counted) - MOST_SOURCES
    return [*lines, f"- and {more:,} more sources"] if more > 0 else lines
