import contextlib

import pytest

from sish_cluster import Client, ClientSettings
from sish_cluster.testing.clusters import ProcessCluster
from sish_cluster.testing.synthetic import SyntheticSlides

PATIENT = ClientSettings(ingest_timeout_s=120.0, window=4)


@pytest.fixture(scope="session")
def slides():
    return SyntheticSlides(rng_seed=7, patches=6)


@pytest.fixture
def started(tmp_path, slides):
    """Return a function that starts a cluster with the collection made; logs are shown on failure."""
    with contextlib.ExitStack() as running:

        def start(plans, *, count=0):
            cluster = ProcessCluster(tmp_path / "cluster", plans)
            running.enter_context(cluster)
            client = running.enter_context(Client(cluster.address, settings=PATIENT))
            client.create_collection(slides.collection)
            for outcome in client.ingest("synthetic", slides.slides(count)):
                assert outcome.is_durable, f"{outcome.error}\n{cluster.logs()}"
            return cluster, client

        yield start
