"""When a process started, by its own account."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from qa_lm.run import process_start
from qa_lm.training import train as training
from tests.conftest import ROOT, small_config

AGE = "time.perf_counter() - process_start()"
IMPORT = "import os, time; from qa_lm.run.process_start import process_start; time.sleep(0.5); "


def printed(code: str) -> float:
    done = subprocess.run([sys.executable, "-c", IMPORT + code], cwd=ROOT, capture_output=True, text=True, check=True)
    return float(done.stdout)


def test_it_is_the_start_of_python_and_not_of_our_code():
    begin = time.time()
    started = printed(f"print(time.time() - ({AGE}))")
    assert begin - 0.05 <= started < begin + 0.5


def test_a_fork_starts_when_it_is_forked():
    assert 0 <= printed(f"print({AGE}) if os.fork() == 0 else os.wait()") < 0.4


def test_other_systems_count_in_seconds(monkeypatch):
    exact = process_start.process_start()
    monkeypatch.setattr(process_start, "STAT", Path("/no/such/file"))
    assert process_start.process_start() == pytest.approx(exact, abs=1.5)


def test_a_run_counts_from_the_start_that_it_is_given(monkeypatch, tmp_path):
    given: list[float] = []
    monkeypatch.setattr(training, "_train", lambda *arguments: given.append(arguments[-1]))
    training.train(small_config(), tmp_path, started=-100.0)
    before = time.perf_counter()
    training.train(small_config(), tmp_path)
    assert given[0] == -100.0
    assert before <= given[1] <= time.perf_counter()
