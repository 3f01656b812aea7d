"""A learner on Windows checks, trains and asks: tests/faults/windows/sitecustomize.py has its names and its rules."""

import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT

PAIRS = """\
{"question": "Was ist 東京?", "answer": "die Hauptstadt 日本 → Tōkyō"}
{"question": "What is 2 + 2?", "answer": "4"}
{"question": "What is 2 + 3?", "answer": "5"}
{"question": "What is 2 + 4?", "answer": "6"}
"""
TRAIN = (
    *("experiment=recall", "data.path=pairs.jsonl", "data.train_fraction=1", "data.cache=cache", "seed=1"),
    *("hydra.run.dir=run", "trainer.precision=32-true"),
)
IMPORTED = """
import importlib, pkgutil
import qa_lm
for found in pkgutil.walk_packages(qa_lm.__path__, "qa_lm."):
    importlib.import_module(found.name)
"""
COMMANDS = """
import sys
from qa_lm.commands import ask, check_data, train
assert check_data.main(["pairs.jsonl", "--cache", "cache"]) == 0
sys.argv = ["train.py", *{train}]
assert train.main() == 0
assert ask.main(["run", "Was ist 東京?"]) == 0
"""


def on_windows(folder, *arguments):
    """Run Python there; what it printed. Redirected output is in the encoding of the country, unless we choose."""
    environment = os.environ | {
        "PYTHONPATH": f"{ROOT / 'tests/faults/windows'}:{ROOT}",
        "PYTHONWARNDEFAULTENCODING": "1",
    }
    command = [sys.executable, "-W", "ignore", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "code", ["import fcntl", "import os; os.fork", "import signal; signal.SIGUSR1", "open('a:b', 'w')"]
)
def test_it_is_another_system(tmp_path, code):
    with pytest.raises(AssertionError, match=r"ModuleNotFoundError|AttributeError|Invalid argument"):
        on_windows(tmp_path, "-c", code)


@pytest.mark.slow
def test_every_module_is_imported_and_a_learner_trains_and_asks(tmp_path):
    (tmp_path / "pairs.jsonl").write_text(PAIRS, encoding="utf-8")
    said = on_windows(tmp_path, "-c", IMPORTED + COMMANDS.format(train=TRAIN))
    assert said.endswith("\ndie Hauptstadt 日本 → Tōkyō\n")


@pytest.mark.slow
def test_workers_and_a_resumed_run(tmp_path):
    (tmp_path / "pairs.jsonl").write_text(PAIRS, encoding="utf-8")
    scripts = ROOT / "scripts"
    on_windows(tmp_path, scripts / "train.py", *TRAIN, "trainer.max_epochs=2", "data.workers=1")
    assert "epoch 3/3" in on_windows(tmp_path, scripts / "train.py", "resume=run", "trainer.max_epochs=3")
    assert "Memorised" in on_windows(tmp_path, scripts / "train.py", *TRAIN, "hydra.run.dir=again")
    assert "4\n" in on_windows(tmp_path, scripts / "ask.py", "again", "What is 2 + 2?")
    on_windows(tmp_path, scripts / "ledger.py", "again")
    on_windows(tmp_path, scripts / "evaluate.py", "again", "data.path=pairs.jsonl")
