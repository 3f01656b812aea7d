"""kill -9 at random moments: a resumed run gives the same result as an uninterrupted one."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT


def killed(folder: Path, runs: int, seed: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.faults.resume.kill_runs", str(folder), str(runs), str(seed)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_killed_runs_end_the_same(tmp_path):
    found = killed(tmp_path, runs=1, seed=1)
    assert found["different"] == []
    assert found["kills"] >= 1


@pytest.mark.slow
def test_fifty_killed_runs_end_the_same(tmp_path):
    found = killed(tmp_path, runs=50, seed=2)
    print(found)
    assert found["different"] == []
    assert found["kills"] >= 50
    for moment in ("while training", "while a checkpoint was written", "after training"):
        assert found[moment] > 0, found
