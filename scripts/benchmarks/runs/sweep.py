"""A sweep of tiny jobs, forked from one process that has imported everything, and each as a new process."""

import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.common import SCRIPTS, Runs, output, shown

TINY = [
    *("tokenizer=bpe", "tokenizer.vocab_size=300", "model=tiny", "model.hidden_size=64", "trainer.max_epochs=2"),
    "trainer.accelerator=cpu",
]
SIDES = {"forked": "true", "new processes": "false"}
COLUMNS = {"whole, s": "whole", "user CPU, s": "user", "a job, s": "job"}


def compare(jobs: int, at_once: int, rounds: int) -> Runs:
    """Seconds of the whole sweep, from the start of its process to its end, by side.

    Args:
        jobs: number of jobs.
        at_once: number of jobs that run at once.
        rounds: how often each side runs.
    """
    sides: Runs = {name: [] for name in SIDES}
    for _ in range(rounds):
        for name, fork in SIDES.items():
            sides[name].append(shown(name, _sweep(jobs, at_once, fork)))
    return sides


def _sweep(jobs: int, at_once: int, fork: str) -> dict[str, Any]:
    seeds = ",".join(map(str, range(jobs)))
    with tempfile.TemporaryDirectory() as folder:
        settings = [f"hydra.sweep.dir={Path(folder, 'sweep')}", f"hydra.launcher.jobs={at_once}", f"seed={seeds}"]
        before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        output([sys.executable, str(SCRIPTS / "train.py"), "-m", *TINY, *settings, f"hydra.launcher.fork={fork}"])
        whole, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    return {"whole": whole, "user": after.ru_utime - before.ru_utime, "job": whole / jobs * at_once}
