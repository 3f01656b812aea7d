"""conf/sweep: every file's jobs can be run, the command line has the last word, and data.train_pairs."""

import itertools
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser

from qa_lm.config.schema import DataConfig, TokenizerConfig
from qa_lm.data.prepare import prepare
from qa_lm.errors import UserError
from tests.config.test_configuration import CONF, load
from tests.conftest import ROOT
from tests.documented import QUICK

FILES = sorted(path.stem for path in (ROOT / "conf" / "sweep").glob("*.yaml"))
FILE = ["data=file", "data.path=x.jsonl"]


def points(name: str) -> list[list[str]]:
    params = yaml.safe_load((CONF / "sweep" / f"{name}.yaml").read_text())["hydra"]["sweeper"]["params"]
    parsed = OverridesParser.create().parse_overrides([f"{key}={values}" for key, values in params.items()])
    return [list(each) for each in itertools.product(*(_choices(each) for each in parsed))]


def _choices(override):
    return [f"{override.key_or_group}={value}" for value in override.sweep_string_iterator()]


@pytest.mark.parametrize("name", FILES)
def test_every_point_is_a_configuration_of_its_own(name):
    companions = FILE if name in ("data_size", "recall_recipe") else []
    # The first and the last value of each setting meet in these.
    found = {repr(load([f"sweep={name}", *companions, *point])) for point in (points(name)[0], points(name)[-1])}
    assert len(found) == 2
    seeds = {each for point in points(name) for each in point if each.startswith("seed=")}
    assert len(seeds) == 3, "a difference can only be told from chance by several seeds"


def test_the_study_leaves_all_but_its_questions_to_the_recipe():
    recipe = load(["experiment=recall", *FILE[1:]])
    study = load(["sweep=recall_recipe", *FILE[1:]])
    assert study.optimizer.lr is None
    assert (study.model, study.tokenizer, study.optimizer) == (recipe.model, recipe.tokenizer, recipe.optimizer)
    assert study.trainer["max_epochs"] == 9


def test_without_m_a_sweep_is_refused(script):
    done = script("train.py", "sweep=recipe", "model=tiny")
    assert (done.returncode, done.stderr) == (2, "error: sweep=recipe: is a sweep: add -m\n")


@pytest.mark.parametrize(("key", "told"), [("optimizer.lrx", "optimizer.lr"), ("modle", "model")])
def test_a_typo_in_what_a_file_sweeps(script, tmp_path, key, told):
    (tmp_path / "sweep").mkdir()
    params = {"hydra": {"sweeper": {"params": {key: "1,2"}}}}
    (tmp_path / "sweep" / "mine.yaml").write_text(f"# @package _global_\n{yaml.safe_dump(params)}")
    done = script("train.py", "-m", f"--config-dir={tmp_path}", "sweep=mine", "hydra.sweep.dir=sweep_folder")
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) <= 2
    assert key in done.stderr
    assert told in done.stderr.replace(key, "")


@pytest.mark.slow
def test_a_sweep_of_a_file_narrowed_on_the_command_line(script, tmp_path):
    done = script("train.py", "-m", "sweep=recipe", *QUICK, "seed=5", "data.train_on=all", "hydra.sweep.dir=sweep")
    assert done.returncode == 0, done.stderr
    configs = [yaml.safe_load(path.read_text()) for path in (tmp_path / "sweep").glob("*/config.yaml")]
    assert sorted(config["loss_weighting"] for config in configs) == ["pair", "token"]
    assert [(config["seed"], config["data"]["train_on"]) for config in configs] == [(5, "all")] * 2


def test_optuna_searches_what_a_file_names(monkeypatch, tmp_path):
    pytest.importorskip("optuna", minversion="5", reason="Optuna 5 is missing: pip install 'qa_lm[optuna]'")
    from omegaconf import OmegaConf

    from qa_lm.sweeps.optuna import study
    from qa_lm.sweeps.optuna.sweeper import OptunaSweeper

    spaces = []
    monkeypatch.setattr(study, "SweepStudy", lambda folder, space, *rest: spaces.append(space))
    sweeper = OptunaSweeper(params={"optimizer.lr": "1e-5,1e-4", "seed": "1,2,3"})
    sweeper._context = SimpleNamespace(config_loader=None)  # type: ignore[assignment]
    sweeper._config = OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path)}}})
    sweeper._open_study(["seed=7"])
    assert list(spaces[0]) == ["optimizer.lr"]


TOKENIZER = TokenizerConfig(kind="bpe", vocab_size=300)


@pytest.fixture
def pairs(tmp_path: Path) -> str:
    path = tmp_path / "pairs.jsonl"
    lines = (json.dumps({"question": f"What is {n}?", "answer": f"number {n}"}) for n in range(60))
    path.write_text("\n".join(lines))
    return str(path)


@pytest.mark.parametrize("split", ["question", "shuffle"])
def test_fewer_pairs_are_among_more_and_the_same_are_held_out(pairs, split):
    sides = [
        prepare(DataConfig(path=pairs, cache="off", split=split, train_pairs=most), TOKENIZER, 256).split
        for most in (10, 30, None)
    ]
    assert [len(each.train) for each in sides] == [10, 30, 48]
    assert set(sides[0].train) < set(sides[1].train) < set(sides[2].train)
    for each in sides:
        assert np.array_equal(each.validation, sides[0].validation)
    assert set(sides[0].train) != set(range(10)), "a draw, not the first of the file"


def test_more_pairs_than_there_are(pairs):
    with pytest.raises(UserError, match="data.train_pairs=49: only 48 training pairs are available"):
        prepare(DataConfig(path=pairs, cache="off", train_pairs=49), TOKENIZER, 256)
    with pytest.raises(UserError, match="data.train_pairs=0: must be at least 1"):
        load([*FILE, "data.train_pairs=0"])
