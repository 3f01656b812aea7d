"""Check on your own settings that an interrupted run gives bitwise the same result as an uninterrupted one.

    python scripts/verify_resume.py [--times N] [group=choice] [key=value]

Trains once without interruption, and once with N of them (signals and kills in turn, at random times), each time
resuming with `resume=`. The exit code is 0 if the results are the same, 1 if they differ, that of a failed training.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from qa_lm.config.compose import read_config
from qa_lm.config.schema import TrainConfig
from qa_lm.run import run_folder

TRAIN = [sys.executable, "-m", "qa_lm.cli", "train"]
SIGNALS = ("SIGTERM", "SIGKILL", "SIGINT") if os.name == "posix" else ("SIGTERM",)
"""On Windows, SIGTERM kills another process, and no other signal can be sent to it."""


def main() -> int:
    """Train and compare. Returns the exit code."""
    parser = argparse.ArgumentParser(
        description="Train with and without interruptions, and compare.",
        epilog="All other arguments are settings, as for train.py.",
    )
    parser.add_argument("--times", type=int, default=3, help="number of interruptions (default 3)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the times of the interruptions (default 0)")
    given, overrides = parser.parse_known_args()
    if any(word.startswith(("resume=", "hydra.run.dir=", "-m", "--multirun")) for word in overrides):
        parser.error("accepts settings of a single run, without resume and hydra.run.dir")
    folder = Path(tempfile.mkdtemp(prefix="verify_resume."))
    try:
        return _verify(folder, overrides, given.times, random.Random(given.seed))
    except subprocess.CalledProcessError as error:
        return error.returncode
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _verify(folder: Path, overrides: list[str], times: int, draw: random.Random) -> int:
    whole, broken = folder / "whole", folder / "broken"
    started = time.monotonic()
    _train([*overrides, f"hydra.run.dir={whole}"])
    seconds = time.monotonic() - started
    print(f"without interruption: {seconds:.0f} s", flush=True)
    # Settings that are chosen by a measurement at the start may differ at the next start.
    config = read_config(whole / run_folder.CONFIG)
    same = [f"++trainer.precision={config.trainer['precision']}", f"compile={str(config.compile).lower()}"]
    same += _chosen_by_budget(config)
    often = (
        [] if any("checkpoint.every_" in word for word in overrides) else [f"checkpoint.every_seconds={seconds / 20}"]
    )
    command = [*overrides, *same, *often, f"hydra.run.dir={broken}", "resume=auto"]
    for number in range(times):
        how = SIGNALS[number % len(SIGNALS)]
        process = subprocess.Popen([*TRAIN, *command], stdout=subprocess.DEVNULL)
        try:
            process.wait(timeout=draw.uniform(0.1, 0.9) * seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.Signals[how])
        process.wait()
        print(f"interruption {number + 1} ({how}): {_state(broken)}", flush=True)
    _train(command)
    from qa_lm.training.checkpointing.comparison import first_difference

    difference = first_difference(whole, broken)
    print(
        f"different: {difference}" if difference else "the same, bit for bit: weights, optimizer, metrics.csv, answers"
    )
    return 1 if difference else 0


def _chosen_by_budget(config: TrainConfig) -> list[str]:
    """Return the epochs that a budget of time chose."""
    if config.budget.time is None:
        return []
    chosen = [f"++trainer.max_epochs={config.trainer['max_epochs']}"] if config.trainer.get("max_epochs") else []
    epochs = config.optimizer.schedule_epochs
    return chosen if epochs is None else [*chosen, f"optimizer.schedule_epochs={epochs}"]


def _train(arguments: list[str]) -> None:
    subprocess.run([*TRAIN, *arguments], check=True, stdout=subprocess.DEVNULL)


def _state(folder: Path) -> str:
    if (folder / run_folder.METRICS).exists():
        return "the run had already finished"
    if not (folder / run_folder.CHECKPOINTS / run_folder.LAST).exists():
        return "no checkpoint yet"
    from qa_lm.run.checkpoint import read_checkpoint

    checkpoint = read_checkpoint(folder / run_folder.CHECKPOINTS / run_folder.LAST)
    return f"saved at step {checkpoint['global_step']} of epoch {checkpoint['epoch'] + 1}"
