"""The default run against the loop by hand (`examples/tutorial_loop.py`).

"steps" are the training steps alone, without validations: `train_seconds` in metrics.json. "whole" is the process from
its start to its end, imports included, for both sides.
"""

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.common import SCRIPTS, Runs, output
from qa_lm.run.run_folder import METRICS

BY_HAND, OURS = "by hand", "ours"
COLUMNS = {"steps, s": "steps", "whole, s": "whole", "exact of 8": "exact"}


def compare(rounds: int, epochs: int) -> Runs:
    """Seconds of each side, by part.

    Ours also measures, saves, exports, answers and reports; the loop by hand trains and validates only.

    Args:
        rounds: how often each side runs.
        epochs: of each run.
    """
    sides: Runs = {BY_HAND: [], OURS: []}
    for _ in range(rounds):
        sides[BY_HAND].append(_by_hand(epochs))
        sides[OURS].append(_ours(epochs))
    return sides


def print_parts(sides: Runs) -> None:
    """Medians of the parts of ours, and the two ratios."""
    parts = {name: statistics.median(run["parts"][name] for run in sides[OURS]) for name in sides[OURS][0]["parts"]}
    print("\nours, part by part, s")
    for name, seconds in sorted(parts.items(), key=lambda part: -part[1]):
        print(f"  {name:<28}{seconds:>8.2f}")
    to_steps = [run["whole"] / run["steps"] for run in sides[OURS]]
    to_hand = [ours["whole"] / hand["whole"] for ours, hand in zip(sides[OURS], sides[BY_HAND], strict=True)]
    print(f"whole / steps: {statistics.median(to_steps):.3f}   whole / whole by hand: {statistics.median(to_hand):.3f}")


def _by_hand(epochs: int) -> dict[str, Any]:
    printed, whole = _timed([str(SCRIPTS.parent / "examples" / "tutorial_loop.py"), f"--epochs={epochs}"])
    found = json.loads(printed)
    return {"steps": found["train_seconds"], "whole": whole}


def _ours(epochs: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        run, parts_file = Path(folder) / "run", Path(folder) / "parts.json"
        script = str(SCRIPTS / "benchmarks" / "timed_run.py")
        _, whole = _timed([script, str(parts_file), f"hydra.run.dir={run}", f"trainer.max_epochs={epochs}"])
        metrics = json.loads((run / METRICS).read_text())
        parts: dict[str, float] = json.loads(parts_file.read_text())
    parts["training steps"] = metrics["train_seconds"]
    parts["everything else"] = whole - sum(parts.values())
    return {"steps": metrics["train_seconds"], "whole": whole, "exact": metrics["recall"] * 8, "parts": parts}


def _timed(command: list[str]) -> tuple[str, float]:
    """What a Python process prints, and its seconds."""
    begin = time.perf_counter()
    printed = output([sys.executable, *command])
    seconds = time.perf_counter() - begin
    print(f"{Path(command[0]).name}: {seconds:.1f} s", file=sys.stderr, flush=True)
    return printed, seconds
