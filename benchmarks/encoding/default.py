"""The default way to read and encode patches: as `sish index --no-ray` does it."""

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from sish_cluster.core.geometry import Box, patch_side_px_of
from sish_cluster.encoder.cutting import cut_mosaic
from sish_cluster.encoder.damage import check_levels, checked_region
from sish_cluster.encoder.local_actor import local_actors
from sish_cluster.encoder.patching import patch_corners
from sish_cluster.encoder.pipeline import Encoder
from sish_cluster.encoder.profile import COMPACT, PUBLISHED
from sish_cluster.encoder.settings import ActorSettings, EncoderSettings
from sish_cluster.encoder.slide import open_slide
from sish_cluster.encoder.tissue import tissue_of


def encoder_of(way):
    """Return the encoder of a way: the default's, in float32 for ``full``, run by torch for the published."""
    settings = {
        "default": EncoderSettings(),
        "full": EncoderSettings(precision="full"),
        "published": EncoderSettings(profile=COMPACT, engine="torch", precision="full"),
        "published-1024": EncoderSettings(profile=PUBLISHED, engine="torch", precision="full"),
    }[way]
    return Encoder(settings, at_once=ActorSettings().wanted_actors)


def grid_of(path):
    """Return the corners of every patch on tissue and their side, level-0 pixels."""
    with open_slide(path) as reader:
        side_px = patch_side_px_of(reader.mpp, EncoderSettings().cutting.field_um)
        tissue = tissue_of(reader, EncoderSettings().cutting.tissue)
        return patch_corners(tissue, slide_size=reader.size, side_px=side_px), side_px


def cut(path):
    """Return the seconds of opening a slide and cutting its mosaic."""
    began_s = time.perf_counter()
    with open_slide(path) as reader:
        check_levels(reader)
        mosaic = cut_mosaic(reader, EncoderSettings().cutting)
    return {"n": len(mosaic), "seconds": time.perf_counter() - began_s}


def encoded(path, corners, side_level0_px, encoder):
    """Return keys, codes and the seconds it took: one read a patch, all cores."""
    settings, side_px = encoder.settings, encoder.settings.profile.side_px
    boxes = [
        Box(int(x), int(y), int(x) + side_level0_px, int(y) + side_level0_px) for x, y in corners
    ]
    with local_actors(settings, ActorSettings(), encoder=encoder) as lanes:
        began_s = time.perf_counter()
        with open_slide(path) as reader, ThreadPoolExecutor(len(lanes)) as pool:
            pixels = pool.map(lambda box: checked_region(reader, box, side_px=side_px), boxes)
            begun = [lanes[0].encode_patches(patch[None]) for patch in pixels]
            parts = [future.result() for future in begun]
        seconds = time.perf_counter() - began_s
    keys = np.concatenate([part.keys for part in parts])
    return keys, np.concatenate([part.codes for part in parts]), seconds
