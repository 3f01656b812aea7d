"""docs/extending.md and examples/: every snippet, command, example and the notebook run."""

import ast
import json
import re
import runpy
import shlex
import sys

import pytest

import qa_lm
from tests.conftest import ROOT
from tests.documented import QUICK

PAGE = (ROOT / "docs" / "extending.md").read_text()
EXAMPLES = sorted((ROOT / "examples").glob("own_*.py"))
TITLES = re.compile(r"^## (.+)$", flags=re.MULTILINE)
TINY = [*QUICK, "trainer.max_epochs=1", "model.layers=1", "model.heads=2", "evaluation.max_new_tokens=1"]


def blocks(language):
    """The blocks of the page, each with the title above it."""
    parts = TITLES.split(PAGE)[1:]
    return [
        pytest.param(block, id=title)
        for title, text in zip(parts[::2], parts[1::2], strict=True)
        for block in re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)
    ]


@pytest.fixture
def examples_folder(tmp_path, monkeypatch):
    """An empty current folder in which the modules of examples/ are imported anew, and in which a run is short."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(ROOT / "examples"), *sys.path])
    registries = (qa_lm.register_format.__globals__["READERS"], qa_lm.register_split.__globals__["SPLITS"])
    before = [dict(each) for each in registries]
    composed = qa_lm.compose
    monkeypatch.setattr(qa_lm, "compose", lambda *words, **more: composed(*words, *TINY, **more))
    for path in EXAMPLES:
        monkeypatch.delitem(sys.modules, path.stem, raising=False)
    yield tmp_path
    for registry, kept in zip(registries, before, strict=True):
        registry.clear()
        registry.update(kept)
    for path in EXAMPLES:
        sys.modules.pop(path.stem, None)


FAST = ("Model", "Callback", "Split", "File format")
"""Sections whose snippets run in the fast tests; each trains once."""


def marked(parameters):
    return [
        each if each.id in FAST else pytest.param(*each.values, id=each.id, marks=pytest.mark.slow)
        for each in parameters
    ]


@pytest.mark.parametrize("block", marked(blocks("python")))
def test_the_python_of_the_page_runs(examples_folder, block):
    exec(block, {"qa_lm": qa_lm})
    assert list(examples_folder.glob("outputs/*/*/report.html"))


@pytest.mark.slow
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs_by_itself(examples_folder, path):
    runpy.run_path(str(path), run_name="__main__")
    assert list(examples_folder.glob("outputs/*/*/metrics.json"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_short_and_on_the_page(path):
    assert len(path.read_text().splitlines()) < 72
    assert ast.get_docstring(ast.parse(path.read_text()))
    assert path.stem in PAGE


@pytest.mark.slow
@pytest.mark.parametrize("block", blocks("sh"))
def test_the_commands_of_the_page_run(script, tmp_path, block):
    for path in EXAMPLES:
        (tmp_path / path.name).write_text(path.read_text())
    (tmp_path / "pairs.faq").write_text("Q: Where?\nA: Here.\n\nQ: When?\nA: Now.\n\nQ: Who?\nA: You.\n")
    (tmp_path / "pairs.jsonl").write_text((ROOT / "qa_lm" / "data" / "builtin" / "tutorial.jsonl").read_text())
    folder = ""
    for command in block.splitlines():
        name, *words = shlex.split(command.replace("RUN_FOLDER", folder))
        done = script(name, *words, *(TINY if name == "train.py" else []))
        assert done.returncode == 0, done.stderr
        folder = done.stdout.splitlines()[-1]


def test_the_notebook_runs(examples_folder):
    cells = json.loads((ROOT / "examples" / "notebook.ipynb").read_text())["cells"]
    assert not any(cell.get("outputs") for cell in cells)
    names: dict[str, object] = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]).replace('["max_epochs"] = 30', '["max_epochs"] = 2'), names)
    assert isinstance(names["run"], qa_lm.Run)
