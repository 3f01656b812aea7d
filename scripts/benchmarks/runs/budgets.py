"""Runs with a budget of time: what was asked, what was planned after measuring, and what the whole process took."""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.common import SCRIPTS, Runs, pairs_file, shown
from qa_lm.config.budget.settings import duration, seconds_of
from qa_lm.run.run_folder import CHECKPOINTS, LAST, METRICS

COLUMNS = {
    "asked, s": "budget_seconds",
    "planned, s": "planned_seconds",
    "used, s": "used_seconds",
    "used / asked": "share",
    "epochs": "epochs_run",
    "recall": "recall",
    "after, s": "after_seconds",
    "after, planned": "planned_after_seconds",
}


def compare(file: str, budgets: list[str], pairs: int, rounds: int, overrides: list[str]) -> Runs:
    """Train with each budget, in a process of its own.

    Args:
        file: a file of pairs.
        budgets: budgets, such as 30s.
        pairs: number of pairs of the file.
        rounds: how often each runs.
        overrides: further settings, such as `stop_at_recall=null`.
    """
    sides: Runs = {}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        data = pairs_file(file, pairs, work)
        for number in range(rounds):
            for budget in budgets:
                seconds_of(budget)
                found = _run(data, budget, work / f"{budget}-{number}", overrides)
                sides.setdefault(f"budget={budget}", []).append(shown(budget, found))
    return sides


def _run(data: Path, budget: str, folder: Path, overrides: list[str]) -> dict[str, Any]:
    """The seconds of a run from the start of its process to its end, and those after training."""
    settings = ["experiment=recall", f"data.path={data}", f"budget={budget}", f"hydra.run.dir={folder}", *overrides]
    command = [sys.executable, str(SCRIPTS / "train.py"), *settings]
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    used = time.perf_counter() - began
    refused = {"budget_seconds": seconds_of(budget), "used_seconds": used}
    if done.returncode != 0:
        print(f"{duration(seconds_of(budget))}: {done.stderr.strip()}", file=sys.stderr)
        return refused
    metrics: dict[str, Any] = json.loads((folder / METRICS).read_text())
    found = refused | {
        key: metrics[key] for key in ("planned_seconds", "planned_after_seconds", "epochs_run", "recall")
    }
    found["share"] = used / seconds_of(budget)
    for line in done.stdout.splitlines():
        if line.startswith(("budget:", "note:", "estimated:", "Stopped")):
            print(line, file=sys.stderr)
    last = (folder / CHECKPOINTS / LAST).stat().st_mtime
    found["after_seconds"] = time.time() - last - (time.perf_counter() - began - used)
    return found
