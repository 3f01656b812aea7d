"""Two gloo processes, interrupted and resumed, end like an uninterrupted run."""

import signal
import subprocess
import sys
import time

import pytest

from qa_lm.training.checkpointing.comparison import first_difference
from tests.conftest import ROOT

COMMAND = [
    *(sys.executable, str(ROOT / "scripts" / "train.py"), "tokenizer=bpe", "tokenizer.vocab_size=300", "model=tiny"),
    *("model.hidden_size=64", "model.dropout=0.1", "data.shuffle=true", "trainer.accelerator=cpu", "resume=auto"),
    *("trainer.devices=2", "trainer.strategy=ddp", "trainer.precision=32-true", "early_stopping.patience=null"),
    *("trainer.max_epochs=150", "optimizer.lr=1e-3", "checkpoint.every_steps=3"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_two_resumed_processes_end_the_same(tmp_path, number, code):
    """Only the first process gets the signal. The other one must stop too, or end without it."""
    with subprocess.Popen(
        [*COMMAND, "hydra.run.dir=run"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        begin = time.monotonic()
        while not (tmp_path / "run" / "checkpoints" / "previous.ckpt").exists():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() - begin < 240
            time.sleep(0.05)
        time.sleep(1)
        process.send_signal(number)
        _, error = process.communicate(timeout=120)
    assert process.returncode == code, error
    assert not (tmp_path / "run" / "metrics.json").exists()
    for folder in ("run", "alone"):
        done = subprocess.run(
            [*COMMAND, f"hydra.run.dir={folder}"], cwd=tmp_path, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr
    assert first_difference(tmp_path / "alone", tmp_path / "run") is None
