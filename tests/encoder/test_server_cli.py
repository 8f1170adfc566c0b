"""``sish encoder``: describe says what is trained, serve refuses contradictions, help has examples."""

import json

import pytest
import torch
from click.testing import CliRunner

from sish_cluster.cli import main
from sish_cluster.encoder.networks.seeding import drawn_network
from sish_cluster.encoder.networks.vqvae import COMPACT


def run(*arguments):
    return CliRunner().invoke(main, ["encoder", *arguments])


def test_describe_prints_the_fingerprint_and_what_is_trained(encoder):
    done = run("describe", "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["fingerprint"] == encoder.fingerprint
    assert "(trained, vqvae-compact.safetensors" in found["key_weights"]
    assert encoder.fingerprint in run("describe").stdout


def test_weights_of_another_network_are_refused_by_name(tmp_path):
    state = drawn_network(COMPACT, rng_seed=1).state_dict()
    torch.save({"model": state}, tmp_path / "model_9.pt")
    done = run("describe", "--profile", "published", "--key-weights", str(tmp_path / "model_9.pt"))
    assert done.exit_code == 1
    assert "model_9.pt: does not fit VqVae" in done.output


def test_ray_and_no_ray_together_are_a_usage_error():
    done = run("serve", "--listen", "127.0.0.1:0", "--no-ray", "--ray", "somewhere:6379")
    assert done.exit_code == 2
    assert "exclude each other" in done.output


@pytest.mark.parametrize("command", ["serve", "describe"])
def test_help_ends_with_examples(command):
    done = run(command, "--help")
    assert done.exit_code == 0
    assert f"sish encoder {command}" in done.output.split("Examples")[1]
