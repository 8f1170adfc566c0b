"""The house keeps its own rules: sizes, words, documented fields, layers that are really checked."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted(
    path for path in (ROOT / "sish_cluster").rglob("*.py") if "wire/sish" not in path.as_posix()
)
TRACKED_SUFFIXES = {".py", ".md", ".toml", ".proto", ".txt", ".html", ".css", ".js", ".json", ""}


def name_of(path):
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_no_file_is_longer_than_400_lines(path):
    assert len(path.read_text().splitlines()) <= 400


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_functions_are_short_and_take_few_positional_parameters(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            doc = ast.get_docstring(node, clean=False)
            lines = node.end_lineno - node.lineno + 1 - (len(doc.splitlines()) if doc else 0)
            where = f"{path.name}:{node.lineno} {node.name}"
            assert lines <= 60, f"{where} has {lines} lines without its docstring"
            if not is_kernel(node):
                names = [a.arg for a in node.args.args if a.arg not in ("self", "cls")]
                limit = 5 if not is_click_command(node) else 99
                assert len(names) <= limit, f"{where} takes {len(names)} positional parameters"


def is_kernel(node):
    """numba kernels take arrays one by one and have no keyword-only parameters."""
    kernels = ("kernel", "inner", "intrinsic")
    return any(ast.unparse(d).startswith(kernels) for d in node.decorator_list)


def is_click_command(node):
    return any(
        "click" in ast.unparse(d) or "command" in ast.unparse(d) for d in node.decorator_list
    )


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_every_module_and_public_thing_has_a_docstring(path):
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree) or path.stat().st_size == 0, f"{path.name} tells no story"
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{path.name}: {node.name}"


@pytest.mark.parametrize("path", [p for p in SOURCES if p.name == "settings.py"], ids=name_of)
def test_every_settings_field_is_documented_right_below_it(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ClassDef) and node.name.endswith("Settings"):
            documented = "Parameters" in (ast.get_docstring(node) or "")
            for field, after in zip(node.body, [*node.body[1:], None], strict=True):
                if isinstance(field, ast.AnnAssign) and not documented:
                    has_text = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
                    assert has_text, f"{path.name}: {node.name}.{field.target.id}"


def test_no_module_is_a_drawer_for_leftovers():
    drawers = {"utils", "util", "helpers", "common", "manager", "misc"}
    assert not [name_of(p) for p in SOURCES if p.stem in drawers]


def tracked():
    try:
        listed = subprocess.run(
            ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout: nothing tells which files belong to the project")
    return [ROOT / line for line in listed.stdout.splitlines()]


def test_no_tracked_file_names_a_path_of_one_machine():
    pattern = re.compile(r"(^|[^\w.])/(root|home/\w+|" + "wo" + "rk" + r")/")
    found = [
        f"{name_of(path)}:{number}"
        for path in tracked()
        if path.suffix in TRACKED_SUFFIXES and path.is_file()
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if pattern.search(line)
    ]
    assert not found


def test_the_glossary_has_every_word_of_the_index_of_terms_once():
    words = re.findall(r"^\| \*\*(.+?)\*\*", (ROOT / "GLOSSARY.md").read_text(), re.MULTILINE)
    assert len(words) > 30
    assert len(words) == len(set(words))


def test_the_public_names_are_exactly_these():
    import sish_cluster

    assert set(sish_cluster.__all__) == {
        "AsyncClient", "Client", "ClientSettings", "SishError", "open_home",
    }  # fmt: skip
