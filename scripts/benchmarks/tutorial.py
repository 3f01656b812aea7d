"""The default run against the loop by hand (`scripts/tutorial_loop.py`)."""

import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.common import SCRIPTS, Runs, child, our_run, print_medians

VARIANTS: dict[str, list[str]] = {
    "by hand": [],
    "ours (float32)": ["trainer.precision=32-true"],
    "ours (bf16-mixed)": ["trainer.precision=bf16-mixed"],
}


def compare(rounds: int) -> Runs:
    """Seconds of training and validation, and of the whole command, for each side.

    Ours validates, saves best.ckpt and last.ckpt, exports and answers as well; the loop by hand does none of the last
    three.
    """
    sides: Runs = {name: [] for name in VARIANTS}
    for _ in range(rounds):
        for name, overrides in VARIANTS.items():
            sides[name].append(_by_hand() if name == "by hand" else _ours(overrides))
    return sides


def print_table(sides: Runs) -> None:
    """Medians."""
    print_medians(sides, {"training steps, s": "train", "all, s": "whole", "exact of 8": "exact"})


def _by_hand() -> dict[str, Any]:
    seconds = child([sys.executable, str(SCRIPTS / "tutorial_loop.py")])["seconds"]
    return {"train": seconds, "whole": seconds}


def _ours(overrides: list[str]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        metrics = our_run(Path(folder) / "run", overrides)
    return {"train": metrics["train_seconds"], "whole": metrics["seconds"], "exact": metrics["recall"] * 8}
