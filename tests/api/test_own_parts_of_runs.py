"""Own parts in whole runs: train, evaluate and resume with them, and what is said when one of them fails."""

import csv
import json
import sys

import pytest
import torch
from hydra import compose, initialize_config_dir
from safetensors.torch import load_file

from qa_lm.config.compose import register_schema
from qa_lm.data.readers.formats import READERS
from qa_lm.data.splits.registry import SPLITS
from qa_lm.sweeps.identity import job_identity
from tests.conftest import ROOT
from tests.documented import QUICK

MINE = '''
import json
from pathlib import Path

import qa_lm
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger

@qa_lm.register_format(".faq")
def read(path, options):
    for line, text in enumerate(path.read_text().splitlines(), 1):
        yield line, dict(zip(("question", "answer"), text.split("=")))

@qa_lm.register_split("first")
def first(pairs, seed, train_fraction):
    return pairs.numbers("line") == 1

class Logs(Callback):
    """Logs a value after some epochs, and may fail."""

    def __init__(self, value=None, fails_at=-1):
        self.value, self.fails_at = value, fails_at

    def on_validation_epoch_end(self, trainer, pl_module):
        if trainer.current_epoch == self.fails_at:
            raise KeyError("pairs of the\\nworld")
        if self.value or trainer.current_epoch % 2 == 0:
            pl_module.log("my/metric", float(self.value or trainer.current_epoch))

class Lines(Logger):
    name = version = None

    def __init__(self, save_dir):
        super().__init__()
        self.file = Path(save_dir) / "lines.jsonl"

    def log_hyperparams(self, params): pass

    def log_metrics(self, metrics, step=None):
        with self.file.open("a") as file:
            print(json.dumps({"step": step, **metrics}), file=file)
'''
TRAIN = (
    *(*QUICK, "trust=mine", "hydra.run.dir=run", "loggers=none", "early_stopping.patience=null"),
    *("data=file", "data.path=pairs.faq", "data.split=first", "evaluation.max_new_tokens=1"),
)


@pytest.fixture
def mine(script, tmp_path):
    """A folder with own parts in `mine.py`, and a function that trains there."""
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "pairs.faq").write_text("a=1\nb=2\nc=3\n")
    return lambda *overrides: script("train.py", *TRAIN, *overrides)


def column(path, name):
    with path.open() as file:
        return [row[name] for row in csv.DictReader(file)]


@pytest.mark.slow
def test_a_run_with_own_parts_is_evaluated_and_resumed(mine, script, tmp_path):
    parts = ["callbacks.logs._target_=mine.Logs", "loggers.lines._target_=mine.Lines"]
    done = mine(*parts)
    assert (done.returncode, done.stderr) == (0, "")
    sides = [json.loads(line)["split"] for line in (tmp_path / "run" / "answers.jsonl").read_text().splitlines()]
    assert sorted(sides) == ["train", "train", "validation"]
    lines = [json.loads(line) for line in (tmp_path / "run" / "lines.jsonl").read_text().splitlines()]
    assert [line["val/loss"] for line in lines if "val/loss" in line]
    assert "end/recall" in lines[-1]

    done = script("evaluate.py", "run", "--trust", "mine", "--out", "evaluated", "--max-new-tokens", "1")
    assert (done.returncode, done.stderr) == (0, "")
    answers = [(tmp_path / folder / "answers.jsonl").read_text() for folder in ("run", "evaluated")]
    assert answers[0] == answers[1]
    for name, arguments in (("evaluate.py", ["run"]), ("train.py", ["resume=run", "trainer.max_epochs=4"])):
        refused = script(name, *arguments)
        assert refused.returncode == 2
        assert "trust" in refused.stderr
        assert len(refused.stderr.splitlines()) == 1

    done = script("train.py", "resume=run", "trust=mine", "trainer.max_epochs=4")
    assert (done.returncode, done.stderr) == (0, "")
    assert column(tmp_path / "run" / "metrics.csv", "my/metric") == ["0.0", "", "2.0", ""]
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["logged"] == {"my/metric": 2.0}

    (tmp_path / "mine.py").write_text(MINE.replace("== 1", "== 2"))
    changed = script("train.py", "resume=run", "trust=mine", "trainer.max_epochs=5")
    assert changed.returncode == 2
    assert "the split of the pairs has changed since this run started" in changed.stderr


def test_a_callback_that_fails_ends_the_run_with_one_line(mine, script, tmp_path):
    parts = ["callbacks.logs._target_=mine.Logs", "callbacks.logs.fails_at=1", "checkpoint.every_steps=1"]
    done = mine(*parts)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    line = MINE[: MINE.index("raise KeyError")].count("\n") + 1
    words = f"mine.py:{line}: Logs.on_validation_epoch_end failed with KeyError: 'pairs of the"
    assert words in done.stderr
    assert done.stderr.endswith("run/checkpoints\n")
    (tmp_path / "mine.py").write_text(MINE.replace("raise KeyError", "print"))
    done = script("train.py", "resume=run", "trust=mine")
    assert (done.returncode, done.stderr) == (0, "")
    assert column(tmp_path / "run" / "metrics.csv", "my/metric") == ["0.0", ""]


@pytest.mark.parametrize(
    ("patience", "words"),
    [
        ("null", "warning: my/metric was never finite, so no epoch is the best; model/ holds the last weights\n"),
        ("1", "Stopped early: my/metric is not finite.\n"),
    ],
)
def test_a_metric_that_is_not_finite_chooses_no_epoch(mine, tmp_path, patience, words):
    parts = ["callbacks.logs._target_=mine.Logs", "callbacks.logs.value=nan", "monitor=my/metric"]
    done = mine(*parts, f"early_stopping.patience={patience}")
    assert (done.returncode, done.stderr) == (0, "")
    assert "my/metric is not finite\n" in done.stdout
    assert "improved" not in done.stdout
    assert words in done.stdout
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert (metrics["best_epoch"], metrics["objective"]) == (None, None)
    exported, last = (tmp_path / "run" / name for name in ("model/model.safetensors", "checkpoints/last.ckpt"))
    trained = torch.load(last, weights_only=True)["state_dict"]
    assert all(torch.equal(trained[f"model.{name}"], weights) for name, weights in load_file(exported).items())


def test_a_metric_that_is_monitored_must_be_logged_in_each_validation(mine):
    done = mine("callbacks.logs._target_=mine.Logs", "monitor=my/metric")
    assert done.returncode == 2
    assert "monitor=my/metric: this metric was not logged in the validation" in done.stderr


def test_a_job_with_an_own_reader_or_split_is_another_when_their_code_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    for registry in (READERS, SPLITS):  # what is registered is forgotten after the test
        name = ".faq" if registry is READERS else "first"
        monkeypatch.setitem(registry, name, None)
    (tmp_path / "pairs.jsonl").write_text('{"question": "a", "answer": "b"}\n' * 3)
    register_schema()

    def identity(code: str, *overrides: str) -> str:
        (tmp_path / "mine.py").write_text(code)
        with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            return job_identity(compose("train", ["data=file", "trust=mine", *overrides]))

    (tmp_path / "pairs.faq").write_text("a=1\nb=2\nc=3\n")
    changed = MINE.replace("== 1", "== 2")
    for own in (["data.path=pairs.faq"], ["data.path=pairs.jsonl", "data.split=first"]):
        assert identity(MINE, *own) == identity(MINE, *own) != identity(changed, *own)
    assert identity(MINE, "data.path=pairs.jsonl") == identity(changed, "data.path=pairs.jsonl")
