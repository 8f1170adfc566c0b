import json
import subprocess
import sys

import pytest

from sish_cluster.cli import main
from sish_cluster.cli.failures import exit_code_of, told_plainly
from sish_cluster.cli.main import COMMANDS
from sish_cluster.core import errors
from sish_cluster.local import open_home
from sish_cluster.testing.synthetic import SyntheticSlides

HEAVY = ("torch", "ray", "numba", "openslide", "cv2", "grpc")


def leaves(group=main, path=()):
    """Yield every command with its words."""
    for name in group.list_commands(None):
        command = group.get_command(None, name)
        if hasattr(command, "list_commands"):
            yield from leaves(command, (*path, name))
        else:
            yield (*path, name)


@pytest.fixture
def home(tmp_path):
    """A home with six synthetic slides."""
    slides = SyntheticSlides(patches=3)
    with open_home(tmp_path / "home") as client:
        client.create_collection(slides.collection)
        assert all(outcome.is_durable for outcome in client.ingest("synthetic", slides.slides(6)))
    return tmp_path / "home"


@pytest.mark.parametrize("words", list(leaves()), ids=" ".join)
def test_every_commands_help_ends_with_examples(words, sish):
    result = sish(*words, "--help")
    assert result.exit_code == 0, result.output
    assert f"sish {' '.join(words)} " in result.output.partition("Examples")[2]


def test_the_first_help_shows_every_command_and_loads_nothing_heavy():
    code = (
        "import sys; from sish_cluster.cli import main\n"
        "try: main(['--help'])\n"
        f"except SystemExit: print('LOADED', sorted(set({HEAVY}) & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert all(f"  {name} " in done.stdout for name in COMMANDS)
    assert "LOADED []" in done.stdout


@pytest.mark.parametrize("words", [("shard",), ("router",), ("search",), ("status",)])
def test_commands_of_a_core_install_load_without_the_encoders_packages(words):
    code = (
        "import sys; from sish_cluster.cli import main\n"
        f"try: main([*{words}, '--help'])\n"
        "except SystemExit: print('LOADED', sorted({'torch', 'ray', 'openslide', 'cv2'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "LOADED []" in done.stdout


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.BadSlide("x"), 1),
        (errors.Moved("x"), 1),
        (errors.ShardUnavailable("x"), 3),
        (errors.DeadlineExceeded("x"), 3),
        (errors.Corrupt("x"), 5),
        (errors.Internal("x"), 5),
    ],
)
def test_the_kind_of_failure_decides_the_exit_code(error, code):
    assert exit_code_of(error) == code


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (errors.BadFilter("cannot read it: write a=b"), 1, "error: cannot read it: write a=b"),
        (ModuleNotFoundError("no torch", name="torch"), 1, "pip install 'sish-cluster[encoder]'"),
        (KeyboardInterrupt(), 130, "what was stored stays stored"),
        (ZeroDivisionError("a [bug]"), 5, "ZeroDivisionError: a [bug]"),
    ],
)
def test_a_failure_is_one_line_that_says_what_to_do(error, code, words, capsys):
    with pytest.raises(SystemExit) as ended, told_plainly(is_debug=False):
        raise error
    said = capsys.readouterr().err
    assert ended.value.code == code
    assert words in said
    assert "Traceback" not in said


def test_debugging_shows_where_a_failure_came_from(capsys):
    with pytest.raises(SystemExit), told_plainly(is_debug=True):
        raise errors.BadKey("far out")
    assert "test_commands.py" in capsys.readouterr().err


def test_collections_are_listed_with_what_they_hold(home, sish):
    result = sish("collection", "list", "--home", home, "--json")
    found = json.loads(result.stdout)
    assert [(c["name"], c["slides"], c["postings"]) for c in found] == [("synthetic", 6, 18)]
    assert "synthetic" in sish("collection", "list", "--home", home).stdout


def test_a_description_counts_slides_by_label_and_names_them_when_asked(home, sish):
    result = sish("collection", "describe", "synthetic", "--slides", "--home", home)
    assert result.exit_code == 0, result.output
    assert "site: lung 2, liver 2, brain 2" in result.stdout
    assert "slide-0005" in result.stdout


def test_a_forgotten_slide_is_gone_and_forgetting_it_twice_is_refused(home, sish):
    command = ("collection", "forget-slide", "synthetic", "slide-0003", "--home", home)
    first, again = sish(*command), sish(*command)
    assert "3 patches removed" in first.stdout
    assert again.exit_code == 1
    assert "has no slide 'slide-0003'" in again.stderr


def test_a_collection_can_be_created_twice_but_not_differently(home, sish):
    command = ("collection", "create", "new", "--home", home, "--fingerprint", "f", "--code-bits")
    assert "created collection new" in sish(*command, 64).stdout
    assert "was there already" in sish(*command, 64).stdout
    other = sish(*command, 128)
    assert other.exit_code == 1
    assert "new" in other.stderr


def test_the_status_says_that_the_key_network_is_trained(home, sish):
    result = sish("status", "--home", home)
    assert result.exit_code == 0, result.output
    assert "1 of 1 shard serving" in result.stdout
    assert "(trained, vqvae-compact.safetensors" in result.stdout
    machine = json.loads(sish("status", "--home", home, "--json").stdout)
    assert machine["shards"][0]["is_serving"]
    assert machine["encoder"]["profile"] == "compact"


def test_a_home_that_is_open_elsewhere_is_refused_with_the_way_out(home, sish):
    with open_home(home):
        result = sish("collection", "list", "--home", home)
    assert result.exit_code == 1
    assert "is open in process" in result.stderr
    assert "sish shard serve" in " ".join(result.stderr.split())


def test_a_router_that_is_away_ends_with_try_later(sish):
    result = sish("collection", "list", "--router", "127.0.0.1:1")
    assert result.exit_code == 3
    assert "cannot reach the router at 127.0.0.1:1" in result.stderr


def test_an_unknown_collection_is_named_with_those_that_are_there(home, sish, tmp_path):
    slide = tmp_path / "q.svs"
    slide.write_bytes(b"not read")
    result = sish("search", slide, "-c", "nowhere", "--home", home)
    assert result.exit_code == 1
    assert "no collection 'nowhere'; there are: synthetic" in " ".join(result.stderr.split())


def test_a_query_file_that_is_missing_is_refused_before_a_cluster_is_opened(sish, tmp_path):
    result = sish("search", tmp_path / "no.svs", "-c", "demo", "--home", tmp_path / "home")
    assert result.exit_code == 1
    assert "there is no such file" in result.stderr
    assert not (tmp_path / "home").exists()


def test_an_empty_folder_is_refused_with_what_counts_as_a_slide(sish, tmp_path):
    result = sish("index", tmp_path, "-c", "demo", "--home", tmp_path / "home")
    assert result.exit_code == 1
    assert "holds no slides (svs, tif" in result.stderr


def test_a_collection_of_imported_features_says_what_it_keeps_and_how_it_is_searched(home, sish):
    create = ("collection", "create", "features", "--home", home, "--fingerprint", "f", "--no-keys")
    assert sish(*create, "--dimensions", 768).exit_code == 0
    described = sish("collection", "describe", "features", "--home", home)
    assert "keeps embeddings of 768 numbers; modes direct" in described.stdout
    (_, found) = sorted(
        json.loads(sish("collection", "list", "--home", home, "--json").stdout),
        key=lambda held: -held["code_bits"],
    )
    assert (found["dimensions"], found["has_keys"], found["modes"]) == (768, False, ["direct"])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--fingerprint", "f"), "--fingerprint needs --code-bits, --dimensions or both"),
        (("--dimensions", "8"), "give its --fingerprint too"),
    ],
)
def test_a_collection_that_is_half_described_is_refused(home, sish, options, said):
    result = sish("collection", "create", "half", "--home", home, *options)
    assert result.exit_code != 0
    assert said in result.stderr
