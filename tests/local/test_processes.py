import os
import subprocess
import sys

import psutil
import pytest

from sish_cluster.client import Client
from sish_cluster.core.errors import Unavailable
from sish_cluster.core.slide import Slide
from sish_cluster.local.encoding import LocalEncoder, ServiceEncoder, SlideFailure, SlideToEncode
from sish_cluster.local.loopback import LoopbackCluster, ShardPlan
from sish_cluster.local.processes import ServerProcess, Servers


def shard(folder, name="a", **options):
    return ServerProcess(
        name, ["shard", "serve", "--data-dir", str(folder / name)], folder, **options
    )


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_server_that_cannot_start_is_reported_with_its_log(tmp_path):
    wrong = ServerProcess("r", ["router", "serve", "--topology", "no.toml"], tmp_path)
    with pytest.raises(Unavailable, match=r"(?s)ended with exit code 1.*no\.toml"):
        wrong.start()


def test_a_server_takes_the_same_port_again_after_a_kill(tmp_path):
    with Servers() as servers:
        server = shard(tmp_path)
        [address] = servers.started([server])
        first = server.pid
        server.kill()
        assert not server.is_running
        assert server.start() == address
        assert server.pid != first


def test_a_port_file_of_an_earlier_run_is_not_believed(tmp_path):
    (tmp_path / "a.port").write_text("127.0.0.1:1")
    with Servers() as servers:
        assert servers.started([shard(tmp_path)]) != ["127.0.0.1:1"]


def test_a_data_directory_in_use_is_named_in_the_error(tmp_path):
    with Servers() as servers:
        servers.started([shard(tmp_path)])
        second = ServerProcess("b", ["shard", "serve", "--data-dir", str(tmp_path / "a")], tmp_path)
        with pytest.raises(Unavailable, match="is in use by process"):
            second.start()


def test_a_cluster_leaves_no_process_behind_whatever_ends_it(tmp_path):
    pids = []
    cluster = LoopbackCluster(tmp_path, [ShardPlan("a")])
    with pytest.raises(KeyboardInterrupt), cluster:
        pids += [cluster.router.pid, *(server.pid for server in cluster.shards.values())]
        raise KeyboardInterrupt
    assert len(pids) == 2
    assert not any(map(is_alive, pids))


def test_a_server_ends_when_the_program_that_started_it_is_killed(tmp_path):
    code = (
        "import sys, time; from pathlib import Path\n"
        "from sish_cluster.local.processes import ServerProcess\n"
        "folder = Path(sys.argv[1])\n"
        "server = ServerProcess('a', ['shard', 'serve', '--data-dir', str(folder / 'a')], folder)\n"
        "server.start(); print(server.pid, flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        server = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    assert psutil.wait_procs([server], timeout=30)[1] == []


def test_a_cluster_serves_the_same_folder_again(tmp_path):
    from sish_cluster.testing.synthetic import SyntheticSlides

    slides = SyntheticSlides(patches=2)
    for count in (0, 3):
        with (
            LoopbackCluster(tmp_path, [ShardPlan("a")]) as cluster,
            Client(cluster.address) as client,
        ):
            client.create_collection(slides.collection)
            assert client.describe_collection("synthetic").slides == count
            assert all(o.is_durable for o in client.ingest("synthetic", slides.slides(3)))


def test_an_encoder_service_gives_the_codes_this_machine_gives(tmp_path):
    drawn = pytest.importorskip("sish_cluster.testing.slides", reason="needs the extra 'encoder'")
    folder = tmp_path / "slides"
    folder.mkdir()
    path = drawn.one_patch_slide(folder / "one.tif")
    (folder / "broken.tif").write_bytes(b"II*\0 and nothing else")
    wanted = [
        SlideToEncode(path, Slide("one", site="lung")),
        SlideToEncode(folder / "broken.tif", Slide("broken")),
    ]
    arguments = ["encoder", "serve", "--no-ray", "--actors", "1", "--slides-dir", str(folder)]
    with Servers() as servers:
        [address] = servers.started([ServerProcess("encoder", arguments, tmp_path)])
        with ServiceEncoder(address, folder) as remote:
            description = remote.description
            served, broken = remote.encoded(wanted)
            [outside] = remote.encoded([SlideToEncode(tmp_path, Slide("x"))])
    local = LocalEncoder()
    [encoded] = local.encoded(wanted[:1])
    assert served.version == encoded.version
    assert description.fingerprint == local.description.fingerprint
    assert isinstance(broken, SlideFailure)
    assert "broken.tif" in broken.problem
    assert f"is not inside {folder}" in outside.problem
