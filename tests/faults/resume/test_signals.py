"""Ctrl-C and SIGTERM to the real script: what is saved, what is printed, and how it ends."""

import os
import signal
import time
from functools import partial
from pathlib import Path

import pytest

from tests.scripts_started import StartedScript
from tests.sweeps.processes import wait_until

TRAIN = [
    *("tokenizer=bpe", "tokenizer.vocab_size=300", "model=tiny", "model.hidden_size=64", "model.dropout=0.1"),
    *("trainer.accelerator=cpu", "early_stopping.patience=null", "optimizer.lr=1e-3", "hydra.run.dir=run"),
    "checkpoint.every_steps=8",
]


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [
        pytest.param(signal.SIGTERM, 143, "terminated", marks=pytest.mark.slow),
        (signal.SIGINT, 130, "interrupted"),
    ],
)
def test_a_signal_saves_and_the_run_is_resumed(script, tmp_path, number, code, word):
    run = tmp_path / "run"
    process = script.start("train.py", *TRAIN, "trainer.max_epochs=40")
    wait_until(lambda: (run / "checkpoints" / "last.ckpt").exists() or process.ended(), 240)
    time.sleep(0.5)
    os.kill(process.pid, number)
    done = process.end()
    assert done.returncode == code, done.stderr
    assert done.stderr == f"{word}; the checkpoint is in {run}/checkpoints; to resume: resume={run}\n"
    assert not (run / "metrics.json").exists()
    on = script("train.py", "resume=run")
    assert on.returncode == 0, on.stderr
    assert f"{run}: resuming after step " in on.stdout
    assert len((run / "metrics.csv").read_text().splitlines()) == 41


def test_a_finished_run_says_so(script, small_run):
    again = script("train.py", f"resume={small_run.folder}")
    assert (again.returncode, again.stderr) == (0, "")
    wanted = f"{small_run.folder}: this run is finished after 25 epochs; trainer.max_epochs=N continues up to epoch N\n"
    assert again.stdout == wanted


NOTES = """
import time
from pathlib import Path
from qa_lm.training.checkpointing.interruption import SignalHandler
interruption = SignalHandler()
interruption.install()
Path("listening").touch()
while interruption.requested is None:
    time.sleep(0.01)
Path("noted").touch()
time.sleep(60)
"""
RAISES = """
import time
from pathlib import Path
from qa_lm.training.checkpointing.interruption import exit_on_signals
with exit_on_signals():
    try:
        Path("listening").touch()
        time.sleep(60)
    finally:
        Path("noted").touch()
        time.sleep(60)
"""
ENDS = """
import time
from pathlib import Path
from qa_lm.commands import train
import qa_lm.training.train
from qa_lm.training.checkpointing.interruption import exit_on_signals

def trained(*arguments, **more):
    with exit_on_signals():
        Path("listening").touch()
        time.sleep(60)

def said(*arguments):
    Path("noted").touch()
    time.sleep(60)

qa_lm.training.train.train = trained
train._interrupted = said
train.main()
"""
"""After training, while the script ends."""


def _shown(sign: Path, process: StartedScript) -> bool:
    return sign.exists() or process.ended()


@pytest.mark.parametrize("text", [NOTES, *(pytest.param(each, marks=pytest.mark.slow) for each in (RAISES, ENDS))])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_second_signal_exits_immediately(script, tmp_path, text, number, code):
    (tmp_path / "waits.py").write_text(text)
    process = script.start(str(tmp_path / "waits.py"))
    for sign in (tmp_path / "listening", tmp_path / "noted"):
        wait_until(partial(_shown, sign, process))
        os.kill(process.pid, number)
    done = process.end()
    assert (done.returncode, done.stderr) == (code, "exited immediately\n")
