"""`scripts/train.py` with a clock on its parts: `python scripts/benchmarks/timed_run.py PARTS [key=value ...]`.

Writes JSON into the file PARTS: seconds of each part, without those of the parts within it.
"""

import functools
import json
import runpy
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from qa_lm.threads import spin_briefly

IMPORTS = "imports"
TRAIN = Path(__file__).resolve().parent.parent / "train.py"


class Clock:
    """Adds up the seconds of functions, each without what it calls that is timed itself."""

    def __init__(self) -> None:
        self.seconds = defaultdict[str, float](float)
        self._within: list[float] = []

    def watch(self, owner: Any, name: str, part: str) -> None:
        """Time a function or method from now on, as a part with this name."""
        setattr(owner, name, self._timed(getattr(owner, name), part))

    def _timed(self, function: Callable[..., Any], part: str) -> Callable[..., Any]:
        @functools.wraps(function)
        def timed(*arguments: Any, **named: Any) -> Any:
            self._within.append(0.0)
            begin = time.perf_counter()
            try:
                return function(*arguments, **named)
            finally:
                took = time.perf_counter() - begin
                self.seconds[part] += took - self._within.pop()
                if self._within:
                    self._within[-1] += took

        return timed


def watch_parts(clock: Clock) -> None:
    """Put the clock on what a run consists of, apart from its training steps."""
    from lightning.pytorch.loops.evaluation_loop import _EvaluationLoop

    from qa_lm.reporting import loss_curve
    from qa_lm.reporting.run import report as run_report
    from qa_lm.reporting.run import table
    from qa_lm.training import results, train
    from qa_lm.training.checkpointing.best_state import BestState
    from qa_lm.training.checkpointing.checkpoints import DirectCheckpointIO

    for owner, name, part in (
        (train, "prepare", "data and model"),
        (train, "build_trainer", "data and model"),
        (train, "build_task", "data and model"),
        (train, "_write_first_files", "data and model"),
        (_EvaluationLoop, "run", "validations"),
        (BestState, "copy", "copies of the best state"),
        (DirectCheckpointIO, "_save", "checkpoint writes"),
        (results, "restore_best", "export of model/"),
        (results, "export_model", "export of model/"),
        (results, "assess", "answers"),
        (loss_curve, "draw_loss_curve", "curve and report"),
        (run_report, "write_report", "curve and report"),
        (table, "answers_table", "curve and report"),
    ):
        clock.watch(owner, name, part)


def main() -> None:
    """See above."""
    sys.argv = [str(TRAIN), *sys.argv[2:]]
    sys.path[0] = str(TRAIN.parent)
    spin_briefly()
    clock = Clock()
    watch_parts(clock)
    clock.seconds[IMPORTS] = time.time() - psutil.Process().create_time()
    try:
        runpy.run_path(str(TRAIN), run_name="__main__")
    finally:
        PARTS.write_text(json.dumps(clock.seconds), encoding="utf-8")


if __name__ == "__main__":
    PARTS = Path(sys.argv[1])
    main()
