"""Ctrl-C and SIGTERM to the real script: what is saved, what is said, and how it ends."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.faults.interrupting import line_of

TRAIN = [
    *(sys.executable, str(ROOT / "scripts" / "train.py"), "tokenizer=bpe", "tokenizer.vocab_size=300", "model=tiny"),
    *("model.hidden_size=64", "model.dropout=0.1", "trainer.accelerator=cpu", "early_stopping.patience=null"),
    *("optimizer.lr=1e-3", "hydra.run.dir=run"),
]


def started(folder: Path, *more: str) -> "subprocess.Popen[str]":
    """The script, once it has saved for the first time."""
    process = subprocess.Popen(
        [*TRAIN, *more], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    begin = time.monotonic()
    while not (folder / "run" / "checkpoints" / "last.ckpt").exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() - begin < 240
        time.sleep(0.05)
    return process


@pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGTERM, 143, "terminated"), (signal.SIGINT, 130, "interrupted")]
)
def test_a_signal_saves_and_the_run_goes_on(tmp_path, number, code, word):
    with started(tmp_path, "trainer.max_epochs=40") as process:
        time.sleep(0.5)
        process.send_signal(number)
        _, error = process.communicate(timeout=60)
    run = tmp_path / "run"
    assert process.returncode == code, error
    assert error == f"{word}; what was trained so far is in {run}/checkpoints; to go on: resume={run}\n"
    assert not (run / "metrics.json").exists()
    script = [sys.executable, str(ROOT / "scripts" / "train.py"), "resume=run"]
    on = subprocess.run(script, cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert on.returncode == 0, on.stderr
    assert f"{run}: going on after step " in on.stdout
    assert len((run / "metrics.csv").read_text().splitlines()) == 41


def test_a_finished_run_says_so(script, small_run):
    again = script("train.py", f"resume={small_run.folder}")
    assert (again.returncode, again.stderr) == (0, "")
    wanted = f"{small_run.folder}: this run is finished after 25 epochs; trainer.max_epochs=N trains on to N\n"
    assert again.stdout == wanted


NOTES = """
import time
from qa_lm.training.interruption import Interruption
interruption = Interruption()
interruption.listen()
print("listening", flush=True)
while interruption.requested is None:
    time.sleep(0.01)
print("noted", flush=True)
time.sleep(60)
"""
RAISES = """
import time
from qa_lm.training.interruption import leaving_at_once
try:
    with leaving_at_once():
        print("listening", flush=True)
        time.sleep(60)
except BaseException as error:
    print("noted", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("script", [NOTES, RAISES])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_second_signal_leaves_at_once(script, number, code):
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert line_of(process) == "listening\n"
        process.send_signal(number)
        assert line_of(process) == "noted\n"
        process.send_signal(number)
        _, error = process.communicate(timeout=30)
    assert (process.returncode, error) == (code, "left at once\n")
