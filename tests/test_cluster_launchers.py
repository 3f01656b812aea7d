"""The launchers for clusters, each in its local flavour: the jobs of a sweep end as they do alone."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from qa_lm.training.comparison import first_difference
from tests.conftest import ROOT
from tests.test_scripts import QUICK

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


def sweep(launcher: str, folder: Path, *overrides: str) -> "subprocess.CompletedProcess[str]":
    script = str(ROOT / "scripts" / "train.py")
    words = ["-m", *LAUNCHERS[launcher], *QUICK, *overrides, "hydra.sweep.dir=sweep", "resume=auto"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [str(PYTHON), script, *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=600
    )


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_sweep_is_its_jobs_run_alone_and_goes_on(tmp_path, launcher):
    done = sweep(launcher, tmp_path, "seed=1,2")
    assert done.returncode == 0, done.stderr
    alone = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "train.py"), *QUICK, "seed=2", "hydra.run.dir=alone"],
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert alone.returncode == 0, alone.stderr
    assert first_difference(tmp_path / "alone", tmp_path / "sweep" / "1") is None
    assert (tmp_path / "sweep" / "0" / "report.html").exists()

    # As if the second job had been killed right before its end.
    (tmp_path / "sweep" / "1" / "metrics.json").unlink()
    before = (tmp_path / "sweep" / "0" / "metrics.json").stat().st_mtime_ns
    again = sweep(launcher, tmp_path, "seed=1,2")
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "sweep" / "0" / "metrics.json").stat().st_mtime_ns == before
    assert first_difference(tmp_path / "alone", tmp_path / "sweep" / "1") is None

    report = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "sweep_report.py"), "sweep"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
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
