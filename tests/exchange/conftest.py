import json
import pickle
from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import CliRunner

from sish_cluster.cli import main
from sish_cluster.local import open_home

BITS = 64
REVERSED = list(range(127, -1, -1))


@pytest.fixture
def sish():
    """Run `sish ARGUMENTS` and return its result; a bug shows its traceback."""

    def run(*arguments):
        result = CliRunner().invoke(main, [str(argument) for argument in arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


class PublishedFolder:
    """Draws the files the published pipeline writes, a slide at a time."""

    def __init__(self, top):
        self.top = top
        self.order = top / "order.json"
        top.mkdir(parents=True, exist_ok=True)
        self.order.write_text(json.dumps(REVERSED))

    def place(self, kind, last, site="lung", diagnosis="luad"):
        place = self.top / kind / site / diagnosis / "20x" / last
        place.mkdir(parents=True, exist_ok=True)
        return place

    def add(self, name, latents, texts, coords=None, **labels):
        coords = np.arange(2 * len(latents)).reshape(-1, 2) * 1024 if coords is None else coords
        vqvae = self.place("LATENT", "vqvae", **labels) / f"{name}.h5"
        self.write(vqvae, features=np.asarray(latents, np.int64), coords=coords)
        pickled = self.place("LATENT", "densenet", **labels) / f"{name}.pkl"
        pickled.write_bytes(pickle.dumps(texts))
        mosaic = self.place("MOSAICS", "coord_clean", **labels) / f"{name}.h5"
        self.write(mosaic, coords=coords)
        patches = self.place("PATCHES", "patches", **labels) / f"{name}.h5"
        self.write(patches, coords=coords)
        with h5py.File(patches, "a") as file:
            file["coords"].attrs.update({"patch_size": 1024, "patch_level": 0})
        return vqvae

    @staticmethod
    def write(path, **datasets):
        with h5py.File(path, "w") as file:
            for name, values in datasets.items():
                file[name] = values

    def draw(self, name, rng, n=4, **labels):
        latents = rng.integers(0, 128, (n, 64, 64))
        texts = ["".join(rng.choice(["0", "1"], BITS)) for _ in range(n)]
        self.add(name, latents, texts, **labels)
        return latents, texts


@pytest.fixture
def published(tmp_path):
    return PublishedFolder(tmp_path / "published")


@pytest.fixture
def home(tmp_path):
    return tmp_path / "home"


@pytest.fixture
def slides_in():
    """Return the encoded slides of a collection in a home, by slide id."""

    def found(home, collection):
        with open_home(home) as client:
            ids = [stored.slide.slide_id for stored in client.list_slides(collection)]
            return {slide_id: client.encoded_slide(collection, slide_id) for slide_id in ids}

    return found


@pytest.fixture
def pickled(tmp_path):
    """Write a value as a pickle and return its path."""

    def write(value, name="meta.pkl", protocol=4) -> Path:
        path = tmp_path / name
        path.write_bytes(pickle.dumps(value, protocol))
        return path

    return write
