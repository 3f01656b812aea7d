"""scripts/verify_resume.py: what it says of settings that hold, and of a difference."""

import json
import shutil

import pytest
import torch

from qa_lm.training.checkpointing.comparison import first_difference

QUICK = ["tokenizer=bpe", "tokenizer.vocab_size=300", "model=tiny", "model.hidden_size=64", "trainer.accelerator=cpu"]


@pytest.mark.slow
def test_it_proves_it(script):
    done = script("verify_resume.py", "--times", "2", *QUICK, "trainer.max_epochs=40", "early_stopping.patience=null")
    assert (done.returncode, done.stderr.count("Traceback")) == (0, 0), done.stdout + done.stderr
    assert done.stdout.endswith("the same, bit for bit: weights, optimizer, metrics.csv, answers\n")
    assert done.stdout.count("interruption ") == 2


def test_mistakes(script):
    done = script("verify_resume.py", *QUICK, "optimizer.lr=x")
    assert done.returncode == 2
    assert "optimizer.lr" in done.stderr
    assert "Traceback" not in done.stderr
    assert script("verify_resume.py", "resume=x").returncode == 2


def test_the_first_difference_is_named(small_run, tmp_path):
    other = tmp_path / "run"
    shutil.copytree(small_run.folder, other)
    assert first_difference(small_run.folder, other) is None
    csv = (other / "metrics.csv").read_text()
    (other / "metrics.csv").write_text(csv.replace("\n3,", "\n4,"))
    assert str(first_difference(small_run.folder, other)).startswith("metrics.csv, line 4: '3,")
    (other / "metrics.csv").write_text(csv)
    metrics = json.loads((other / "metrics.json").read_text())
    (other / "metrics.json").write_text(json.dumps(metrics | {"seconds": 0, "recall": 2}))
    assert str(first_difference(small_run.folder, other)).startswith("metrics.json.recall: ")
    (other / "metrics.json").write_text(json.dumps(metrics))
    last = other / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(last, weights_only=True)
    name, weight = next(iter(checkpoint["state_dict"].items()))
    weight[0, 0] += 0.5
    torch.save(checkpoint, last)
    assert first_difference(small_run.folder, other) == f"last.ckpt.state_dict.{name}: differs, by up to 0.5"
