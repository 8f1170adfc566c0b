"""The published way to read and encode patches, as the thing to be compared with.

Every patch is read at level 0, once for each network, shrunk to what the networks see, and encoded alone
in float32; no buffer is kept between patches. Run as a process of its own, with torch's and the
system's defaults.
"""

import time

import cv2
import numpy as np
import openslide
import torch

from sish_cluster.core.code import codes_of
from sish_cluster.core.key import keys_of
from sish_cluster.encoder.networks.inputs import IMAGENET, SYMMETRIC


def patch_at_level_0(slide, corner, side_level0_px, side_px):
    """Return one patch uint8 (side, side, 3), read at level 0 and shrunk."""
    x, y = (int(value) for value in corner)
    pixels = np.asarray(slide.read_region((x, y), 0, (side_level0_px, side_level0_px)))[..., :3]
    return cv2.resize(pixels, (side_px, side_px), interpolation=cv2.INTER_AREA)


def encoded_one_by_one(path, corners, side_level0_px, encoder):
    """Return keys, codes and the seconds it took: two reads a patch, one patch at a time."""
    # The same weights, laid out as torch lays them out when nobody says anything.
    ours = (encoder.keying.runner.network, encoder.keying.codebook, encoder.embedder.runner.network)
    key_encoder, codebook, texture = (n.to(memory_format=torch.contiguous_format) for n in ours)
    ranks, side_px = encoder.keying.ranks, encoder.settings.profile.side_px
    keys, codes = [], []
    began_s = time.perf_counter()
    with openslide.OpenSlide(str(path)) as slide, torch.no_grad():
        for corner in corners:
            pixels = patch_at_level_0(slide, corner, side_level0_px, side_px)
            tensor = SYMMETRIC.tensor_of(pixels, torch.device("cpu")).contiguous()
            latent = codebook.nearest(key_encoder(tensor))[0].numpy()
            keys.append(int(keys_of(ranks[latent][None])[0]))
            pixels = patch_at_level_0(slide, corner, side_level0_px, side_px)
            tensor = IMAGENET.tensor_of(pixels, torch.device("cpu")).contiguous()
            codes.append(codes_of(texture(tensor).numpy())[0])
    return np.array(keys, np.uint64), np.stack(codes), time.perf_counter() - began_s


def read_one_by_one(path, corners, side_level0_px):
    """Return the seconds that reading every patch at level 0 takes."""
    began_s = time.perf_counter()
    with openslide.OpenSlide(str(path)) as slide:
        for corner in corners:
            patch_at_level_0(slide, corner, side_level0_px, 256)
    return time.perf_counter() - began_s
