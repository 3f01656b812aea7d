"""A folder of the user's own settings files, which `--config-dir` adds to `conf/`."""

import functools
import os
import pickle

import pytest
from omegaconf.basecontainer import BaseContainer

import qa_lm
from qa_lm.config.compose import new_folder, new_folder_once, register_schema

MINE = {
    "mine": "defaults:\n  - override /model: tiny\nseed: 7\ntrainer:\n  max_epochs: 1\n",
    "typo": "defaults:\n  - override /model: tiny\noptimizer:\n  lrr: 1e-3\n",
    "value": "seed: -1\n",
    "broken": "seed: [\n",
    "entry": "defaults:\n  - overide /model: tiny\n",
    "choice": "defaults:\n  - override /model: tinny\n",
}
SAID = {
    "typo": "mine/experiment/typo.yaml: optimizer.lrr: no such setting; did you mean optimizer.lr?",
    "value": "mine/experiment/value.yaml: seed=-1: must be from 0 to 4294967295",
    "broken": "mine/experiment/broken.yaml:3: not YAML: expected the node content, but found '<stream end>'",
    "choice": "mine/experiment/choice.yaml: model=tinny: no such choice; did you mean tiny? "
    "Choices: fitted, medium, pretrained, small, tiny.",
    "min": "experiment=min: no such choice; did you mean mine? "
    "Choices: broken, capitals, choice, entry, finetune, mine, recall, tutorial, typo, value.",
}


@pytest.fixture
def mine(tmp_path, monkeypatch):
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    for name, text in MINE.items():
        (tmp_path / "mine" / "experiment" / f"{name}.yaml").write_text(f"# @package _global_\n{text}")
    monkeypatch.chdir(tmp_path)


def test_an_experiment_of_ones_own_is_trained_next_to_ours(mine, script):
    done = script("train.py", "--config-dir", "mine", "experiment=mine", "hydra.run.dir=run")
    assert done.returncode == 0, done.stderr
    found = qa_lm.Run("run").folder / "config.yaml"
    assert "seed: 7" in found.read_text().splitlines()
    composed = qa_lm.compose("experiment=mine", config_dir="mine")
    assert (composed.seed, composed.model.layers) == (7, qa_lm.compose("model=tiny").model.layers)
    assert qa_lm.compose("experiment=capitals", config_dir="mine") == qa_lm.compose("experiment=capitals")


@pytest.mark.parametrize("name", SAID)
def test_a_mistake_in_it_names_its_file(mine, script, name):
    done = script("train.py", "--config-dir=mine", f"experiment={name}")
    assert (done.returncode, done.stderr) == (2, f"error: {SAID[name]}\n")
    with pytest.raises(qa_lm.UserError) as caught:
        qa_lm.compose(f"experiment={name}", config_dir="mine")
    assert str(caught.value) == SAID[name]
    assert not os.path.exists("outputs")


def test_a_folder_that_is_not_there_is_named(mine, script):
    done = script("train.py", "--config-dir=nowhere", "experiment=mine")
    assert (done.returncode, done.stderr) == (2, "error: --config-dir=nowhere: no such folder\n")
    with pytest.raises(qa_lm.UserError, match="config_dir=nowhere: no such folder"):
        qa_lm.compose(config_dir="nowhere")


def test_the_resolver_of_new_folders_can_be_sent_to_the_workers_of_a_cluster():
    register_schema()
    held = [cell.cell_contents for cell in BaseContainer._resolvers["new_folder"].__closure__]
    assert new_folder_once in held
    assert pickle.loads(pickle.dumps(new_folder_once)) is new_folder_once
    with pytest.raises(pickle.PicklingError):  # a cache that no module holds under its name
        pickle.dumps(functools.cache(new_folder))
