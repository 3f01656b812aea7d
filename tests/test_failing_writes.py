"""A full disk, SIGTERM: one line, a fitting exit code, and the last good checkpoint as it was."""

import errno
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from qa_lm.errors import FailedWrite
from qa_lm.training.checkpoints import DirectCheckpointIO
from tests.conftest import ROOT

SMALL = [
    *("tokenizer=bpe", "tokenizer.vocab_size=300", "model=tiny", "model.hidden_size=64", "trainer.accelerator=cpu"),
    *("early_stopping.patience=null", "optimizer.lr=1e-3", "hydra.run.dir=run"),
]


def state(step):
    return {"epoch": 0, "global_step": step, "state_dict": {"weight": torch.full((1000,), float(step))}}


def test_a_failing_write_leaves_the_checkpoint_before(tmp_path, monkeypatch):
    files, path = DirectCheckpointIO(), tmp_path / "checkpoints" / "last.ckpt"
    files.save_checkpoint(state(1), path)
    before = path.read_bytes()

    def full(number):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(FailedWrite, match=r"last.ckpt: cannot be written: No space left on device$"):
            files.save_checkpoint(state(2), path)
    assert path.read_bytes() == before
    assert [each.name for each in path.parent.iterdir()] == ["last.ckpt"]
    files.save_checkpoint(state(3), path)
    assert torch.load(path, weights_only=True)["global_step"] == 3


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FailedWrite, match=r"last.ckpt: cannot be written: Not a directory$"):
        DirectCheckpointIO().save_checkpoint(state(1), tmp_path / "file" / "checkpoints" / "last.ckpt")


def test_a_run_on_a_full_disk_ends_with_a_line_and_exit_code_1(tmp_path):
    """A limit on the size of files stands for the disk: torch's writer meets it half-way through a checkpoint."""
    command = [sys.executable, str(ROOT / "scripts" / "train.py"), *SMALL]
    limited = f"ulimit -f 500; exec {' '.join(command)}"
    done = subprocess.run(["bash", "-c", limited], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1, done.stderr
    # The one that failed first, or the attempt to save the last state after it.
    wanted = rf"error: {tmp_path}/run/checkpoints/(best|last)\.ckpt: cannot be written: File too large\n"
    assert re.fullmatch(wanted, done.stderr), done.stderr
    assert list((tmp_path / "run" / "checkpoints").iterdir()) == []


def test_sigterm_saves_what_was_trained_and_exits_with_143(tmp_path):
    command = [sys.executable, str(ROOT / "scripts" / "train.py"), *SMALL, "trainer.max_epochs=2000"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        last = tmp_path / "run" / "checkpoints" / "last.ckpt"
        begin = time.monotonic()
        while not last.exists() and time.monotonic() - begin < 240:
            time.sleep(0.2)
        first = saved_step(last)
        time.sleep(2)
        process.send_signal(signal.SIGTERM)
        _, error = process.communicate(timeout=60)
    assert process.returncode == 143, error
    assert error == f"terminated; what was trained so far is in {tmp_path}/run/checkpoints\n"
    assert saved_step(last) > first


def saved_step(path: Path) -> int:
    return int(torch.load(path, weights_only=True)["global_step"])
