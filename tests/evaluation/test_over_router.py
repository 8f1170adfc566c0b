import dataclasses

import pytest

from sish_cluster import Client, ClientSettings
from sish_cluster.core.query import Mode, Ranking
from sish_cluster.evaluation.protocol import evaluated
from sish_cluster.evaluation.settings import EvaluationSettings
from sish_cluster.testing.clusters import ProcessCluster, cut_by_range
from sish_cluster.testing.synthetic import SyntheticSlides

SETTINGS = EvaluationSettings(
    label_field="site", modes=(Mode.GUIDED, Mode.EXACT), rankings=(Ranking.RRF,), max_queries=6
)


@pytest.mark.slow
def test_an_evaluation_over_servers_finds_what_the_embedded_cluster_finds(home, tmp_path):
    patient = ClientSettings(ingest_timeout_s=120.0)
    plans = cut_by_range(2)
    with (
        ProcessCluster(tmp_path, plans) as cluster,
        Client(cluster.address, settings=patient) as far,
    ):
        slides = SyntheticSlides(patches=4)
        far.create_collection(slides.collection)
        assert all(o.is_durable for o in far.ingest("synthetic", slides.slides(24)))
        for by_patch in (False, True):
            settings = dataclasses.replace(SETTINGS, is_by_patch=by_patch)
            pair = [evaluated(asked, ["synthetic"], settings=settings) for asked in (home, far)]
            found = [[[o.found for o in run.outcomes] for run in one.runs] for one in pair]
            assert found[0] == found[1]
            assert not any(run.failures for one in pair for run in one.runs)
