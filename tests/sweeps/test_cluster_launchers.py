"""The launchers for clusters, each in its local flavour: the jobs of a sweep end as they do alone."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from qa_lm.training.checkpointing.comparison import first_difference
from tests.conftest import ROOT
from tests.documented import QUICK
from tests.sweeps.processes import wait_until

PYTHON = Path(os.environ.get("QA_LM_CLUSTERS", ROOT / ".venv" / "clusters" / "bin" / "python"))
"""Of an environment with the extras submitit and ray."""
LAUNCHERS = {
    "submitit": ["hydra/launcher=submitit_local"],
    "ray": [
        *("hydra/launcher=ray", "+hydra.launcher.ray.init.num_cpus=2"),
        "+hydra.launcher.ray.init.include_dashboard=false",
    ],
}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON.exists(), reason=f"{PYTHON} is missing; make test-slow sets it up"),
]


def sweep_command(launcher: str, *overrides: str) -> list[str]:
    words = ["-m", *LAUNCHERS[launcher], *QUICK, *overrides, "hydra.sweep.dir=sweep", "resume=auto"]
    return [str(PYTHON), str(ROOT / "scripts" / "train.py"), *words]


def sweep(launcher: str, folder: Path, *overrides: str) -> "subprocess.CompletedProcess[str]":
    return run(folder, *sweep_command(launcher, *overrides))


def run(folder: Path, *command: str) -> "subprocess.CompletedProcess[str]":
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)


def run_alone(folder: Path, *overrides: str) -> Path:
    script = str(ROOT / "scripts" / "train.py")
    alone = run(folder, sys.executable, script, *QUICK, *overrides, "hydra.run.dir=alone")
    assert alone.returncode == 0, alone.stderr
    return folder / "alone"


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_sweep_is_its_jobs_run_alone_and_goes_on(tmp_path, launcher):
    done = sweep(launcher, tmp_path, "seed=1,2")
    assert done.returncode == 0, done.stderr
    alone = run_alone(tmp_path, "seed=2")
    assert first_difference(alone, tmp_path / "sweep" / "1") is None
    assert (tmp_path / "sweep" / "0" / "report.html").exists()

    # As if the second job had been killed right before its end.
    (tmp_path / "sweep" / "1" / "metrics.json").unlink()
    before = (tmp_path / "sweep" / "0" / "metrics.json").stat().st_mtime_ns
    again = sweep(launcher, tmp_path, "seed=1,2")
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "sweep" / "0" / "metrics.json").stat().st_mtime_ns == before
    assert first_difference(alone, tmp_path / "sweep" / "1") is None

    report = run(tmp_path, sys.executable, str(ROOT / "scripts" / "sweep_report.py"), "sweep")
    assert report.returncode == 0, report.stderr
    assert "2 jobs, all finished" in report.stdout


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_failed_job_is_told_and_loses_no_other(tmp_path, launcher):
    done = sweep(launcher, tmp_path, "seed=-1,2")
    assert done.returncode == 2, done.stderr
    errors = [line for line in done.stderr.splitlines() if re.match("error: ", line)]
    assert errors == ["error: seed=-1: must be from 0 to 4294967295"]
    assert "Traceback" not in done.stderr
    assert (tmp_path / "sweep" / "1" / "metrics.json").exists()


def test_a_job_that_is_told_of_its_time_out_goes_on_by_itself(tmp_path):
    settings = ["seed=2", "trainer.max_epochs=20", "early_stopping.patience=null", "checkpoint.every_steps=8"]
    job = tmp_path / "sweep" / "0"
    with subprocess.Popen(
        sweep_command("submitit", *settings),
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        wait_until(lambda: (job / "checkpoints" / "last.ckpt").exists() or process.poll() is not None, 240)
        # submitit names a job after the process that watches over its time.
        (logs,) = (tmp_path / "sweep" / ".submitit").glob("[0-9]*")
        (worker,) = psutil.Process(int(logs.name)).children()
        worker.send_signal(signal.SIGUSR2)
        said, _ = process.communicate(timeout=400)
    assert process.returncode == 0, said
    printed = (logs / f"{logs.name}_0_log.out").read_text()
    assert "submitit restarts this job\n" in printed
    assert "resuming after step " in printed
    assert first_difference(run_alone(tmp_path, *settings), job) is None
