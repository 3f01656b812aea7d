"""Who may import whom, and how large things may grow."""

import ast
import functools
import re
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT

FILES = sorted([*(ROOT / "qa_lm").rglob("*.py"), *(ROOT / "scripts").glob("*.py")])
NAMES = [str(file.relative_to(ROOT)) for file in FILES]
# package: the packages of qa_lm that it may import beside itself and the words all share (batch, errors, names, config)
MAY_IMPORT = {
    "data": set(),
    "modeling": set(),
    "answering": {"data", "modeling"},
    "training": {"data", "modeling", "answering"},
    "reporting": set(),
}


@functools.cache
def imported(file: Path) -> frozenset[str]:
    modules = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules.add(node.module)
    return frozenset(modules)


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_go_one_way(package):
    files = list((ROOT / "qa_lm" / package).glob("*.py"))
    assert len(files) > 1
    for file in files:
        ours = {module.split(".")[1] for module in imported(file) if module.startswith("qa_lm.")}
        assert (
            ours - {package, "batch", "errors", "names", "config", "config_composition", "config_values"}
            <= MAY_IMPORT[package]
        ), file
        if package != "training":
            assert "config" not in ours, f"{file}: only training reads the configuration object"


def test_hydra_and_matplotlib_stay_where_they_belong():
    for file, name in zip(FILES, NAMES, strict=True):
        roots = {module.split(".")[0] for module in imported(file)}
        if name != "scripts/train.py" and not name.startswith("qa_lm/config"):
            assert not roots & {"hydra", "omegaconf"}, name
        if not name.startswith("qa_lm/reporting/"):
            assert "matplotlib" not in roots, name


def test_files_and_the_module_stay_small():
    lengths = {name: len(file.read_text().splitlines()) for file, name in zip(FILES, NAMES, strict=True)}
    assert {name: length for name, length in lengths.items() if length > 300} == {}
    assert lengths["qa_lm/modeling/module.py"] <= 150


def test_the_tree_is_shown():
    listed = subprocess.run(["git", "-C", str(ROOT), "ls-files"], capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    tree = (ROOT / "docs" / "tree.md").read_text()
    shown = set(re.findall(r"^([\w./]+\.(?:py|yaml|jsonl|png|j2))", tree, flags=re.MULTILINE))
    kept = {name for name in listed.stdout.split() if name.split("/")[0] in ("qa_lm", "scripts", "conf")}
    assert shown == {name for name in kept if not name.endswith("__init__.py")}
