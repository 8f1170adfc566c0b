"""Ray runs the actors: equal bytes, a killed actor's slide is encoded again, nothing hangs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sish_cluster.core.errors import EncoderUnavailable
from sish_cluster.encoder.actor import ray_actors
from sish_cluster.encoder.settings import ActorSettings, EncoderSettings
from sish_cluster.testing.network import can_isolate, isolated

SCRIPT = Path(__file__).with_name("ray_run.py")

TIMEOUT_S = 240.0
"""Seconds one run may take on a busy machine; it needs about 20 on a quiet one."""

pytestmark = pytest.mark.skipif(
    not can_isolate(), reason="needs unshare and user namespaces, to keep Ray on loopback"
)


def ray_run(what, folder):
    # Ray needs a home of its own kind: nothing of the caller's Ray settings may leak in.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    done = subprocess.run(
        isolated([sys.executable, str(SCRIPT), what, str(folder)]),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        env=environment,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.strip().splitlines()[-1]), done.stdout


@pytest.mark.slow
def test_killed_actors_and_readers_are_repeated_with_the_same_bytes_as_without_ray(
    drawn_folder,
):
    found, printed = ray_run("kill", drawn_folder)
    assert found["killed"] == 2
    assert found["versions"] == found["without_ray"]
    assert sorted(found["versions"]) == ["fibres", "glands", "sheets"]
    assert not [version for version in found["versions"].values() if ":" in version]
    assert found["left"] == []
    assert len(printed.strip().splitlines()) == 1, "Ray printed over the progress bars"


@pytest.mark.slow
def test_after_the_death_of_rays_head_every_slide_has_a_fate_and_nothing_is_encoded_twice(
    drawn_folder, tmp_path
):
    folder = tmp_path / "slides"
    folder.symlink_to(drawn_folder)
    found, _ = ray_run("head", folder)
    failed = sorted(name for name, fate in found["first"].items() if ":" in fate)
    assert found["killed"] == 2
    assert sorted(found["first"]) == ["fibres", "glands", "sheets"]
    assert failed, "the head died and no slide failed"
    assert found["encoded_again"] == failed
    assert not [fate for fate in found["again"].values() if ":" in fate]


@pytest.mark.slow
def test_actors_that_cannot_be_placed_are_an_error_that_names_the_cpus(drawn_folder):
    found, _ = ray_run("impossible", drawn_folder)
    assert "2 encoder actors of 5000 CPU each" in found["error"]
    assert f"there is {len(os.sched_getaffinity(0))} CPU" in found["error"]
    assert found["seconds"] < 60
    assert "0 actors could be placed" in found["late"]["error"]


def test_a_ray_cluster_that_is_not_there_is_an_error_that_offers_no_ray():
    with (
        pytest.raises(EncoderUnavailable, match="--no-ray"),
        ray_actors(EncoderSettings(), ActorSettings(n_actors=1), address="not an address"),
    ):
        raise AssertionError("there is no such cluster")
