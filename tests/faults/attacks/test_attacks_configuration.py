"""A run folder from someone else: what its config.yaml and environment.json could make a reader do."""

import json
import re
from pathlib import Path
from typing import Any

import hydra
import pytest
import yaml
from omegaconf import OmegaConf

from qa_lm.config.compose import read_config
from qa_lm.config.schema import DataConfig, TokenizerConfig
from qa_lm.data.prepare import prepare
from qa_lm.errors import UserError
from tests.faults.attacks.hostile import below, copied, refused, trap
from tests.scripts_as_modules import ask, evaluate, ledger

__all__ = ["trap"]


@pytest.fixture
def run(small_run, tmp_path):
    return copied(small_run.folder, tmp_path / "theirs")


def changed(run, old, new):
    """The run's config.yaml with one change; its path."""
    path = run / "config.yaml"
    text = path.read_text()
    assert text.count(old) == 1, old
    path.write_text(text.replace(old, new))
    return path


def test_tags_of_yaml_that_run_code(run, trap, capsys, tmp_path):
    tag = f"!!python/object/apply:os.mknod ['{trap.marker}']"
    path = changed(run, "monitor: val/loss", f"monitor: {tag}")
    yaml.unsafe_load(path.read_text())
    assert trap.sprang
    assert "is not a valid configuration of a run" in refused(evaluate.main, [str(run)], capsys)
    assert not trap.sprang


@pytest.mark.parametrize("place", ["top", "data", "trainer", "model.extra"])
@pytest.mark.parametrize("key", ["_target_", "_class_path_", "class_path"])
def test_a_runs_configuration_with_a_target(run, trap, capsys, place, key, tmp_path):
    path = run / "config.yaml"
    content = yaml.safe_load(path.read_text())
    node: Any = content
    for part in [] if place == "top" else place.split("."):
        node = node[part]
    node |= {key: trap.target["_target_"], "self": trap.target["self"]}
    path.write_text(yaml.safe_dump(content))
    hydra.utils.instantiate({"_target_": trap.target["_target_"], "self": node["self"]})
    assert trap.sprang
    if place in ("top", "data"):
        assert "is not a valid configuration of a run" in refused(evaluate.main, [str(run)], capsys)
    else:  # an open mapping; nothing in it is called
        assert evaluate.main([str(run), "--out", str(tmp_path / "out")]) == 0
    assert not trap.sprang


SECRET = "s3cret-of-the-reader"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("hub_split: train", "hub_split: ${oc.env:QA_LM_SECRET}"),
        ("path: tutorial", "path: x/${oc.env:QA_LM_SECRET}.jsonl"),
        ("hub_subset: null", "hub_subset: ${oc.decode:${oc.env:QA_LM_SECRET}}"),
        ("encoding: utf-8", "encoding: ${hydra:runtime.cwd}"),
        ("dropout: 0.0\n  extra: {}", "dropout: 0.0\n  extra: {a: '${oc.env:QA_LM_SECRET}'}"),
    ],
)
def test_a_runs_configuration_does_not_read_the_environment(run, capsys, monkeypatch, old, new):
    monkeypatch.setenv("QA_LM_SECRET", SECRET)
    path = changed(run, old, new)
    if "hydra" not in new:
        assert SECRET in OmegaConf.to_yaml(OmegaConf.load(path), resolve=True)
    said = refused(evaluate.main, [str(run)], capsys)
    assert re.search(
        r"config.yaml: is not a valid configuration of a run: line \d+: interpolations are not allowed: ", said
    )
    assert SECRET not in said
    with pytest.raises(UserError, match="interpolation"):
        read_config(path)


def test_aliases_that_stand_for_more_than_memory_holds(run, capsys):
    levels = [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9) if n else 'x'}]" for n in range(4)]
    bomb = "\n".join(f"    {level}" for level in levels)
    text = f"a:\n{bomb}\n"
    assert len(str(OmegaConf.to_container(OmegaConf.create(text)))) > 10 * len(text)  # and 9 times with each level
    changed(run, "dropout: 0.0\n  extra: {}", f"dropout: 0.0\n  extra:\n{bomb}")
    assert "YAML aliases are not allowed" in refused(evaluate.main, [str(run)], capsys)


@pytest.mark.parametrize("text", ["", "[1]", "x", "{", "[" * 2000, "\0", "\x9f\xff", "data: 5", "data: [1]", "seed: x"])
def test_a_configuration_that_makes_no_sense(run, capsys, text):
    (run / "config.yaml").write_bytes(text.encode("latin-1"))
    assert "config.yaml: is not a valid configuration of a run: " in refused(evaluate.main, [str(run)], capsys)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("kind: bpe\n  path: null", "kind: hub\n  path: ../../x", "tokenizer.path=../../x: cannot be downloaded"),
        ("kind: bpe", "kind: folder", "tokenizer.path=null: give the folder"),
        ("kind: bpe", "kind: os.system", "tokenizer.kind=os.system: must be one of"),
        ("encoding: utf-8", "encoding: rot13", "data.encoding=rot13: no such encoding"),
        ("train_fraction: 0.8", "train_fraction: .nan", "data.train_fraction=nan: must be above 0"),
        ("path: tutorial", "path: {a: 5}", "data.path={'a': 5}: must be a file name"),
    ],
)
def test_names_and_values_of_a_runs_configuration(run, capsys, old, new, message):
    if "encoding" in old:  # a file that is decoded
        changed(run, "path: tutorial", f"path: {run}/answers.jsonl")
    changed(run, old, new)
    assert message in refused(evaluate.main, [str(run)], capsys)


def test_a_run_does_not_say_where_the_reader_keeps_prepared_data(run, tmp_path, capsys):
    theirs = tmp_path / "elsewhere" / "cache"
    data = DataConfig(path="tutorial", cache=str(theirs))
    prepare(data, TokenizerConfig("bpe", vocab_size=300), 256)
    assert below(theirs)
    changed(run, "cache: null", f"cache: {theirs}-2")
    assert evaluate.main([str(run), "--out", str(tmp_path / "out")]) == 0
    assert not Path(f"{theirs}-2").exists()


def test_reading_a_run_writes_nothing_into_it_or_beside_it(run, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = below(tmp_path)
    assert ask.main([str(run), "How are you?", "--explain"]) == 0
    assert ledger.main([str(run)]) == 0
    assert below(tmp_path) == before
    assert evaluate.main([str(run)]) == 0
    assert set(below(tmp_path)) - set(before) == {"evaluation/theirs/answers.jsonl", "evaluation/theirs/board.json"}
    assert {name: content for name, content in below(tmp_path).items() if name in before} == before


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "5", "[" * 100_000], ids=lambda text: text[:9])
def test_an_environment_that_makes_no_sense(run, capsys, text):
    (run / "environment.json").write_text(text)
    assert "environment.json: data_sha256 cannot be read" in refused(evaluate.main, [str(run)], capsys)


def test_answers_and_epochs_of_a_run_are_not_read_again(run, tmp_path, capsys):
    """What evaluate.py, ask.py and ledger.py do not open cannot mislead them."""
    for name in ("split.csv", "metrics.csv", "metrics.json", "answers.jsonl", "board.json", "data_report.json"):
        (run / name).write_text("../../x,\0\n" + json.dumps({"path": "../../../etc/passwd"}))
    assert evaluate.main([str(run), "--out", str(tmp_path / "out")]) == 0
    assert ask.main([str(run), "How are you?", "--explain"]) == 0
    assert ledger.main([str(run)]) == 0
