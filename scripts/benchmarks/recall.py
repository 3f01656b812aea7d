"""Time to recall: seconds of training until 99% of the trained pairs are answered exactly.

Ours is `experiment=recall` as it comes: its own measuring, compiling, validating, saving and stopping are counted, and
the answers are generated and compared at the end, all of them. Of TRL only the steps are counted, neither preparation
nor the looks at recall after each epoch. It gets its fastest setting with the best of several learning rates and batch
sizes (`--rates`, `--batches`), each tried for a few epochs first, GPT-2's tokenizer, and the model of the part `peers`.
Its Trainer has no Muon among its optimizers.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.common import SCRIPTS, Runs, child, gpt2_folder, our_run, pairs_file, print_medians
from benchmarks.peers import MODEL, row_for

TRIAL_EPOCHS = 3
RECALL = 0.99


def compare(
    file: str, counts: list[int], rounds: int, python: str | None, limit: float, rates: list[float], batches: list[int]
) -> Runs:
    """Ours on so many pairs each, and TRL on the first count.

    Args:
        file: a file of pairs.
        counts: how many of them.
        rounds: how often ours runs; TRL, which takes minutes, runs once.
        python: the Python of an environment with the extra `bench`; None for ours alone.
        limit: seconds of steps after which TRL is stopped.
        rates: learning rates that are tried.
        batches: rows a step that are tried.
    """
    sides: Runs = {}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        few = pairs_file(file, 50, work)
        for number in range(rounds):
            for count in counts:
                found = _ours(pairs_file(file, count, work), few, work / f"ours-{count}-{number}")
                sides.setdefault(f"ours, {count:,} pairs", []).append(found)
        if python:
            sides[f"TRL, {counts[0]:,} pairs"] = [
                _trl(pairs_file(file, counts[0], work), work, python, limit, rates, batches)
            ]
    return sides


def print_table(sides: Runs) -> None:
    """Medians."""
    columns = {"seconds": "seconds", "recall": "recall", "epochs": "epochs", "expected, s": "expected_seconds"}
    print_medians(sides, columns)


def _ours(pairs: Path, few: Path, folder: Path) -> dict[str, Any]:
    overrides = [f"data.path={pairs}", f"data.validation_path={few}", "evaluation.max_pairs=100000"]
    metrics = our_run(folder, ["experiment=recall", *overrides])
    found = {
        "seconds": metrics["measure_seconds"] + metrics["fit_seconds"],
        "recall": metrics["recall"],
        "epochs": metrics["epochs_run"],
        "expected_seconds": metrics["expected_fit_seconds"],
        "fit_seconds": metrics["fit_seconds"],
        "peak_memory": metrics["peak_memory"],
    }
    print(f"ours {found}", file=sys.stderr, flush=True)
    return found


def _trl(pairs: Path, work: Path, python: str, limit: float, rates: list[float], batches: list[int]) -> dict[str, Any]:
    base: dict[str, Any] = {
        "side": "trl-bf16-packing-compile",
        "pairs": str(pairs),
        "tokenizer": str(gpt2_folder(work)),
    }
    base |= {"model": MODEL, "row": row_for(pairs, work, 256), "recall": RECALL, "seconds": limit}

    def run(lr: float, batch_size: int, epochs: int) -> dict[str, Any]:
        settings = base | {"lr": lr, "batch_size": batch_size, "epochs": epochs}
        return child([python, str(SCRIPTS / "benchmarks" / "trainers.py"), json.dumps(settings)])

    if len(rates) * len(batches) > 1:
        trials = {(lr, size): run(lr, size, TRIAL_EPOCHS) for lr in rates for size in batches}
        best = min(trials, key=lambda key: trials[key]["history"][-1]["loss"])
    else:
        trials, best = {}, (rates[0], batches[0])
    found = run(*best, 60)
    return {
        "seconds": found["seconds"],
        "recall": found["history"][-1]["recall"],
        "epochs": len(found["history"]),
        "history": found["history"],
        "lr": best[0],
        "batch_size": best[1],
        "trials": {f"lr {lr:g}, {size} rows": trial["history"] for (lr, size), trial in trials.items()},
        "peak_memory": found["peak_memory"],
    }
