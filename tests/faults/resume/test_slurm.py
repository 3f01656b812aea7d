"""A job that SLURM stops is saved, requeued, and resumed by the same command."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.scripts_started import Scripts
from tests.sweeps.processes import wait_until

TRAIN = [
    *("tokenizer=bpe", "tokenizer.vocab_size=300", "model=tiny", "model.hidden_size=64", "trainer.accelerator=cpu"),
    *("early_stopping.patience=null", "trainer.max_epochs=40", "hydra.run.dir=run", "resume=auto"),
    "checkpoint.every_steps=8",
]
SCONTROL = """#!/bin/sh
echo "$@" >> "$(dirname "$0")/asked"
"""


def slurm(folder: Path) -> dict[str, str]:
    """The environment of a SLURM job, with an scontrol that records its arguments."""
    tools = folder / "tools"
    tools.mkdir()
    (tools / "scontrol").write_text(SCONTROL)
    (tools / "scontrol").chmod(0o755)
    kept = {key: value for key, value in os.environ.items() if not key.startswith("SLURM")}
    return kept | {
        "PATH": f"{tools}:{os.environ['PATH']}",
        "SLURM_JOB_ID": "4711",
        "SLURM_JOB_NAME": "train",
        "SLURM_NTASKS": "1",
        "SLURM_NTASKS_PER_NODE": "1",
        "SLURM_PROCID": "0",
        "SLURM_LOCALID": "0",
        "SLURM_NODEID": "0",
        "SLURM_NODELIST": "localhost",
    }


def signalled_in_training(
    script: Scripts, environment: dict[str, str], number: int
) -> "subprocess.CompletedProcess[str]":
    """Send a signal to a run as soon as it has a checkpoint."""
    last = script.folder / "run" / "checkpoints" / "last.ckpt"
    job = script.start("train.py", *TRAIN, environment=environment)
    wait_until(lambda: last.exists() or job.ended(), 240)
    os.kill(job.pid, number)
    return job.end()


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2], ids=["ours", "submitit's"])
def test_it_is_requeued_and_resumed(script, tmp_path, number):
    environment = slurm(tmp_path)
    done = signalled_in_training(script, environment, number)
    assert done.returncode == 143, done.stderr
    assert "SLURM requeued job 4711\n" in done.stdout
    assert (tmp_path / "tools" / "asked").read_text() == "requeue 4711\n"
    assert not list(tmp_path.rglob("hpc_ckpt*"))  # which Lightning saves in the middle of a step
    again = script("train.py", *TRAIN, environment=environment)
    assert again.returncode == 0, again.stderr
    assert "run: resuming after step " in again.stdout


def test_local_submitit_restarts_it(script):
    kept = {key: value for key, value in os.environ.items() if not key.startswith("SLURM")}
    done = signalled_in_training(script, kept | {"SUBMITIT_EXECUTOR": "local"}, signal.SIGUSR2)
    assert done.returncode == 144, done.stderr
    assert "submitit restarts this job\n" in done.stdout
