import dataclasses

import pytest

from sish_cluster import open_home
from sish_cluster.testing.synthetic import SyntheticSlides

SLIDES = SyntheticSlides(patches=4)
COUNT = 24


@pytest.fixture(scope="session")
def home(tmp_path_factory):
    """An embedded cluster with 24 drawn slides: 12 patients, 3 sites, 2 hospitals."""
    with open_home(tmp_path_factory.mktemp("home")) as client:
        client.create_collection(SLIDES.collection)
        assert all(o.is_durable for o in client.ingest("synthetic", SLIDES.slides(COUNT)))
        yield client


@pytest.fixture
def drawn():
    """Names a slide anew: a function of number and fields."""

    def of(number, **fields):
        encoded = SLIDES.slide(number)
        slide = dataclasses.replace(encoded.slide, **fields)
        return type(encoded).whole(slide, encoded.patches, encoded.fingerprint)

    return of
