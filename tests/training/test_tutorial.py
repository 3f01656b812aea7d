"""The tutorial at its own size: the same losses as the loop by hand, and the three published answers."""

import csv
import json
import subprocess
import sys

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.slow
PUBLISHED = {
    "What is the capital of France?": "The capital of Japan is Tokyo.",
    "How are you?": "I am fine, thank you. And you?",
    "Who wrote Harry Potter?": "J.K. Rowling wrote Harry Potter.",
}


def test_the_default_run_is_the_published_one(script, tmp_path):
    done = script("train.py", "hydra.run.dir=run", "trainer.accelerator=cpu")
    assert done.returncode == 0, done.stderr
    for question, answer in PUBLISHED.items():
        assert script("ask.py", "run", question).stdout == answer + "\n"
    loop = [sys.executable, str(ROOT / "examples" / "tutorial_loop.py")]
    by_hand = json.loads(subprocess.run(loop, capture_output=True, text=True, check=True).stdout)
    with (tmp_path / "run" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 10
    for row, expected in zip(rows, by_hand["epochs"], strict=True):
        assert float(row["train_loss"]) == pytest.approx(expected["train_loss"], abs=1e-5)
        assert float(row["val_loss"]) == pytest.approx(expected["val_loss"], abs=1e-5)
