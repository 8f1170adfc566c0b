import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "papers" / "sish.md").read_text()
PLACES = sorted(set(re.findall(r"`((?:\w+/)+\w+\.py)(?::(\w+))?`", PAGE)))


@pytest.mark.parametrize(("path", "name"), PLACES, ids=":".join)
def test_every_place_the_page_names_is_there(path, name):
    file = ROOT / path if path.startswith("tests/") else ROOT / "sish_cluster" / path
    assert file.is_file(), path
    defined = rf"^\s*(?:async )?(?:def |class |){re.escape(name)}\b"
    assert not name or re.search(defined, file.read_text(), re.MULTILINE), f"{path}: {name}"


def test_differences_are_numbered_without_a_gap():
    numbers = re.findall(r"^(\d+)\. \*\*", PAGE, re.MULTILINE)
    assert [int(n) for n in numbers] == list(range(1, len(numbers) + 1))
    assert len(numbers) >= 22
