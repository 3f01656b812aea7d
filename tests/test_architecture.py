"""Who may import whom, and how large things may grow."""

import ast
import functools
import re
from pathlib import Path

import pytest

from tests.conftest import ROOT

FILES = sorted(file for folder in ("qa_lm", "scripts") for file in (ROOT / folder).rglob("*.py") if file.is_file())
NAMES = [str(file.relative_to(ROOT)) for file in FILES]
ROOMS = (
    *(
        "shared",
        "run",
        "config",
        "data",
        "retrieval",
        "modeling",
        "inference",
        "evaluation",
        "ledger",
        "export",
        "training",
        "reporting",
    ),
    *("serving", "api", "sweeps", "commands"),
)
"""The packages of qa_lm, each of which may import those to its left; `shared` are the modules beside them."""
DOORS = ("qa_lm/__init__.py", "qa_lm/cli.py")
"""Modules beside the packages that lead into all of them."""
APART = {"reporting": {"shared", "run", "reporting"}, "modeling": {"shared", "modeling"}}
"""Packages that may import less: reports read files alone, models know nothing of files of pairs."""
MOST_FILES = 13
"""Python files of a folder."""
LONGEST_FUNCTION = 68
"""Lines of a function, except in benchmarks, which measure one thing after the other."""


@functools.cache
def imported(file: Path) -> frozenset[str]:
    modules = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules.add(node.module)
    return frozenset(modules)


def room(module: str) -> str:
    """The package of a module of qa_lm, or `shared`."""
    name = module.split(".")[1] if "." in module else ""
    return name if (ROOT / "qa_lm" / name).is_dir() and name else "shared"


def test_every_package_has_its_place():
    packages = {path.name for path in (ROOT / "qa_lm").iterdir() if (path / "__init__.py").is_file()}
    assert packages == {*ROOMS} - {"shared"}


@pytest.mark.parametrize(("file", "name"), [pytest.param(*each, id=each[1]) for each in zip(FILES, NAMES, strict=True)])
def test_imports_go_one_way(file, name):
    own = room(".".join(file.relative_to(ROOT).with_suffix("").parts))
    if not name.startswith("qa_lm/") or name in DOORS:
        return
    allowed = APART.get(own, set(ROOMS[: ROOMS.index(own) + 1]))
    assert {room(module) for module in imported(file) if module.startswith("qa_lm.")} <= allowed


def test_folders_stay_small():
    folders = [path for top in ("qa_lm", "scripts", "tests") for path in (ROOT / top).rglob("**/")]
    files = {str(path): list(path.glob("*.py")) for path in folders}
    assert {path: len(found) for path, found in files.items() if len(found) > MOST_FILES} == {}


def test_functions_stay_short():
    found = {}
    for file, name in zip(FILES, NAMES, strict=True):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef) and not name.startswith("scripts/benchmarks/"):
                length = (node.end_lineno or 0) - node.lineno + 1
                if length > LONGEST_FUNCTION:
                    found[f"{name}:{node.name}"] = length
    assert found == {}


def test_hydra_and_matplotlib_stay_where_they_belong():
    for file, name in zip(FILES, NAMES, strict=True):
        roots = {module.split(".")[0] for module in imported(file)}
        if name != "qa_lm/commands/train.py" and not name.startswith(("qa_lm/config/", "qa_lm/sweeps/")):
            assert not roots & {"hydra", "omegaconf"}, name
        if not name.startswith("qa_lm/reporting/"):
            assert "matplotlib" not in roots, name
        first = [node for node in ast.parse(file.read_text()).body if isinstance(node, ast.Import | ast.ImportFrom)]
        assert "matplotlib" not in "".join(map(ast.unparse, first)), f"{name}: import it in a function"


def test_files_and_the_module_stay_small():
    lengths = {name: len(file.read_text().splitlines()) for file, name in zip(FILES, NAMES, strict=True)}
    assert {name: length for name, length in lengths.items() if length > 300} == {}
    assert lengths["qa_lm/modeling/module.py"] <= 150


def test_the_tree_shows_every_folder():
    tree = (ROOT / "docs" / "tree.md").read_text().partition("```")[2]
    folders = {path.parent.name for top in ("qa_lm", "scripts") for path in (ROOT / top).rglob("*.py")}
    folders |= {"conf", "docs", "tests", "examples"}
    assert set(re.findall(r"\b(\w+)/", tree)) - {"builtin", "templates", "faults", "golden"} == folders
