"""README.md and docs/: links that lead somewhere, settings that exist, and a page that is generated."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from qa_lm.config.compose import schema_keys
from qa_lm.config.trainer_arguments import trainer_parameters
from tests.conftest import ROOT
from tests.documented import PAGES

WRITTEN = [page for page in PAGES if page.name not in ("log.md", "configuration.md")]
"""Pages of today, by hand: the log stays as it was written."""
LINK = re.compile(r"\]\(([^)\s]+)\)")


def names(pages: list[Path]) -> list[str]:
    return [str(page.relative_to(ROOT)) for page in pages]


def without_blocks(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", without_blocks(page.read_text()), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def settings_page() -> ModuleType:
    spec = importlib.util.spec_from_file_location("settings_page", ROOT / "scripts" / "settings_page.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 160


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_every_relative_link_leads_to_a_file_and_a_heading(page):
    for link in LINK.findall(without_blocks(page.read_text())):
        if link.startswith(("https://", "http://")):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.is_file(), link
        assert not anchor or anchor in anchors(target), link


def test_the_readme_links_to_every_page():
    linked = {(ROOT / link).resolve() for link in LINK.findall((ROOT / "README.md").read_text())}
    assert set(PAGES) - linked == {ROOT / "README.md"}


@pytest.mark.parametrize("page", WRITTEN, ids=names(WRITTEN))
def test_every_example_output_names_its_command(page):
    """A comment before the block, by which it can be made anew."""
    text = page.read_text()
    named = re.findall(r"^<!-- output of: \S.* -->\n```text$", text, flags=re.MULTILINE)
    plain = re.findall(r"^```text$", text, flags=re.MULTILINE)
    assert page.name == "tree.md" or len(named) == len(plain)


@pytest.mark.parametrize("page", WRITTEN, ids=names(WRITTEN))
def test_every_setting_and_make_target_that_a_page_names_exists(page):
    text = page.read_text()
    known = {*schema_keys(), *(f"trainer.{name}" for name in trainer_parameters())}
    nodes = {key.partition(".")[0] for key in known if "." in key}
    for name in re.findall(r"(?<![\w./])([a-z_]+\.[a-z_]+)(?=[=` ,]|$)", text, flags=re.MULTILINE):
        is_file = name.endswith((".json", ".jsonl"))
        assert is_file or name in known or name.partition(".")[0] not in nodes, name
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert set(re.findall(r"`make ([a-z-]+)", text)) <= targets


def test_the_page_of_settings_is_the_generated_one():
    made = settings_page().page()
    assert (ROOT / "docs" / "configuration.md").read_text() == made, "make docs"
    for key in schema_keys():
        assert f"| `{key}` |" in made or f"## {key}\n" in made, key


def test_a_setting_without_its_meaning_is_an_error(monkeypatch):
    page = settings_page()
    source = page.inspect.getsource(page.TrainConfig).replace(
        '"""Metric for early stopping', '# """Metric for early stopping'
    )
    monkeypatch.setattr(page.inspect, "getsource", lambda schema: source)
    with pytest.raises(ValueError, match="TrainConfig: no string after monitor$"):
        page._meanings(page.TrainConfig)
