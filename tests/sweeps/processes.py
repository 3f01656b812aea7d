"""Sweeps of a stand-in job, started, watched and ended."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT

STAND_IN = [sys.executable, str(ROOT / "tests" / "sweeps" / "sweep_job.py")]
LAUNCHER = ["hydra/launcher=processes"]
SWEEP = [*STAND_IN, "-m", *LAUNCHER, "hydra.sweep.dir=sweep"]


class Sweeps:
    """Starts sweeps of the stand-in in a folder, and ends what a test leaves running."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.started: list[subprocess.Popen[str]] = []
        self.environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
        self.environment["PYTHONPATH"] = str(ROOT)

    def start(self, *arguments: str, command: list[str] = SWEEP) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [*command, *arguments],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.started.append(process)
        return process

    def run(self, *arguments: str, command: list[str] = SWEEP) -> "subprocess.CompletedProcess[str]":
        process = self.start(*arguments, command=command)
        out, errors = process.communicate(timeout=300)
        return subprocess.CompletedProcess(process.args, process.returncode, out, errors)

    def end(self) -> None:
        for process in self.started:
            if process.poll() is None:
                process.terminate()
                process.communicate(timeout=30)

    def jobs(self) -> dict[str, dict[str, object]]:
        """Folder of a job without its key, to its record."""
        return {path.parent.name.rpartition("_")[0]: json.loads(path.read_text()) for path in self.records()}

    def records(self) -> list[Path]:
        return sorted(self.folder.glob("sweep/*/job.json"))

    def job(self, name: str) -> Path:
        (found,) = (path.parent for path in self.records() if path.parent.name.rpartition("_")[0] == name)
        return found

    def wait_for_steps(self, number: int) -> None:
        wait_until(lambda: sum(len(path.read_text().splitlines()) for path in self.step_files()) >= number)

    def step_files(self) -> list[Path]:
        return list(self.folder.glob("sweep/*/steps.txt"))

    def states(self) -> dict[str, object]:
        return {name: record["state"] for name, record in self.jobs().items()}

    def starts(self) -> dict[str, int]:
        """How often each job was started, by its own count."""
        paths = self.folder.glob("sweep/*/starts.txt")
        return {path.parent.name.rpartition("_")[0]: path.read_text().count(" threads ") for path in paths}


@pytest.fixture
def sweeps(tmp_path: Path) -> Iterator[Sweeps]:
    found = Sweeps(tmp_path)
    yield found
    found.end()


def wait_until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)
